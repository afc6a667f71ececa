"""Secrets: where one comes from, and the only two things to do with it: reveal it, or compare with it.

A `Secret` never shows its value in `repr`, `str`, an exception or anything that msgspec encodes.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import msgspec

from mailer.config.trust import Owners, Untrusted, open_trusted, read_trusted
from mailer.mail.reply import printable

MASK = "********"

COMMAND_TIMEOUT = 30.0
"""Seconds that a secret's command may take; a password manager that asks a human does not belong here."""

_LARGEST_FILE = 64 * 1024
"""Bytes; a password or token is far below, and a path typed wrong must not load a disk image."""

# What a password manager needs to find its own files and session, and nothing of ours: the environment may
# hold other secrets (`{"env": ...}`), and children must not inherit them.
_COMMAND_ENVIRONMENT = ("HOME", "LANG", "LOGNAME", "PATH", "USER", "XDG_RUNTIME_DIR")
_COMMAND_PATH = "/usr/local/bin:/usr/bin:/bin"


class SecretError(LookupError):
    """A secret could not be had. The message names its key and its source, never its value."""

    def __init__(self, key: str, reason: str) -> None:
        """Args: key: the configuration's path to the secret; reason: the source and what is wrong with it."""
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason


class FromEnvironment(msgspec.Struct, frozen=True):
    """`{"env": "NAME"}`: an environment variable, not empty."""

    name: str


class FromFile(msgspec.Struct, frozen=True):
    """`{"file": "path"}`: a file that others can neither read nor change; one trailing newline is dropped."""

    path: Path


class FromCredential(msgspec.Struct, frozen=True):
    """`{"credential": "name"}`: a file of `$CREDENTIALS_DIRECTORY` (systemd.exec(5), LoadCredential=)."""

    name: str


class FromCommand(msgspec.Struct, frozen=True):
    """`{"command": [...]}`: what a program prints, run without a shell; one trailing newline is dropped.

    With a slash in its name it must be one that others cannot change.
    """

    argv: tuple[str, ...]


Reference = FromEnvironment | FromFile | FromCredential | FromCommand
"""Says where a secret is kept."""

Source = str | Reference
"""Where a secret comes from; a `str` is the secret itself."""


class Secret:
    """A password or token, fetched when it is first needed and then kept.

    Equal secrets have equal sources; values are not compared (see `matches`).
    """

    __slots__ = ("_environ", "_key", "_owners", "_source", "_value")

    def __init__(
        self,
        source: Source,
        *,
        key: str = "secret",
        environ: Mapping[str, str] | None = None,
        owners: Owners | None = None,
    ) -> None:
        """Fetches nothing yet.

        Args:
            source: the value itself, or where to get it.
            key: the configuration's path to it, for messages.
            environ: where `FromEnvironment` and `FromCredential` look, and what a command may inherit from.
            owners: whose files are read; None: root's and ours.
        """
        self._source = source
        self._key = key
        self._environ: Mapping[str, str] = {} if environ is None else environ
        self._owners = owners
        self._value: str | None = None

    @property
    def key(self) -> str:
        return self._key

    @property
    def reference(self) -> Reference | None:
        """Where it is kept, or None when it is written in the configuration itself."""
        return None if isinstance(self._source, str) else self._source

    @property
    def empty(self) -> bool:
        """Written in the configuration as nothing; a reference never reveals an empty secret."""
        return self._source == ""

    def reveal(self) -> str:
        """Give the secret itself; may block on a file, or on a command for `COMMAND_TIMEOUT` seconds.

        Raises:
            SecretError: it could not be had; nothing is kept, so that the next call tries again.
        """
        if self._value is not None:
            return self._value
        if isinstance(self._source, str):
            return self._source
        value = self._fetch(self._source)
        if not value:
            raise SecretError(self._key, f"{_name(self._source)} is empty")
        self._value = value
        return value

    def matches(self, candidate: str) -> bool:
        """Compare in a time that tells nothing about the secret; an empty one matches nothing.

        Raises:
            SecretError: as `reveal`.
        """
        # Imported here: only the receiver compares, and OpenSSL costs every start some milliseconds.
        import hashlib  # noqa: PLC0415
        import hmac  # noqa: PLC0415

        # Digests have one length, so that compare_digest leaks none; undecodable input brings surrogates.
        mine = hashlib.sha256(self.reveal().encode("utf-8", "surrogatepass")).digest()
        theirs = hashlib.sha256(candidate.encode("utf-8", "surrogatepass")).digest()
        return hmac.compare_digest(mine, theirs) and not self.empty

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._source == other._source

    def __hash__(self) -> int:
        return hash(self._source)

    def _fetch(self, reference: Reference) -> str:
        match reference:
            case FromEnvironment(name):
                if name not in self._environ:
                    raise SecretError(self._key, f"{_name(reference)} is not set")
                return self._text(os.fsencode(self._environ[name]), reference)
            case FromFile(path):
                return self._text(self._read(path), reference)
            case FromCredential(name):
                directory = self._environ.get("CREDENTIALS_DIRECTORY", "")
                if not directory:
                    raise SecretError(self._key, f"{_name(reference)}: CREDENTIALS_DIRECTORY is not set")
                return self._text(self._read(Path(directory, name)), reference)
            case FromCommand(argv):
                return self._text(self._run(argv, _name(reference)), reference)

    def _read(self, path: Path) -> bytes:
        try:
            data, _ = read_trusted(path, _LARGEST_FILE + 1, owners=self._owners, secret=True)
        except OSError as error:
            raise SecretError(self._key, f"{printable(str(path))}: {error.strerror}") from None
        if len(data) > _LARGEST_FILE:
            raise SecretError(self._key, f"{printable(str(path))} is larger than {_LARGEST_FILE} bytes")
        return data

    def _run(self, argv: tuple[str, ...], name: str) -> bytes:
        # Imported here: most configurations run no command, and every start would pay for it.
        import subprocess  # noqa: PLC0415

        environment = {name: self._environ[name] for name in _COMMAND_ENVIRONMENT if name in self._environ}
        environment.setdefault("PATH", _COMMAND_PATH)
        try:
            if "/" in argv[0]:
                os.close(open_trusted(Path(argv[0]), os.O_PATH))
        except Untrusted as error:
            raise SecretError(self._key, f"{name} is not run: {error.strerror}") from None
        except OSError:
            pass  # running it will tell
        try:
            # Its stderr might quote the secret, so nobody sees it.
            done = subprocess.run(  # noqa: S603 - no shell, and the words are the operator's own
                argv,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                timeout=COMMAND_TIMEOUT,
                **_for_good(),
            )
        except OSError as error:
            raise SecretError(self._key, f"{name}: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise SecretError(self._key, f"{name} took longer than {COMMAND_TIMEOUT:g} seconds") from None
        if done.returncode:
            raise SecretError(self._key, f"{name} exited with {done.returncode}")
        return done.stdout

    def _text(self, data: bytes, reference: Reference) -> str:
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            error.object = b""  # it is the context of the next one, and tools print such attributes
            raise SecretError(self._key, f"{_name(reference)} is not UTF-8") from None
        return text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")


class _Start(TypedDict, total=False):
    user: int
    group: int
    start_new_session: bool


def _for_good() -> _Start:
    """What keeps a command from becoming root, when we are root and act as another user for a while.

    The command may be that user's own, and inherits our real and saved ids; the groups are already the
    user's. In root's session it could also type on root's terminal.
    """
    user, group = os.geteuid(), os.getegid()
    if (os.getuid(), os.getgid()) == (user, group):
        return {}
    return {"user": user, "group": group, "start_new_session": True}


def _name(reference: Reference) -> str:
    match reference:
        case FromEnvironment(name):
            return f"environment variable {printable(name)}"
        case FromFile(path):
            return f"file {printable(str(path))}"
        case FromCredential(name):
            return f"credential {printable(name)}"
        case FromCommand(argv):
            # Its arguments stay unsaid: some people put a token there.
            return f"command {printable(argv[0])}"
