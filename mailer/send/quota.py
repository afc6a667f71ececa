"""Recognizes the replies that say that our quota at a provider is used up, whatever their code.

Such a reply is about our account or our address, never about the mail: the same mail goes through tomorrow,
or through another provider. The words are in `send/replies/quotas`.
"""

from typing import NamedTuple

from mailer.send.replies.reader import read_line
from mailer.send.replies.reading import About


class Quota(NamedTuple):
    """How one is dealt with."""

    pause: float
    """Seconds to leave the provider alone."""
    source: str
    asked: bool = False
    """The provider has named the pause (Retry-After)."""


def quota_of(reply: str) -> Quota | None:
    """Tell whether a reply, written as the journal has it, speaks of an allowance of ours that is used up."""
    if not reply.startswith(("4", "5", "HTTP ")):
        return None
    reading = read_line("", reply)
    if reading.about is not About.QUOTA:
        return None
    return Quota(reading.pause, reading.source, asked="(Retry-After: " in reply)
