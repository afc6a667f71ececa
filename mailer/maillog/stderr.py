"""Lines on standard error: one for each event, as logfmt for people or as JSON for collectors.

Whatever a value contains stays in its field and on its line, so that a line end in an address cannot forge a
line of ours.
"""

import sys
from enum import StrEnum

import msgspec

from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.mail.reply import printable
from mailer.maillog import outlet
from mailer.maillog.events import Fields, Level, Sink

_LONGEST = 2000
"""Characters of one value: a reply, or the addresses of a message to a hundred; the ledger has all of it."""
_UNQUOTED = bytes({*range(0x20, 0x7F)} - {*b'"'})


class Format(StrEnum):
    """The format of a line."""

    LOGFMT = "logfmt"
    JSON = "json"


def stderr_sink(level: Level, clock: Clock, *, form: Format = Format.LOGFMT, journald: bool = False) -> Sink:
    """Return a sink for standard error; with `journald`, each line begins with its `<N>`.

    Errors of standard error (a full disk under a redirection, a reader that left) never stop mail. Neither
    does a standard error that nobody reads, in a program that has called `outlet.install`.
    """
    as_logfmt = form is Format.LOGFMT

    def line(severity: Level, text: str, fields: Fields) -> str:
        words = logfmt(text, fields) if as_logfmt else as_json(severity, text, fields, clock())
        return f"<{severity:d}>{words}" if journald else words

    def write(severity: Level, text: str, fields: Fields) -> None:
        if severity > level:
            return
        try:
            sys.stderr.write(f"{line(severity, text, fields)}\n")
            sys.stderr.flush()
        except OSError:
            return

    if unwaiting := outlet.installed():
        unwaiting.note = lambda count, reason: line(Level.WARNING, outlet.missing(count, reason), {})
    return write


def logfmt(text: str, fields: Fields) -> str:
    """Format a text and `key=value` pairs, quoted where a parser needs it; empty values are left out."""
    pairs = [
        f"{key}={_joined(value) if isinstance(value, tuple) else value}"
        for key, value in fields.items()
        if value
    ]
    words = " ".join(pairs)
    if not _all_bare(words, len(pairs)):
        words = " ".join([f"{key}={_value(value)}" for key, value in fields.items() if value])
    if not text:
        return words
    text = printable(text, _LONGEST)
    return f"{text} {words}" if words else text


def _all_bare(words: str, count: int) -> bool:
    """Return whether no value of `count` pairs needs escapes, quotes or a cut, as in nearly every line.

    Each pair has one `=`, and a space stands between two: any more of them is in a value.
    """
    return (
        len(words) <= _LONGEST
        and words.isascii()
        and not words.encode().translate(None, _UNQUOTED)
        and words.count("=") == count
        and words.count(" ") < count
        and words.find("= ") < 0
        and words[-1:] != "="
    )


def _value(value: object) -> str:
    text = printable(_joined(value) if isinstance(value, tuple) else str(value), _LONGEST)
    if text and not any(c in ' "=' for c in text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _joined(values: tuple[object, ...]) -> str:
    """Join addresses with commas; numbers, such as `delays`, with slashes as Postfix does."""
    return ("/" if isinstance(values[0], float) else ",").join(map(str, values))


def as_json(severity: Level, text: str, fields: Fields, now: float) -> str:
    """Format an object with `at`, `level`, `text` if there is one, and the fields that are not empty."""
    known = {"at": clock.rfc3339(now), "level": severity.name.lower()}
    if text:
        known["text"] = text
    filled = {key: _plain(value) for key, value in (known | dict(fields)).items() if value}
    return msgspec.json.encode(filled).decode()


def _plain(value: object) -> object:
    """Return a value that JSON can hold, and that is printable and without lone surrogates."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value if isinstance(value, int | float | None) else printable(str(value), _LONGEST)
