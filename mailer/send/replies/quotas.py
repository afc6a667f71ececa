"""Rows about our quota and our sending rate.

These replies say nothing about the message: taking them for refusals of it would bounce a whole queue.
"""

from mailer.send.replies.reading import About
from mailer.send.replies.row import Row

RATE, PAUSE, QUOTA = 60.0, 600.0, 3600.0
"""Seconds to pause sending through an account: after sending too fast; when it asks us to slow down for
longer; when an hourly or daily quota is used up. The reply does not say when the quota is renewed, so one
message tries every hour."""

_USED_UP = "Our sending quota there is used up."
_TOO_FAST = "We send too fast for this server."

# A reply that also has one of these is about a mailbox that is full or gets too much mail. Some servers put
# the text of RFC 5321 4.2.2 before their own: `Requested mail action not taken: mailbox unavailable`.
_MAILBOX = """
    (?<!not taken )mailbox
    mail box
    inbox
    incoming
    storage
    disk
    recipient's
    user is over
    user quota
    over ?quota
    """

QUOTAS = (
    Row(
        About.QUOTA,
        "(mi|rp) (sfq|stc|qrc|trc)",
        pause=PAUSE,
        reason=_TOO_FAST,
        source="NetEase (163, 126): a sender's mails (SFQ, STC) or recipients (QRC, TRC) in a time",
    ),
    Row(
        About.QUOTA,
        """
        (submission|sending|outgoing|outbound|smtp|relay|message|messages|messaging|email|emails|mail|
            send) ?(quota|limit|limits|allowance|credits) ~ (exceeded|reached|used|hit|exhausted)
        (exceeded|reached|over|exhausted|used) ~ (sending|messaging|outgoing|outbound|submission|sent|
            send|relay|smtp|email|mail|message) ?(limit|limits|quota|quotas|allowance|credits)
        (daily|hourly|weekly|monthly|day|hour) ~ (quota|limit|limits|maximum|allowance) (is |was |
            has been |have been )?(exceeded|reached|used up|hit|exhausted)?
        (exceeded|reached|over|hit) ~ (daily|hourly|weekly|monthly|hour|day|month) ?(sending |message |
            email |mail )?(limit|limits|quota|maximum|max|allowance)
        submissionquota*
        policy rejection quota
        \\S+quotaexceeded*
        max* credits ~ exceeded
        (insufficient|no|out of|not enough) ~ credits?
        (insufficient|not enough|out of|no) (\\S+ )?(sending |mail |email |message )?(quota|allowance|balance)
        credits? ~ (exhausted|exceeded|used up|depleted)
        (sending|account) (is |has been )?paused
        (tageslimit|stundenlimit|limite|limit|quota|kontingent|cuota) ~ (uberschritten|erreicht|depasse*|
            atteint*|superad*|superat*|alcanzad*|excedid*|raggiunt*)
        used (up )?all (of )?(your|the|its)
        (tenant|organization|customer|account|domain|user) (has )?exceeded (the |its |
            their )?(\\S+ ){0,3}(limit|limits|threshold|quota|rate|allowance|maximum)
        (volume|message|messages|send|sending) limit
        too many (outgoing|sent|submitted)
        """,
        unless=_MAILBOX,
        pause=QUOTA,
        reason=_USED_UP,
        source="Gmail, Microsoft 365, SES, SendGrid, Rackspace: the account's quota, in many codes",
    ),
    Row(
        About.QUOTA,
        """
        (limit|limits|quota|quotas|max|maximum|allowed|only|limited) ~ (per|this|in an?|in one|
            in the last|every|each|an?|#) (second|minute|minutes|hour|hours|day|days|week|month)
        (messages|emails|mails|recipients|message|email|mail) ~ (per|this|in an?|in one|in the last|every|
            within) #? ?(second|minute|minutes|hour|hours|day|days|week|month)
        too many ~ (today|this hour|this day|this month|per hour|per day|hourly|daily)
        (daily|hourly|weekly|monthly) ~ (messages|emails|mails|recipients|volume|rate|quota|limit)
        """,
        unless=_MAILBOX
        + """
            try again in
            (greylist*|gr(a|e)y list*)
            per (connection|session)
            """,
        pause=QUOTA,
        reason=_USED_UP,
        source="cPanel, policyd, Aliyun, GoDaddy: a number an hour or a day",
    ),
    Row(
        About.QUOTA,
        """
        (policy rejection )?quota (is |has been |was )?(exceeded|reached|used up|exhausted)
        exceeded (your|the|its) ~ (quota|quotas|limit|limits)
        (over|beyond|above) (your|the|its) ~ (quota|limit|allowance)
        """,
        unless=_MAILBOX
        + """
            size
            @ ~ quota
            connection*
            user ~ quota
            """,
        pause=QUOTA,
        reason=_USED_UP,
        source="policyd: 450 4.7.1 Policy Rejection- Quota Exceeded; Aliyun: 526",
    ),
    Row(
        About.QUOTA,
        """
        throttl*
        (sending|message|messages|submission|transaction|mail|email|delivery|send|smtp|relay) rate
        maximum ~ rate
        rate ~ (exceeded|limit*|too high|overlimit|reached)
        (exceeded|over|hit) ~ rate
        ratelimit*
        peak smtp relay limit
        """,
        unless=_MAILBOX
        + """
            (dkim|spf|dmarc|authenticat*|unauthenticated)
            receiving (mail|messages) at
            spam rate
            reputation
            rejection rate
            bounce rate
            """,
        pause=RATE,
        reason=_TOO_FAST,
        source="SES: 454 Throttling failure; Rspamd: 451 4.7.1 Ratelimit exceeded; Postfix anvil; Gmail",
    ),
    Row(
        About.QUOTA,
        """
        too (frequently|frequent|fast|quickly|often) ~ (sending|connect*|messages|mails?|emails?)
        (send|sent|sending|submitting|messages|emails|mails) ~ too (fast|frequent*|quickly|many|much|often)
        too (many|much) (messages|emails|mails|mail|email|recipients from)
        too frequent ~
        too frequently
        (retrying|retries|trying|connecting|asking|submitting) too (fast|quickly|often|soon|much)
        (same|similar|identical|equal|duplicate|repeated) (size |content |subject )?(messages|mails|emails)
        too (many|much) (requests|attempts|retries|submissions|deliveries)
        frequen* (is |was )?(limit*|control*|exceed*)
        unexpected sending
        slow (down|it down)
        *(频率|过于频繁|超过限制|超出限制)*
        (reached|hit|exceeded) ~ (limit|limits|quota|allowance) ~ (from your|for your|of your|outgoing|
            sending|for this account|for sending)
        (limit|limits|number) (on|of|for) ~ (outgoing|sent|sending|submitted) (messages|mail|mails|emails|
            email) ~ (exceeded|reached)
        (address|account|user|domain|mailbox) ~ (outgoing|sending) (limit|limits)
        (exceeded|over) ~ (quota|limit) for sending
        (try again )?slower
        (please )?wait ~ (to send|before sending)
        """,
        unless=_MAILBOX
        + """
            in (the )?queue
            too many (\\S+ )?connections
            (in|on|per|for) (this|one|a) (session|connection)
            per (connection|session)
            for this (recipient|user)
            receiving mail
            """,
        pause=PAUSE,
        reason=_TOO_FAST,
        source="Aliyun: 554 Reject by behaviour spam: too frequently sending; QQ: frequency limited",
    ),
    Row(
        About.QUOTA,
        """
        (unusual|unexpected|excessive|abnormal|high) ~ (rate|volume|amount|number) of (\\S+ )?(mail|email|
            messages|emails|unsolicited|connections)
        due to (unexpected|unusual) volume
        too many login attempts
        messages? from <ip> (is |are |has been )?temporarily deferred
        """,
        unless="(suspended|disabled|blocked)",
        pause=PAUSE,
        reason=_TOO_FAST,
        source="Gmail: 421 4.7.28 unusual rate of mail; Yahoo: [TSS04] unexpected volume or user complaints",
    ),
    Row(
        About.QUOTA,
        """
        (server )?busy
        """,
        enhanced=r"4\.5|7\.5\d\d|7\.28",
        pause=PAUSE,
        reason="It has had enough from us for now.",
        source="Microsoft 365: 451 4.7.500 Server busy; RFC 3463 3.5: congestion",
    ),
    Row(
        About.QUOTA,
        """
        try again later closing connection
        """,
        codes=r"421",
        enhanced=r"7\.\d",
        pause=PAUSE,
        reason="It has had enough from us for now.",
        source="Gmail: 421 4.7.0 Try again later, closing connection",
    ),
)

_CODES = "Our quota or sending rate is exceeded, by the code that Gmail and others use."
QUOTA_CODES = (
    Row(
        About.QUOTA,
        enhanced=r"7\.28|4\.5|7\.5\d\d",
        codes=r"4\d\d",
        pause=PAUSE,
        reason=_CODES,
        source="Gmail, Microsoft 365",
    ),
    Row(
        About.QUOTA,
        enhanced=r"4\.5|1\.90",
        codes=r"5\d\d",
        pause=QUOTA,
        reason=_CODES,
        source="Gmail, Microsoft 365",
    ),
)
