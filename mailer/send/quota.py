"""What providers say when we have used up what they allow us, in whatever code they say it.

Such a reply is about our account or our address, never about the mail: the same mail goes through tomorrow,
or through another provider. Providers disagree about the code (550, 454, 421, 452, 554), so the words decide.
A recipient's mailbox that is full is something else, and its X.2.x keeps it out of here.
"""

import re
from typing import NamedTuple

RATE, PAUSE, QUOTA = 60.0, 600.0, 3600.0
"""Seconds to leave a provider alone: when we were too fast; when it wants us to slow down for longer; when
the hour's or the day's allowance is used up. Nobody says when that ends, so one message asks every hour."""


class Quota(NamedTuple):
    """One way to say it."""

    words: re.Pattern[str]
    pause: float
    source: str


def _row(words: str, pause: float, source: str) -> Quota:
    return Quota(re.compile(rf"[45]\d\d (?:{words})", re.ASCII | re.IGNORECASE), pause, source)


# Not about a recipient's mailbox (RFC 3463 3.3: X.2.x), whatever the words.
_OURS = r"(?![45]\.2\.\d).*?"

# Matched against a reply as the journal has it; the first that matches counts.
TABLE = (
    _row(rf"{_OURS}\bdaily (?:\w+ ){{0,4}}(?:quota|limit)|5\.4\.5\b", QUOTA,
         "Gmail: 550 5.4.5 Daily user sending limit exceeded; SES: 454 Throttling failure: Daily message "
         "quota exceeded; Microsoft 365: 550 5.1.90 daily limit for message recipients"),
    _row(r"throttling failure|.*maximum sending rate exceeded", RATE,
         "SES: 454 Throttling failure: Maximum sending rate exceeded"),
    _row(rf"{_OURS}(?:too frequently sending|unexpected sending|frequency (?:limit|control)|"
         r"sen(?:d|t|ding) too (?:fast|frequent|many))", PAUSE,
         "Aliyun: 554 Reject by behaviour spam: too frequently sending"),
    _row(rf"{_OURS}(?:(?:sending|messag(?:e|es|ing)|hourly|weekly|monthly|account|submission) ?"
         r"(?:quota|limit)s? ?(?:is |was |are |has been |have been )?(?:exceeded|reached|used up)|"
         r"exceeded your (?:\w+ ){0,2}(?:quota|limit)s?|sending (?:is )?paused)", QUOTA,
         "Aliyun, SendGrid, SES: the account's quota is exceeded, or its sending paused"),
    _row(rf"4\.7\.28\b|4\.7\.5\d\d\b|{_OURS}(?:too many login attempts|unusual rate of)", PAUSE,
         "Gmail: 421 4.7.28 unusual rate of mail; Microsoft 365: 451 4.7.500 server busy"),
    _row(r"4\.4\.5\b|4\.7\.\d+ .*\brate\b|[45]\.7\.\d+ .*\b(?:rate limit|quota|sending limit)", RATE,
         "RFC 3463 3.5: congestion; rate limits in the words of a policy"),
    _row(r".*peak smtp relay limit", RATE, "Gmail: 450 4.2.1 Peak SMTP relay limit exceeded"),
    Quota(re.compile(r"421 4\.7\.\d", re.ASCII), PAUSE, "Gmail: 421 4.7.0 Try again later"),
)  # fmt: skip


def quota_of(reply: str) -> Quota | None:
    """Tell whether a reply, written as the journal has it, speaks of an allowance of ours that is used up."""
    return next((row for row in TABLE if row.words.match(reply)), None)
