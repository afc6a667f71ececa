"""HTML that is safe by default: whatever goes into a template is escaped, unless a template made it."""

from collections.abc import Iterable
from html import escape

from mailer.mail.reply import printable

_LONGEST = 4000
"""Characters of one value; a remote's reply may be a megabyte."""


class Markup(str):
    """HTML of ours. Only `fill` and `join` make it, from our own templates."""

    __slots__ = ()


NOTHING = Markup("")


def fill(template: str, /, **values: object) -> Markup:
    """Put values where a template says `{name}`.

    Text is escaped, and its control characters and those that turn the direction of writing are shown as
    such. Markup goes in as it is; of an iterable, each in turn; None is nothing.
    """
    return Markup(template.format_map({name: _safe(value) for name, value in values.items()}))


def join(pieces: Iterable[Markup]) -> Markup:
    return Markup("".join(pieces))


def _safe(value: object) -> str:
    match value:
        case Markup():
            return value
        case None:
            return ""
        case str():
            return escape(printable(value, _LONGEST))
        case Iterable():
            return "".join(map(_safe, value))
    return escape(printable(str(value), _LONGEST))
