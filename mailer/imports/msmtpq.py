"""The queue of msmtp's script msmtpq: `ID.mail` for each message, and `ID.msmtp` with msmtp's arguments."""

from email.message import Message
from email.parser import BytesHeaderParser
from email.policy import compat32
from email.utils import getaddresses
from pathlib import Path

from mailer.imports.directories import DirectoryQueue
from mailer.imports.queue import Queued, Unreadable, with_crlf

_MAIL, _ARGUMENTS = ".mail", ".msmtp"
# The options of msmtp(1) and sendmail(8). After an unknown option, a word may be its value or a recipient.
_ALONE = frozenset({"-t", "-i", "-m", "-n", "-U", "-v", "-P", "-d", "-G", "-S"})
_SENDER = frozenset({"-f", "-r", "--from"})
_WITH_VALUE = frozenset(
    (
        *("-a", "--account", "-C", "--file", "-F", "-N", "--dsn-notify", "-R", "--dsn-return", "-X"),
        *("--host", "--port", "--timeout", "--protocol", "--domain", "--user", "--passwordeval"),
        *("--proxy-host", "--proxy-port", "--socket", "--source-ip", "--logfile", "--logfile-time-format"),
        *("--tls-trust-file", "--tls-crl-file", "--tls-fingerprint", "--tls-key-file", "--tls-cert-file"),
        *("--tls-priorities", "--tls-host-override"),
    )
)
_OPTIONAL = frozenset(
    f"--{each}"
    for each in (
        *("auth", "tls", "tls-starttls", "tls-certcheck", "syslog", "auto-from", "remove-bcc-headers"),
        *("add-missing-from-header", "add-missing-date-header", "undisclosed-recipients"),
        *("read-recipients", "pretend", "debug"),
    )
)
_TUNING = ("-o", "-O", "-B", "-L", "-b")


class Msmtpq(DirectoryQueue):
    """A directory such as ~/.msmtp.queue."""

    def __init__(self, path: Path) -> None:
        """Open the directory; raises OSError."""
        super().__init__(path, ".")

    def names(self) -> list[str]:
        """Return the messages that have both files; msmtpq writes the arguments last."""
        there = set(self.files())
        return sorted(name for name in there if name.endswith(_MAIL) and _arguments_of(name) in there)

    def look(self, name: str) -> Queued:
        words = self.content(_arguments_of(name)).decode("utf-8", "surrogateescape").split()
        message = self.content(name)
        header = BytesHeaderParser(policy=compat32).parsebytes(message)
        sender, recipients, of_header = _read(words)
        if of_header:
            recipients += _addresses(header, "To", "Cc", "Bcc")
        sender = sender or next(iter(_addresses(header, "From")), "")
        if not recipients:
            raise Unreadable("neither its arguments nor its header name a recipient")
        return Queued(sender, tuple(recipients), with_crlf(message))

    def remove(self, name: str) -> None:
        self.put_by(_arguments_of(name), name)


def _arguments_of(name: str) -> str:
    return name.removesuffix(_MAIL) + _ARGUMENTS


def _read(words: list[str]) -> tuple[str, list[str], bool]:
    """Return the sender (may be empty), the recipients, and whether to add those of the header.

    Raises:
        Unreadable: there is an unknown option, which may or may not be followed by a value.
    """
    sender, recipients, of_header, rest = "", list[str](), False, iter(words)
    for word in rest:
        option, equals, value = word.partition("=") if word.startswith("--") else (word[:2], "", word[2:])
        if word == "--":
            recipients += rest
        elif not word.startswith("-"):
            recipients.append(word)
        elif option in _WITH_VALUE | _SENDER:
            value = value if equals or value else next(rest, "")
            sender = value if option in _SENDER else sender
        elif word in _ALONE or option in _OPTIONAL:
            of_header |= word in {"-t", "--read-recipients"}
        elif not (option in _TUNING and value):
            raise Unreadable(f"msmtp's option {word} is not known here: submit the message by hand")
    return sender, recipients, of_header


def _addresses(header: Message, *names: str) -> list[str]:
    values = [str(value) for name in names for value in header.get_all(name, [])]
    return [address for _, address in getaddresses(values) if address]
