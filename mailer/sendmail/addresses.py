"""Extracts the addresses of a To field or an argument, without display names, comments and group names.

Addresses are returned unchanged, including the quotes of a local part. Nothing is decoded, so that no encoded
word turns into another address. If a recipient might be lost, the whole list is refused. An address before
one in brackets, as in `ann@x <ann@x>`, is a display name, as for every mail server. The time is linear in the
length of the text.
"""

import os

from mailer.sendmail.failure import Failure

_CONTROLS = frozenset(map(chr, (*range(32), 127)))


def addresses(text: str) -> list[str]:
    """Return the addresses of a list (RFC 5322 3.4), in order; `<>` is an empty address.

    Args:
        text: the list, unfolded.

    Raises:
        Failure: with EX_DATAERR, if a quote, comment or bracket is not closed, there is a control character,
            or a comma is missing between two addresses.
    """
    found: list[str] = []
    word, angle, at = "", None, 0  # type: str, str | None, int
    bare, inside = "", False  # the word without its quoted parts; whether this is within brackets
    while at < len(text):
        letter = text[at]
        end = at + 1
        if letter == '"':
            end = _quoted(text, at)
            word += text[at:end]
        elif letter == "(":
            end = _comment(text, at)
        elif letter == "<" and not inside:
            _skip_name(angle, bare if ">" in bare else "", text)
            word, bare, inside = "", "", True
        elif letter == ">" and inside:
            angle, word, inside = word.strip(" \t"), "", False
        elif letter in ",;" and not inside:
            _add(found, angle, word)
            word, bare, angle = "", "", None
        elif letter == ":" and not inside and "[" not in word:
            _skip_name(angle, bare, text)
            word, bare = "", ""
        else:
            word += letter
            bare += letter
        at = end
    if inside:
        raise Failure(os.EX_DATAERR, f"an angle bracket is not closed: {_shown(text)}")
    _add(found, angle, word)
    return found


def _add(found: list[str], angle: str | None, word: str) -> None:
    address = word.strip(" \t")
    if angle is not None:
        if address:
            raise _unclear(f"<{angle}> {address}")
        address = angle
    if not _CONTROLS.isdisjoint(address):
        raise Failure(os.EX_DATAERR, f"an address has a control character: {_shown(address)}")
    if address or angle is not None:
        found.append(address)


def _quoted(text: str, at: int) -> int:
    end = at + 1
    while end < len(text) and text[end] != '"':
        end += 2 if text[end] == "\\" else 1
    if end >= len(text):
        raise Failure(os.EX_DATAERR, f"a quote is not closed: {_shown(text)}")
    return end + 1


def _comment(text: str, at: int) -> int:
    depth, end = 1, at + 1
    while end < len(text) and depth:
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 2 if text[end] == "\\" else 1
    if depth:
        raise Failure(os.EX_DATAERR, f"a comment is not closed: {_shown(text)}")
    return end


def _skip_name(angle: str | None, name: str, text: str) -> None:
    """Skip a display name or group name; raises Failure if it contains or follows an address."""
    if angle is not None or "@" in name:
        raise _unclear(text)


def _unclear(text: str) -> Failure:
    words = f"it is not clear which addresses are meant, write a comma between two of them: {_shown(text)}"
    return Failure(os.EX_DATAERR, words)


def _shown(text: str) -> str:
    return ascii(text[:200])
