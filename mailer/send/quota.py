"""Recognize replies that say that our quota at a provider is used up, whatever their code.

Such a reply is about our account or our address, never about the mail: the same mail can be delivered
tomorrow, or through another provider. The phrases are in `send/replies/quotas`.
"""

from typing import NamedTuple

from mailer.send.replies.reader import read_line
from mailer.send.replies.reading import About


class Quota(NamedTuple):
    """What to do when a quota is used up."""

    pause: float
    """Seconds for which to pause the provider."""
    source: str
    asked: bool = False
    """Whether the provider itself named the pause (Retry-After)."""


def quota_of(reply: str) -> Quota | None:
    """Return the quota that a reply, as written in the journal, says is used up; None if it names none."""
    if not reply.startswith(("4", "5", "HTTP ")):
        return None
    reading = read_line("", reply)
    if reading.about is not About.QUOTA:
        return None
    return Quota(reading.pause, reading.source, asked="(Retry-After: " in reply)
