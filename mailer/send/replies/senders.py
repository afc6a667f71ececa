"""Rows about the mail's sender at this hop: another account, or another hop, may send for it."""

from mailer.send.replies.reading import About
from mailer.send.replies.row import Row

_NOT_ALLOWED = "This account may not send as this sender; another provider may allow it."
_UNSIGNED = "SPF, DKIM or DMARC fail for mail from here; another hop may sign, or be in the SPF record."

SENDERS = (
    Row(
        About.SENDER,
        """
        mi (spf|spb|dma)
        dt sum
        wm blu
        """,
        here=True,
        reason=_NOT_ALLOWED,
        source="NetEase (163, 126): SPF, a sender that it does not allow, or another one in From (SUM)",
    ),
    Row(
        About.SENDER,
        """
        not owned by
        (absender*|expediteur|emetteur|remitente|mittente|remetente) ~ (nicht|non|pas|no|nao|unzulassig|
            unberechtigt)
        *(发件人|发信人)*
        (must|should|has to|have to|needs to) (\\S+ ){0,3}(same|equal|equals|match|matches|
            identical) ~ (auth*|login|log in|user|username|account|authenticated)
        (must|should) (be )?(the )?(equal|match|same)
        (doesn't|does not|not|don't) (conform|match|correspond|agree|equal|belong) ~ (auth*|login|user|
            username|account|credentials|verified)
        (from|sender) ~ (doesn't|does not|not|don't) (match|belong|correspond|equal)
        permissions? ~ to send (as|on behalf)
        send ?as ?denied*
        *sendasdenied*
        (not|cannot|can't) ~ (send|submit|mail) ~ (as this|on behalf|using this|with this|
            from this) (sender|address|from|identity|domain|user)
        (authorized|allowed|permitted|authorised|able|entitled) to (send|mail|use|submit) (\\S+ ){0,2}(as|
            from|on behalf|sender|address|domain|this|that)
        (another|other|different|someone else's) (user's|sender|identity|account's)
        """,
        unless="""
            recipient*
            not ~ allowed to send from <ip>
            use this ~ (server|service|system)
            (from|to) (this|that) (country|network|location|region|host)
            connect
            relay
            """,
        here=True,
        reason=_NOT_ALLOWED,
        source="Postfix, QQ, 163, Aliyun, Microsoft 365, SendGrid: the sender is not this login's",
    ),
    Row(
        About.SENDER,
        """
        (verified|confirmed|registered|validated) ~ (sender|sending|from|identity|identities|domain) ?
        verify (\\S+ ){0,2}(sender|sending|from|identity|identities|domain) ?
        sender (identity|signature)
        (only|own) (send|mail|use) ~ (from|as|using) (your|own|this|the)
        (must|should) be one of your
        (not|isn't|never) (the |an? )?(owner|alias|identity) of
        (from|sender|from header|header from|mail from|return path) (address |header |domain |
            field )?(must|should|has to|needs to|may|can|cannot|may not) ~ (be|end|belong|match|contain|
            use|only)
        (envelope|sender|from|header) ~ mismatch*
        not your (address|account|domain|identity|own|email|sender)
        use your own (address|email|domain|sender)
        (from|sender|domain|address) must be (verified|validated|confirmed|authenticated|registered|local)
        (domain|sender) (is |was )?not (hosted|handled|served|configured|registered|allowed|associated|
            linked|added) (here|on|by|with|for|in|to)
        (use|using) ~ (as|for) (a |the )?(sender|from)
        local users? only
        (domain|sender|from|address|envelope) ~ (mismatch*|does not match|doesn't match)
        mismatch* ~ (client|sender|from|ip)
        (sender|from) ~ (not|isn't) (\\S+ ){0,3}(your|yours)
        (unverified|unvalidated|unconfirmed) (sender|from)
        (sender|from) (\\S+ )?(is |was )?(unverified|unvalidated|unconfirmed|unauthorized|unauthorised)
        (address|domain|identity|identities|sender|from) ~ not (been |yet )?(verified|confirmed|
            registered|validated|configured|authorized|authorised|authenticated)
        failed the check in region
        (unconfigured|unverified|unregistered|unauthorized|unauthorised|unknown|invalid|
            disallowed) (sending|sender|from) (domain|address|email|identity)
        relaying disallowed as
        (sender|from) (address |domain |header |email |id )?(\\S+ )?(is |was |are )?(not|isn't|
            never) ~ (allowed|authorized|authorised|permitted|valid for|yours|recognized|accepted|local)
        not (allowed|authorized|authorised|permitted) ~ (sender|from address|from header|from field)
        """,
        unless="""
            recipient*
            connect
            relay
            from <ip>
            (sender|sending) account ~ (disabled|suspended|blocked|locked)
            domain of sender ~ exist
            must (be specified|contain a)
            """,
        here=True,
        reason=_NOT_ALLOWED,
        source="SES, SendGrid, SparkPost, Zoho, Fastmail: an identity that has to be verified first",
    ),
    Row(
        About.SENDER,
        """
        (username|user name|login|authenticated user|account) ~ (sender|from) (\\S+ )?(doesn't|does not|
            don't|do not|must|should|not) (match|agree|belong|correspond|be equal|be the same)
        (sender|from) ~ (username|user name|login|authenticated user|account) ~ (doesn't|does not|don't|
            do not|must|should) (match|agree|belong|correspond|be equal|be the same)
        """,
        here=True,
        reason=_NOT_ALLOWED,
        source="Postfix policies, which put their own words after: Recipient address rejected",
    ),
    Row(
        About.SENDER,
        """
        (spf|dmarc|dkim|domainkeys|senderid)
        sender policy framework
        unauthenticated (email|mail|message) (from|is)
        (is|are|was|it's) unauthenticated
        authentication (level|checks?|requirements|information|results?)
        (multiple|domain|email|sender's) authentication
        required authentication
        invalid ip for sending mail of domain
        (spoof*|anti spoof*|forged|impersonat*)
        (doesn't|does not) allow sending
        no alignment
        purported responsible
        (isn't|not) aligned
        arc ~ fail*
        """,
        unless="""
            unusual ~ rate
            duplicate header*
            (helo|ehlo)
            """,
        here=True,
        reason=_UNSIGNED,
        source="Gmail 5.7.26, Microsoft 365 5.7.509, Yahoo: the From domain's SPF, DKIM or DMARC",
    ),
)

SENDER_REPUTE = (
    Row(
        About.MESSAGE,
        """
        having a domain ~ (dbl|listed|blacklist*|present)
        (url|urls|link|links|uri|content|domain in) ~ (listed|blacklist*|blocklist*|uribl|surbl|dbl|
            spamhaus)
        (surbl|uribl) ~ (url|uri|link|domain in)
        (blacklisted|blocklisted|listed|banned) (url|urls|uri|link|links)
        contains ~ (domain|url|link|address) ~ listed
        """,
        unless="blocked using",
        reason="The mail has a domain or a link that is on a blocklist.",
        source="iCloud: 550 5.7.1 having a domain present in the Spamhaus DBL",
    ),
    Row(
        About.SENDER,
        """
        reputation of ~ (sending|from|sender|your|sender's) domain
        (sending|sender|from|sender's|your) domain ~ (reputation|listed|blacklist*|blocklist*|blocked|dbl)
        (sender address|sender|mail ?from domain|sender domain) ~ (blocked using|listed|blacklist*)
        domain ~ (dbl|listed in)
        dbl spamhaus
        """,
        unless="(helo|ehlo) ~ listed\nreverse\nclient host",
        here=True,
        reason="The sender's domain has a bad reputation there.",
        source="Spamhaus DBL, ImprovMX, Gmail: reputation of the sending domain",
    ),
)

UNWANTED = (
    Row(
        About.SENDER,
        """
        (blocked|block|denied|blacklisted|rejected|banned) senders?
        block send er
        (sender|callback|callout|callback to sender) verif* ~ (fail*|error)
        could not (complete )?(sender )?verify ~ (sender|callout)
        (invalid|incorrect|bad|wrong|suspected|unknown|unwanted|spam) ~ sender
        (emetteur|absender|remitente|mittente) ~ (invalide|ungultig|unbekannt|abgelehnt|invalido|
            rechazado|non valido)
        sender header
        (sender|domain) based
        (denies|refuses|rejects|blocks|declines) (the |this |your )?(sender|originator|from)
        (fake|faked|bogus|black|blacklisted) (mail |email )?(sender|from|address)
        envelope blocked
        sender (\\S+ ){0,3}(rejected|refused|denied|blocked|blacklisted|not accepted|banned|blocklisted)
        (mail|messages?|email|emails|mails) from @ (is |was |are |has been |have been )?(rejected|blocked|
            refused|denied|not accepted|not allowed)
        @ sender rejected
        (don't|do not|not|never) ~ (accept|want|allow|take) ~ (mail|messages|email) from ~ (@|sender|
            domain|you)
        """,
        unless="""
            *dnsbl
            domain ~ (not exist|not found|doesn't exist)
            administrative
            server configuration
            sender domain (must|not)
            """,
        here=True,
        reason="This sender is refused there.",
        source="Mimecast, Cox, Trend Micro",
    ),
)

SENDER_CODES = (
    Row(
        About.SENDER,
        enhanced=r"7\.(?:2[0-9]|30|32|40|509|512|515)",
        here=True,
        reason=_UNSIGNED,
        source="RFC 7372; Gmail and Microsoft 365",
    ),
)
