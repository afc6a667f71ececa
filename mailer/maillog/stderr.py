"""Lines on standard error: one for each event, as logfmt for people or as JSON for collectors.

Whatever a value contains stays in its field and on its line, so that a line end in an address cannot forge a
line of ours.
"""

import sys
from enum import StrEnum

import msgspec

from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.mail.lazy_pattern import compile_late
from mailer.mail.reply import printable
from mailer.maillog import outlet
from mailer.maillog.events import Fields, Level, Sink

_LONGEST = 2000
"""Characters of one value: a reply, or the addresses of a message to a hundred; the ledger has all of it."""


class Format(StrEnum):
    """The format of a line."""

    LOGFMT = "logfmt"
    JSON = "json"


def stderr_sink(level: Level, clock: Clock, *, form: Format = Format.LOGFMT, journald: bool = False) -> Sink:
    """Return a sink for standard error; with `journald`, each line begins with its `<N>`.

    Errors of standard error (a full disk under a redirection, a reader that left) never stop mail. Neither
    does a standard error that nobody reads, in a program that has called `outlet.install`.
    """

    def line(severity: Level, text: str, fields: Fields) -> str:
        words = logfmt(text, fields) if form is Format.LOGFMT else as_json(severity, text, fields, clock())
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
    pairs = []
    for key, value in fields.items():
        if value:
            bare = isinstance(value, str) and _BARE.fullmatch(value)
            pairs.append(f"{key}={value if bare else _value(value)}")
    return " ".join([printable(text, _LONGEST), *pairs] if text else pairs)


# Values that need neither escapes nor quotes, as most do; this one match is faster than the other checks.
_BARE = compile_late(r"[!#-<>-~]{1,1000}")


def _value(value: object) -> str:
    text = _joined(value) if isinstance(value, tuple) else str(value)
    if _BARE.fullmatch(text):
        return text
    text = printable(text, _LONGEST)
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
