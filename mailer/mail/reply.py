"""SMTP replies (RFC 5321 4.2) with their enhanced status codes (RFC 3463)."""

import re

import msgspec

from mailer.mail.lazy_pattern import compile_late

_UNPRINTABLE = compile_late(r"[^\x20-\x7e]+")
_ENHANCED = compile_late(r"([245]\.\d{1,3}\.\d{1,3})(?:\s|$)", re.ASCII)


class Reply(msgspec.Struct, frozen=True):
    """A server's reply: its three-digit code, and its lines of text without codes and line ends."""

    code: int
    lines: tuple[str, ...]

    @property
    def positive(self) -> bool:
        return 200 <= self.code < 300

    @property
    def temporary(self) -> bool:
        """Whether to try again: 4yz, and every invalid code such as 6yz, whose meaning is unknown."""
        return not self.positive and not self.permanent and self.code != 354

    @property
    def permanent(self) -> bool:
        return 500 <= self.code < 600

    @property
    def enhanced(self) -> str:
        """The enhanced status code of the first line, such as `5.1.1`, or the empty string.

        A code whose class contradicts the reply code is ignored (RFC 2034 4: they must agree).
        """
        found = _ENHANCED.match(self.lines[0]) if self.lines else None
        status = found.group(1) if found else ""
        return status if status[:1] == str(self.code)[:1] else ""

    def __str__(self) -> str:
        """Return the reply as one printable line, for the journal and the operator.

        The enhanced code, which each line of a reply repeats (RFC 2034 4), appears once.
        """
        if len(self.lines) == 1:
            return printable(f"{self.code} {self.lines[0]}".rstrip())
        first, rest = self.lines[:1], self.lines[1:]
        if rest and (status := self.enhanced):
            rest = tuple(line.removeprefix(f"{status} ") for line in rest)
        return printable(" ".join((str(self.code), *first, *rest)).rstrip())


def enhanced_status(words: str) -> str:
    """Return the enhanced status code in a reply that `str(Reply)` formatted, or the empty string."""
    found = _ENHANCED.match(words[4:]) if words[:3].isdigit() else None
    return found.group(1) if found else ""


def printable(text: str, limit: int = 1000) -> str:
    """Make a remote text safe for terminals and log lines: escape controls, cut it to `limit` characters.

    A reply may carry CR, LF, ESC or a megabyte (RFC 5321 4.5.3.1.5 allows 512 octets a line).
    """
    if text.isprintable():
        if len(text) <= limit:
            return text
        clean = text
    else:
        start = text[: limit + 1]
        clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in start)
    return clean if len(clean) <= limit else clean[: limit - 3] + "..."


def printable_json(text: str) -> str:
    """Escape unprintable characters in a JSON text: C1 controls, and marks that change text direction.

    JSON permits them unescaped, but terminals act on them. A JSON parser reads the same string either way.
    """
    if text.isprintable():
        return text
    return _UNPRINTABLE.sub(lambda found: "".join(map(_escaped, found.group())), text)


def _escaped(character: str) -> str:
    if character == "\n" or character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
