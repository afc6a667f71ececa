"""Reads a reply: finds its enhanced code and its words, and walks the table."""

from functools import lru_cache

from mailer.mail.reply import Reply
from mailer.send.replies.enhanced import enhanced_of
from mailer.send.replies.reading import About, Reading
from mailer.send.replies.words import LIMIT, plain

_REMEMBERED = 512
"""Replies that differ. A queue's refusals are alike but for addresses and ids, which `plain` takes out."""


def read(phase: str, reply: Reply) -> Reading:
    """Read a reply other than a success.

    Args:
        phase: which it answers, as `Phase` names it; empty: not known.
        reply: whole, of any size; what is beyond `words.LIMIT` is not looked at.
    """
    text = "\n".join(reply.lines)[:LIMIT]
    return _read(phase, f"{reply.code:03d}", enhanced_of(text), plain(text))


def read_line(phase: str, reply: str) -> Reading:
    """Read a reply as the journal has it, in one line with its code; words without code are read as well."""
    if reply.startswith("HTTP "):
        from mailer.send.replies.http import read_http  # noqa: PLC0415 - most runs know SMTP alone

        return read_http(reply)
    code, _, text = reply.partition(" ")
    if not (len(code) == 3 and code.isascii() and code.isdigit()):
        code, text = "0", reply
    return read(phase, Reply(int(code), (text,)))


@lru_cache(_REMEMBERED)
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
    return Reading(About.UNKNOWN, permanent, enhanced, "", "It does not say what it is about.", "")
