"""Detect replies that name us, so that they are never taken for a refusal of the mail or the recipient.

`Mailbox unavailable: your account is suspended` is about the account. A refusal of the recipient or the mail
causes a bounce, which cannot be undone; an unclear reply only makes the mail try another hop.
"""

import re
from functools import cache

from mailer.send.replies.lexicon import COMPLAINTS
from mailer.send.replies.reading import About
from mailer.send.replies.row import phrases
from mailer.send.replies.sentence import Sentence

FINAL = frozenset({About.RECIPIENT, About.MESSAGE, About.DESTINATION})
"""Readings for which a permanent refusal causes a bounce."""

_US = """
    your (\\S+ )?(account|mailbox|mail box|inbox|login|user ?name|password|plan|subscription|service|
        quota|limit|ip|ip address|host|hostname|server|network|isp|provider|domain|client|helo|ehlo|
        session|connection|system)
    (sending|sender|sender's|smtp|outgoing|outbound|submission|mailing) ((?!error )\\S+ )?(account|access|
        service|mailbox|quota|limit|limits|rate|mail|mails|messages|email)
    (client|connecting|sending) (host|server|ip|address|mta)
    sending (for|from) (this|your|the)
    (hourly|daily|weekly|monthly)
    (api|smtp) key
    (helo|ehlo)
    relaying
    you (are not|must|need|may not|cannot)
    (remote ?host|spammers?)
    relay (access|denied|not)
    (sender|call ?(out|back)) (\\S+ )?verif*
    sending (\\S+ )?(spam|unsolicited)
    (scan|scanning|scanner|antivirus) (failed|failure|error|timeout|timed out|is not available|unavailable)
    (signature|virus) database
    (contact|contacts|contacts list|contact list|verified addresses|verified recipients) only
    (smtp|submission|relay) (user|account|customer)
    """

_OURS = "login, relay, hello, our host, ill fame, encryption"
_TRADE = "trade"
"""Words about a provider's business with its customer, which are never about a recipient."""


@cache
def _pattern() -> re.Pattern[str]:
    return phrases(_US)


def names_us(sentence: Sentence) -> bool:
    """Tell whether a reply names our account or what we may send, or complains about our login or host."""
    if _pattern().search(sentence.words) is not None:
        return True
    return bool(sentence.said(_OURS, COMPLAINTS) or sentence.said(_TRADE))
