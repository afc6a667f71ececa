"""The queue of msmtp's script msmtpq: for each message `ID.mail`, and `ID.msmtp`, the arguments for msmtp."""

from email.message import Message
from email.parser import BytesHeaderParser
from email.policy import compat32
from email.utils import getaddresses
from pathlib import Path

from mailer.imports.directory import DirectoryQueue
from mailer.imports.queue import Queued, Unreadable, with_crlf

_MAIL, _ARGUMENTS = ".mail", ".msmtp"
_WITH_VALUE = frozenset("aCfFNRV")
"""Options of one letter that have a value (msmtp(1)), in the same word or the next one."""


class Msmtpq(DirectoryQueue):
    """A directory such as ~/.msmtp.queue."""

    def __init__(self, path: Path) -> None:
        """Open the directory; raises OSError."""
        super().__init__(path)

    def names(self) -> list[str]:
        """Return the messages with both files: msmtpq writes the arguments last."""
        there = set(self.files("."))
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

    def finish(self, name: str) -> None:
        self.put_by(_arguments_of(name), name)


def _arguments_of(name: str) -> str:
    return name.removesuffix(_MAIL) + _ARGUMENTS


def _read(words: list[str]) -> tuple[str, list[str], bool]:
    """Return the sender or nothing, the recipients, and whether to take those of the header."""
    sender, recipients, of_header, rest = "", list[str](), False, iter(words)
    for word in rest:
        if word == "--":
            recipients += rest
        elif word.startswith("--"):
            option, _, value = word.partition("=")
            sender = value if option == "--from" else sender
            of_header |= option == "--read-recipients"
        elif word.startswith("-"):
            letter = word[1:2]
            value = (word[2:] or next(rest, "")) if letter in _WITH_VALUE else ""
            sender = value if letter == "f" else sender
            of_header |= word == "-t"
        else:
            recipients.append(word)
    return sender, recipients, of_header


def _addresses(header: Message, *names: str) -> list[str]:
    values = [str(value) for name in names for value in header.get_all(name, [])]
    return [address for _, address in getaddresses(values) if address]
