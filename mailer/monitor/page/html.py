"""Build HTML that is safe by default: values are escaped, except `Markup`, which only templates produce."""

from collections.abc import Iterable
from html import escape

from mailer.mail.reply import printable

_MAX_LENGTH = 4000
"""Characters of one value; a remote server's reply may have a megabyte."""


class Markup(str):
    """Trusted HTML. Only `fill` and `join` should create it, from our own templates."""

    __slots__ = ()


NOTHING = Markup("")


def fill(template: str, /, **values: object) -> Markup:
    """Replace `{name}` in a template by values.

    Text is HTML-escaped, and control characters and those that change text direction become visible escapes.
    Markup is inserted unchanged, an iterable as the concatenation of its members, and None as nothing.
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
            return escape(printable(value, _MAX_LENGTH))
        case Iterable():
            return "".join(map(_safe, value))
    return escape(printable(str(value), _MAX_LENGTH))
