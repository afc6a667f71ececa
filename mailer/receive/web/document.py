"""The JSON of a mail: read strictly, and in bounded memory whatever was sent.

A parser makes an object of each two octets of `[[],[],...`, tens of times what came. So the document's shape
is judged first, by operations on its bytes: how many strings it has, and what is left of it without them.
"""

import json
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, NoReturn

import msgspec

from mailer.receive.web.exchange import Problem

_MOST_STRINGS = 50_000
"""Keys included; a mail may have 20,000 recipients."""
_MOST_BESIDE = 256 * 1024
"""Octets outside of strings: punctuation, blanks and words."""
_MOST_DEEP = 4
"""Levels; a mail has three."""
_LONG = 200
"""Octets; our own keys are shorter."""

Text = Annotated[str, msgspec.Meta(max_length=998)]
"""One line."""


class Attachment(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A file, or with `contentId` a part that the HTML refers to as `cid:...`."""

    content: bytes
    """Base64 in the JSON."""
    filename: Text = ""
    content_type: Text = "application/octet-stream"
    content_id: Text = ""


class Mail(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What a client posts; addresses are `name@domain` or `Name <name@domain>`."""

    from_: Text = msgspec.field(name="from", default="")
    to: tuple[Text, ...] | Text = ()
    cc: tuple[Text, ...] | Text = ()
    bcc: tuple[Text, ...] | Text = ()
    reply_to: tuple[Text, ...] | Text = ()
    subject: Text = ""
    text: str | None = None
    html: str | None = None
    attachments: tuple[Attachment, ...] = ()
    headers: dict[Text, Text] = {}
    raw: bytes | None = None
    """Instead of all that makes a message: the message itself, in base64. `from` and the recipients are its
    envelope."""

    @property
    def recipients(self) -> tuple[str, ...]:
        return (*several(self.to), *several(self.cc), *several(self.bcc))


def several(value: Sequence[str] | str) -> tuple[str, ...]:
    """Return what may be given as one string or as a list."""
    return ((value,) if value else ()) if isinstance(value, str) else tuple(value)


def read(document: bytes) -> Mail:
    """Read a mail.

    Raises:
        Problem: 400 for what is not JSON, or has too much in it; 422 for a key or value that a mail does not
            have. The words name the place, and repeat no value.
    """
    _judge_shape(document)
    try:
        return msgspec.json.decode(document, type=Mail)
    except msgspec.ValidationError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, _words(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(f"the body is not valid JSON: {error}") from None


def _judge_shape(document: bytes) -> None:
    # What an escape stands for does not matter here; without those of the quotes, quotes delimit strings.
    plain = document.replace(rb"\\", b"").replace(rb"\"", b"")
    if plain.count(b'"') > 2 * _MOST_STRINGS:
        raise _bad(f"the JSON has more than {_MOST_STRINGS} strings")
    parts = plain.split(b'"')
    beside = b"".join(parts[::2])
    if len(beside) > _MOST_BESIDE:
        raise _bad(f"the JSON has more than {_MOST_BESIDE} octets beside its strings")
    if _depth(beside) > _MOST_DEEP:
        raise _bad(f"the JSON is nested deeper than {_MOST_DEEP} levels")
    parts[1::2] = (each if len(each) < _LONG else b"" for each in parts[1::2])
    try:
        json.loads(b'"'.join(parts), object_pairs_hook=_once, parse_constant=_no_number)
    except ValueError as error:
        # Of the reduced document: the places that it names are not those of the client's.
        raise _bad(f"the body is not valid JSON: {getattr(error, 'msg', error)}") from None


def _depth(beside: bytes) -> int:
    deepest = depth = 0
    for bracket in re.findall(rb"[\[\]{}]", beside):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _words(error: msgspec.ValidationError) -> str:
    return str(error).replace("Invalid base64 encoded string", "this is not valid base64")


def _bad(words: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, words)
