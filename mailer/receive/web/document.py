"""Parses the JSON of a mail, strictly and in bounded memory.

A JSON parser creates an object for every two octets of `[[],[],...`, which takes tens of times the memory of
the input. So the structure is checked first with operations on bytes: how many strings the document has, and
how much is left without them.
"""

import json
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, NoReturn

import msgspec

from mailer.receive.web.exchange import Problem

_MAX_STRINGS = 50_000
"""Strings in a document, including keys; a mail may have 20,000 recipients."""
_MAX_OUTSIDE = 256 * 1024
"""Octets outside of strings: punctuation, white space and literals."""
_MAX_DEPTH = 4
"""Levels of nesting; a mail has three."""
_MAX_KEY = 200
"""Octets of a string that is left out of the check for repeated keys; all valid keys are shorter."""

Text = Annotated[str, msgspec.Meta(max_length=998)]
"""A string that becomes one line of the message."""


class Attachment(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """An attached file, or with `contentId` a part that the HTML refers to as `cid:...`."""

    content: bytes
    """Base64 in the JSON."""
    filename: Text = ""
    content_type: Text = "application/octet-stream"
    content_id: Text = ""


class Mail(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The mail that a client posts; addresses are `name@domain` or `Name <name@domain>`."""

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
    """A complete message, base64 in the JSON, in place of the keys that describe one. `from` and the
    recipients are its envelope."""

    @property
    def recipients(self) -> tuple[str, ...]:
        return (*several(self.to), *several(self.cc), *several(self.bcc))


def several(value: Sequence[str] | str) -> tuple[str, ...]:
    """Return the values of a key that may be one string or a list."""
    return ((value,) if value else ()) if isinstance(value, str) else tuple(value)


def read(document: bytes) -> Mail:
    """Parse a mail.

    Raises:
        Problem: 400 for a document that is not JSON or is too complex; 422 for an unknown key or a wrong
            value. Its text names the place and repeats no value.
    """
    _judge_shape(document)
    try:
        return msgspec.json.decode(document, type=Mail)
    except msgspec.ValidationError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, _words(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(f"the body is not valid JSON: {error}") from None


def _judge_shape(document: bytes) -> None:
    # Remove escaped quotes and backslashes, so that every remaining quote delimits a string.
    plain = document.replace(rb"\\", b"").replace(rb"\"", b"")
    if plain.count(b'"') > 2 * _MAX_STRINGS:
        raise _bad(f"the JSON has more than {_MAX_STRINGS} strings")
    parts = plain.split(b'"')
    beside = b"".join(parts[::2])
    if len(beside) > _MAX_OUTSIDE:
        raise _bad(f"the JSON has more than {_MAX_OUTSIDE} octets outside its strings")
    if _depth(beside) > _MAX_DEPTH:
        raise _bad(f"the JSON is nested deeper than {_MAX_DEPTH} levels")
    parts[1::2] = (each if len(each) < _MAX_KEY else b"" for each in parts[1::2])
    try:
        json.loads(b'"'.join(parts), object_pairs_hook=_once, parse_constant=_no_number)
    except ValueError as error:
        # Only the message: the positions are those of the reduced document, and mean nothing to the client.
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
