"""Secrets: where they are stored, and the only two operations on them, revealing and comparing.

A `Secret` never exposes its value in `repr`, `str`, an exception or anything that msgspec encodes.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypedDict

import msgspec

from mailer.config.trust import Owners, Untrusted, open_trusted, read_trusted
from mailer.mail.lazy_pattern import compile_late
from mailer.mail.reply import printable

MASK = "********"

COMMAND_TIMEOUT = 30.0
"""Seconds that a secret's command may take; password managers that prompt a human are not supported."""

_LARGEST_FILE = 64 * 1024
"""Bytes; passwords and tokens are far smaller, and a mistyped path must not load a disk image."""

# The variables that a password manager needs to find its files and session. No others are passed on, because
# our environment may contain other secrets (`{"env": ...}`).
_COMMAND_ENVIRONMENT = ("HOME", "LANG", "LOGNAME", "PATH", "USER", "XDG_RUNTIME_DIR")
_COMMAND_PATH = "/usr/local/bin:/usr/bin:/bin"

NEW_PASSWORD = "python3 -c 'import secrets; print(secrets.token_urlsafe(24))'"  # noqa: S105 - makes one, is none
"""The command that generates a strong password, for messages."""

# The placeholders of our examples and of the Go relay's, and similar texts that are not real passwords.
_PLACEHOLDER = compile_late(
    r"change[-_ ]?(this|me)([-_ ]?password)?|your[-_ ].*password|x{3,}|\*+", re.IGNORECASE
)
# Weak passwords. A configuration that works with the Go relay must keep working, so these only get a warning.
_GUESSABLE = compile_late(r"(password|passwd|pass|secret|admin|test|mail|1234)[0-9]*", re.IGNORECASE)


class SecretError(LookupError):
    """A secret could not be read. The message names its key and its source, never its value."""

    def __init__(self, key: str, reason: str) -> None:
        """Args: key: the secret's path in the configuration; reason: its source and what is wrong with it."""
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason


class FromEnvironment(msgspec.Struct, frozen=True):
    """`{"env": "NAME"}`: an environment variable, which must not be empty."""

    name: str


class FromFile(msgspec.Struct, frozen=True):
    """`{"file": "path"}`: a file that no other user can read or change; one trailing newline is dropped."""

    path: Path


class FromCredential(msgspec.Struct, frozen=True):
    """`{"credential": "name"}`: a file of `$CREDENTIALS_DIRECTORY` (systemd.exec(5), LoadCredential=)."""

    name: str


class FromCommand(msgspec.Struct, frozen=True):
    """`{"command": [...]}`: the output of a program, run without a shell; one trailing newline is dropped.

    If its name contains a slash, it must be a file that other users cannot change.
    """

    argv: tuple[str, ...]


Reference = FromEnvironment | FromFile | FromCredential | FromCommand
"""A place where a secret is stored."""

Source = str | Reference
"""The source of a secret; a `str` is the secret itself."""


class Secret:
    """A password or token, fetched at its first use and then cached.

    Secrets are equal if their sources are; values are not compared (see `matches`).
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
        """Store the source; nothing is fetched yet.

        Args:
            source: the value itself, or where to get it.
            key: its path in the configuration, for messages.
            environ: the environment for `FromEnvironment`, `FromCredential` and commands.
            owners: the users whose files are trusted; None: root and the current user.
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
        """Where the secret is stored, or None if it is written in the configuration itself."""
        return None if isinstance(self._source, str) else self._source

    @property
    def empty(self) -> bool:
        """Whether the configuration has an empty string; a reference never reveals an empty secret."""
        return self._source == ""

    def reveal(self) -> str:
        """Return the secret; may block on a file, or on a command for up to `COMMAND_TIMEOUT` seconds.

        Raises:
            SecretError: it could not be read; nothing is cached, so the next call tries again.
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
        """Compare in constant time; an empty secret matches nothing.

        Raises:
            SecretError: as `reveal`.
        """
        # Imported here because few programs compare secrets, and loading OpenSSL takes some milliseconds.
        import hashlib  # noqa: PLC0415
        import hmac  # noqa: PLC0415

        # Digests have a fixed length, so compare_digest does not leak the secret's length. Undecodable input
        # contains surrogates, hence surrogatepass.
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
        # Imported here because most configurations run no command.
        import subprocess  # noqa: PLC0415

        environment = {name: self._environ[name] for name in _COMMAND_ENVIRONMENT if name in self._environ}
        environment.setdefault("PATH", _COMMAND_PATH)
        try:
            if "/" in argv[0]:
                os.close(open_trusted(Path(argv[0]), os.O_PATH))
        except Untrusted as error:
            raise SecretError(self._key, f"{name} is not run: {error.strerror}") from None
        except OSError:
            pass  # running it reports the error
        try:
            # Its stderr might contain the secret, so it is discarded.
            done = subprocess.run(  # noqa: S603 - no shell, and the operator wrote the arguments
                argv,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                timeout=COMMAND_TIMEOUT,
                **_drop_root(),
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
            error.object = b""  # it becomes the context of the new exception, and tools print such attributes
            raise SecretError(self._key, f"{_name(reference)} is not UTF-8") from None
        return text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")


class _Start(TypedDict, total=False):
    user: int
    group: int
    start_new_session: bool


def _drop_root() -> _Start:
    """Return the options that keep a command from regaining root while we, as root, act as another user.

    A command would inherit our real and saved ids, and may belong to that user; the supplementary groups are
    already the user's. In root's session it could also inject input into root's terminal.
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
            # Without its arguments, which may contain a token.
            return f"command {printable(argv[0])}"


def is_placeholder(password: str) -> bool:
    """Return whether a password is a placeholder from an example."""
    return _PLACEHOLDER.fullmatch(password) is not None


def is_guessable(secret: Secret) -> bool:
    """Return whether a secret that is written in the configuration is a weak password."""
    return secret.reference is None and _GUESSABLE.fullmatch(secret.reveal()) is not None


def secrets_in(value: object) -> Iterator[Secret]:
    """Yield every secret in the configuration, at any depth."""
    match value:
        case Secret():
            yield value
        case msgspec.Struct():
            for field in msgspec.structs.fields(value):
                yield from secrets_in(getattr(value, field.name))
        case tuple():
            for member in value:
                yield from secrets_in(member)
