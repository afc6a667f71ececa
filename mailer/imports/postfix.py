"""Postfix's queue: postqueue(1) lists it, postcat(1) reads it, and postsuper(1) changes it."""

import subprocess

import msgspec

from mailer.imports.queue import Queue, Queued, Unreadable, with_crlf

_SECONDS = 600.0
"""For one program: postqueue reads a queue of any length."""


class _Recipient(msgspec.Struct, frozen=True):
    address: str


class _Listed(msgspec.Struct, frozen=True):
    """One line of `postqueue -j`: the recipients are those who have not got it yet."""

    queue_name: str
    queue_id: str
    sender: str
    recipients: list[_Recipient]


class Postfix(Queue):
    """The queue of the Postfix that MAIL_CONFIG names, or of this host's."""

    identity = "postfix"

    def __init__(self) -> None:
        self._listed: dict[str, _Listed] = {}

    def names(self) -> list[str]:
        lines = _run("postqueue", "-j").splitlines()
        listed = [msgspec.json.decode(line, type=_Listed) for line in lines]
        self._listed = {each.queue_id: each for each in listed}
        return list(self._listed)

    def look(self, name: str) -> Queued:
        listed = self._listed[name]
        content = _run("postcat", "-qbh", name)
        sender = "" if listed.sender == "MAILER-DAEMON" else listed.sender
        return Queued(sender, tuple(each.address for each in listed.recipients), with_crlf(content))

    def read(self, name: str) -> Queued:
        """Put it on hold first, so that Postfix does not deliver it meanwhile."""
        if self._listed[name].queue_name == "active":
            raise Unreadable("Postfix is delivering it at this moment: stop Postfix, and import again")
        _run("postsuper", "-h", name)
        return self.look(name)

    def finish(self, name: str) -> None:
        _run("postsuper", "-d", name)


def _run(*argv: str) -> bytes:
    """Run one of Postfix's programs; raises OSError when it cannot be run, or fails."""
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and an id is Postfix's own
            argv, check=False, capture_output=True, timeout=_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{argv[0]} took longer than {_SECONDS:g} seconds") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise OSError(f"{argv[0]} ended with {done.returncode}: {said[-1] if said else 'without a word'}")
    return done.stdout
