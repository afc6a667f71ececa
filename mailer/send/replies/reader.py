"""Read a reply: extract its enhanced code and its words, and find the first matching row of the table."""

from functools import lru_cache

from mailer.mail.reply import Reply
from mailer.send.replies.enhanced import enhanced_of
from mailer.send.replies.plain_words import LIMIT, plain
from mailer.send.replies.reading import About, Reading

_CACHE_SIZE = 512
"""Replies to cache. Most refusals of a queue differ only in addresses and ids, which `plain` removes."""


def read(phase: str, reply: Reply) -> Reading:
    """Read a reply other than a success.

    Args:
        phase: the `Phase` that it answers; empty: unknown.
        reply: the whole reply, of any size; text beyond `words.LIMIT` is ignored.
    """
    text = "\n".join(reply.lines)[:LIMIT]
    return _read(phase, f"{reply.code:03d}", enhanced_of(text), plain(text))


def read_line(phase: str, reply: str) -> Reading:
    """Read a reply in the journal's form, one line with its code; text without a code is read as well."""
    if reply.startswith("HTTP "):
        from mailer.send.replies.http import read_http  # noqa: PLC0415 - most runs use SMTP only

        return read_http(reply)
    code, _, text = reply.partition(" ")
    if not (len(code) == 3 and code.isascii() and code.isdigit()):
        code, text = "0", reply
    return read(phase, Reply(int(code), (text,)))


@lru_cache(_CACHE_SIZE)
def _read(phase: str, code: str, enhanced: str, words: str) -> Reading:
    from mailer.send.replies.ourselves import FINAL, names_us  # noqa: PLC0415 - most runs meet no refusal
    from mailer.send.replies.sentence import Sentence  # noqa: PLC0415
    from mailer.send.replies.table import TABLE  # noqa: PLC0415

    permanent = code.startswith("5")
    sentence = Sentence(words)
    for row in TABLE:
        evidence = row.evidence(phase, code, enhanced, sentence)
        if evidence and not (row.about in FINAL and names_us(sentence)):
            return Reading(
                row.about, permanent, enhanced, evidence, row.reason, row.source, row.here, row.pause
            )
    return Reading(About.UNKNOWN, permanent, enhanced, "", "The reply does not say what it is about.", "")
