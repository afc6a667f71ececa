"""Append a domain to bare names in a header: cron writes `From: root (Cron Daemon)`, and DKIM needs a domain.

The edit is bytewise: the domain is inserted after the name, and no other byte changes. A field that is not
clearly a list of mailboxes is not changed. Everything here is linear in the header.
"""

import re

_VALUE = re.compile(
    rb"^((?:resent-)?(?:from|sender|reply-to|to|cc)[ \t]*:)([^\n]*(?:\n[ \t][^\n]*)*)",
    re.MULTILINE | re.IGNORECASE,
)
# Each alternative begins with a byte that no other alternative accepts.
_TOKEN = re.compile(
    rb'(?P<quoted>"(?:[^"\\\r\n]|\\[^\r\n])*")|(?P<comment>\([^()\\]*\))|(?P<blank>[ \t\r\n]+)'
    rb'|(?P<mark>[<>,])|(?P<word>[^\x00-\x20\x7f"(),:;<>\\\[\]]+)'
)
_NAME = re.compile(rb"[A-Za-z0-9_.+-]+")
"""A login name; excludes characters with which a server might read it as a route."""


def qualified(head: bytes, domain: str) -> bytes:
    """Return the header with a domain after each bare name in its author and recipient fields.

    Args:
        head: the header, each field with its line end.
        domain: the domain, in ASCII.
    """
    addition = b"@" + domain.encode()
    return _VALUE.sub(lambda found: found[1] + _edited(found[2], addition), head)


def _edited(value: bytes, addition: bytes) -> bytes:
    pieces, copied = [], 0
    for end in _bare_names(value):
        pieces += [value[copied:end], addition]
        copied = end
    return b"".join([*pieces, value[copied:]])


def _bare_names(value: bytes) -> list[int]:
    """Return the end offset of each bare name in a list of mailboxes; empty if it is not such a list."""
    ends: list[int] = []
    words: list[re.Match[bytes]] = []
    at, angle, closed = 0, False, False
    ended = value + b","
    while at < len(ended):
        token = _TOKEN.match(ended, at)
        if token is None:
            return []
        at = token.end()
        match token[0], token.lastgroup:
            case b",", _ if not angle:
                if len(words) == 1 and _NAME.fullmatch(words[0][0]):
                    ends.append(words[0].end())
                words, closed = [], False
            case b"<", _ if not (angle or closed):
                words, angle = [], True
            case b">", _ if angle:
                angle, closed = False, True
            case _, "quoted" | "word" if not closed:
                words.append(token)
            case _, "blank" | "comment":
                pass
            case _:
                return []
    return ends
