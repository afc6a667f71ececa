"""Postfix's queue: postqueue(1) lists it, postcat(1) reads it, and postsuper(1) changes it."""

import subprocess

import msgspec

from mailer.imports.queue import Queue, Queued, Unreadable, with_crlf

_SECONDS = 600.0
"""Seconds for one command; postqueue may list a queue of any length."""


class _Recipient(msgspec.Struct, frozen=True):
    address: str


class _Listed(msgspec.Struct, frozen=True):
    """One line of `postqueue -j`; it lists the recipients that have not received the message yet."""

    queue_name: str
    queue_id: str
    sender: str
    recipients: list[_Recipient]


class Postfix(Queue):
    """The queue of the Postfix instance that MAIL_CONFIG names, or of the host's default instance."""

    identity = "postfix"

    def __init__(self) -> None:
        self._listed: dict[str, _Listed | str] = {}
        """Messages by id; the value of an unreadable line is the reason."""

    def names(self) -> list[str]:
        """Return the ids; raises OSError also while Postfix runs, which would deliver imported mail, too."""
        if _call("postfix", "status").returncode == 0:
            raise OSError("Postfix is running; stop it first: postfix stop")
        for number, line in enumerate(_run("postqueue", "-j").splitlines(), start=1):
            try:
                listed = msgspec.json.decode(line, type=_Listed)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                self._listed[f"line {number} of postqueue -j"] = str(error)
            else:
                self._listed[listed.queue_id] = listed
        return list(self._listed)

    def look(self, name: str) -> Queued:
        listed = self._listed[name]
        if isinstance(listed, str):
            raise Unreadable(listed)
        if listed.queue_name == "hold":
            raise Unreadable("it is on hold in Postfix; if it is to be sent: postsuper -H, and import again")
        content = _run("postcat", "-qbh", name)
        sender = "" if listed.sender == "MAILER-DAEMON" else listed.sender
        return Queued(sender, tuple(each.address for each in listed.recipients), with_crlf(content))

    def remove(self, name: str) -> None:
        _run("postsuper", "-d", name)


def _call(*argv: str) -> subprocess.CompletedProcess[bytes]:
    """Run one of Postfix's programs to its end; raises OSError if it cannot be run."""
    try:
        return subprocess.run(  # noqa: S603 - no shell, and ids come from Postfix itself
            argv, check=False, capture_output=True, timeout=_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{argv[0]} took longer than {_SECONDS:g} seconds") from error


def _run(*argv: str) -> bytes:
    """Return the output of one of Postfix's programs; raises OSError if it fails."""
    done = _call(*argv)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise OSError(f"{argv[0]} ended with {done.returncode}: {said[-1] if said else 'without a word'}")
    return done.stdout
