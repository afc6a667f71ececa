"""Rows about the recipient: the address and the mailbox.

A permanent refusal that matches one of these bounces immediately. So phrases that could also be about our own
account (`account disabled`) only match together with words that name the recipient.
"""

from mailer.send.replies.reading import About
from mailer.send.replies.row import CONTENT, RECIPIENT, UNKNOWN, Row

_PHASES = RECIPIENT | CONTENT | UNKNOWN
FULL_MAILBOX = "The recipient's mailbox is full."
_NOBODY = "The recipient does not exist, or no longer exists."
_WISH = "The recipient does not accept the mail."

# These are tried early: they mention accounts and quotas, but not ours.
MAILBOXES = (
    Row(
        About.RECIPIENT,
        "resolver rst (notauthorized|sendernotauthenticated*|senderneedstoauth*|authrequired)",
        phases=RECIPIENT | CONTENT,
        here=True,
        reason="The recipient accepts mail of some senders only, or of those who have logged in there.",
        source="Exchange: 550 5.7.1 RESOLVER.RST.NotAuthorized; not authorized",
    ),
    Row(
        About.RECIPIENT,
        "(messages|mail|mails|email) to @ (\\S+ )?(are|is) blocked by your organi(z|s)ation",
        phases=RECIPIENT | CONTENT,
        here=True,
        reason="Our own organisation's block list has the recipient; another provider may deliver.",
        source="Microsoft 365: 5.7.703, blocked by your organization using Tenant Allow Block List",
    ),
    Row(
        About.RECIPIENT,
        "address blacklisted",
        unless="(ip|<ip>|<list>|your|sender|sender's|from|host|client|server|at|by|on|in|@)",
        codes="554",
        bare=True,
        phases=RECIPIENT | CONTENT,
        here=True,
        reason="The recipient is on the provider's suppression list; another provider may deliver.",
        source="SES: 554 Message rejected: Address blacklisted",
    ),
    Row(
        About.RECIPIENT,
        """
        account that you tried to reach
        (mailbox|mail box|inbox|mail folder|maildir|postfach) ~ (full|exceed*|over|quota|limit|voll|
            exhausted|storage|space)
        (user|recipient|account|mailbox|customer|recipient's) (is |has |'s )?(\\S+ )?(over ?quota|
            over quota|out of (disk )?quota)
        over ?quota
        over (quota|storage quota|his quota|their quota|its quota)
        (user|user's|recipient|disk|mailbox|recipient's) ~ (quota|storage|space) ~ (exceeded|full|
            exhausted|exceed*|reached|used)
        (quota|storage) ~ (for|of) (this |the )?(user|recipient|mailbox|account)
        (quota|storage) exceeded mailbox
        mailbox for user
        quota exceeded (for|of) (@|this|user|the)
        (has|have) exhausted
        too many (mails|messages|emails) (on|in) (the |this )?(server|mailbox|inbox|account)
        (recipient|user|mailbox) (has )?(reached|exceeded) (\\S+ ){0,3}quota
        storage allocation
        exceed* (\\S+ )?(storage|disk) (quota|limit)
        speichervolumen
        boite ~ pleine
        (casella|buzon|caixa) ~ (piena|lleno|cheia)
        (doesn't|does not) have an? ~ account
        full mailbox
        (mailbox|mail box|inbox) size (limit|quota)
        (account|user|recipient|addressee) (is |has |was )?(\\S+ )?full
        (would|will) exceed ~ (mailbox|mail box|recipient|recipient's|user|user's|their|his) ~ (quota|
            storage|limit|size)
        (insufficient|no|not enough) (\\S+ )?(space|storage|room) ~ (mailbox|mail box|inbox|recipient|user)
        quota (violation|exceeded|overflow) (\\S+ )?(for|of|by) (@|this|user|the|recipient)
        """,
        unless="""
            sending
            send (limit|quota|rate)
            outgoing
            submission
            smtp
            submissionquota*
            (throttl*|traffic|frequency|rate|rates)
            your (\\S+ )?(quota|account)
            policy rejection
            (your|sender|sender's) (mailbox|mail box|inbox|storage|quota|account)
            """,
        phases=_PHASES,
        reason=FULL_MAILBOX,
        source="Gmail, Yahoo, WEB.DE, Orange, Exchange: the recipient's mailbox",
    ),
    Row(
        About.RECIPIENT,
        enhanced=r"2\.2",
        unless="""
            sending
            outgoing
            submission
            (hourly|daily|weekly|monthly)
            (your|sender|sender's) (mailbox|mail box|inbox|storage|quota|account)
            """,
        phases=_PHASES,
        reason=FULL_MAILBOX,
        source="RFC 3463 3.3",
    ),
)

_OURS = """
    (paused|permission*|plan|subscription|demo|sandbox|trial|testing|billing)
    account owner*
    domain of sender
    sender
    from address
    envelope from
    your ~ account
    sending
    outgoing
    (is|are|been|was) listed
    listed (at|by)
    helo
    ehlo
    relaying
    auth*
    your (mailbox|mail box|inbox|login|password|service|plan)
    user pass
    you (are|must|need|have)
    relay ~ (denied|not)
    """

RECIPIENTS = (
    Row(
        About.RECIPIENT,
        """
        (user|users|recipient|recipients|receiver|rcpt|mailbox|address|addresses|addressee|alias|person|
            local part|destinataire|empfanger|empfaenger|benutzer|utente|usuario|
            destinatario) (\\S+ ){0,4}(unknown|not found|not exist|doesn't exist|don't exist|no longer|
            not known|isn't|not listed|not here|not (a )?local|not recognized|nicht bekannt|unbekannt|
            inconnu*|invalide|archivee|sconosciuto|desconocido|inesistente|inexistente|rejected me|
            does ?not ?exist|is not valid|not valid|invalid|couldn't be found|could not be found|
            nonexistent|not present|nicht gefunden|existiert nicht|no existe|nao existe|non esiste|
            non trovato|no encontrado|n'existe pas|introuvable|not recognised|not hosted|not configured|
            not deliverable|not provisioned|not on file|not in use|not accepting|cannot receive|is retired|
            has left|undeliverable|unreachable|not a mailbox|unavailable|not allocated|not on this)
        (mailbox|recipient|recipients|addressee|recipient's|mailboxes|alias) (\\S+ ){0,4}(inactive|
            disabled|frozen|
            locked|suspended|deactivated|discontinued|terminated|closed|expired|blocked|unavailable or|
            not available|does not accept|moved|unavailable|unallocated|preferences|does not exist|
            deleted|removed|cancell?ed|retired|dormant|obsolete|defunct|not active|not enabled|
            not activated|abandoned|archived)
        (email|e mail|mail) (account|user|address|box|recipient)s? (\\S+ ){0,4}(unknown|not found|exist|
            exists|no longer|not known|not valid|invalid|deleted|removed)
        no (\\S+ )?(mailbox|mail box|user|account|address|recipient|person|subscriber|alias|
            one) (\\S+ ){0,3}(here|by that|by this|with that|with this|on this|in this|at this|exists|found|
            named|called|matching)
        not (a valid|in|on) (\\S+ )?(recipient|mailbox|user|address) ?(list|table|database)?
        not (a |an )?(registered|valid|known|existing|active) ~ (user|recipient|mailbox|address|account|
            customer)

        """,
        unless=_OURS
        + """
            services?
            access denied
            user name
            login
            """,
        phases=_PHASES,
        reason=_NOBODY,
        source="Every server: no such user",
    ),
    Row(
        About.RECIPIENT,
        """
        (unknown|no such|invalid|unrecognized|inactive|bad|disabled|illegal|nonexistent|unrouteable|
            unroutable|undeliverable|unverified|non existent|incorrect|wrong|unavailable|undefined|
            unreachable|expired|closed|obsolete|deleted|non existing|nonexisting|inexistent|
            not existing|malformed|
            unlisted|dead) ((local|e ?mail|mail|recipient|destination|envelope|delivery|mailbox) )?(user|
            users|receivers?|rcpts?|rcptto|mailbox|mailboxes|recipient|recipients|address|addresses|addressee|
            local part|email address|
            person|alias|destination|adresse|domaine|utente|usuario)
        user unknown
        (email|mail|e mail|mailbox) (address )?(does )?(not exist|doesn't exist|not exists|unknown)
        (address|recipient|domain) (address )?(is )?reserved
        (anybody|anyone|nobody|no one) (with|by|of) (that|this) name
        nie ma takiego
        (gebruiker|ontvanger|uzytkownik|adresat|uzivatel|destinatario) ~ (onbekend|nieznany|neznamy|
            desconhecido)
        (пользователь|ящик|получатель) ~ (не существует|не найден|недоступен|неизвестен)
        unknown or illegal user
        address(ee)? (rejected|unknown|invalid)
        recipients? (\\S+ )?(rejected|not found|no longer|unknown)
        (badrcptto|validrcptto)
        (invalid|bad|unknown) (rcpt to|rcpt|to) address
        (recipient|recipients|mailbox|addressee) ~ (not in|cannot be verified|could not be verified|
            can't be verified|unverifiable)
        (recipient|recipient's) (account|mailbox|address) (is |was )?(unavailable|disabled|inactive|
            not available)
        not our (user|customer)
        (no|not a) (valid )?(mailbox|user|account) (here|by that name|with that name)
        mailbox not found
        address syntax
        (recipient|rcpt|destination|addressee) (to )?(address )?(syntax|format)
        (rcpt|receiver) (is |was )?(rejected|refused|denied|blocked)
        (unable to|cannot|could not|can't|couldn't) verify (the |this |that )?(recipient|address|mailbox|user)
        (recipient|rcpt|destination|to|mailbox) address must
        (recipient|address|mailbox) ~ (malformed|must contain|(illegal|bad|invalid|restricted) character*)
        (illegal|bad|invalid|restricted) characters? in (the )?(recipient|address|local part|mailbox)
        (uucp|source rout*|bang path|percent hack)
        (adress*|destinataire|adresse) ~ (invalid*|inconnu*|rejete*)
        recipient (verification|verify)
        (cannot|can not|can't|could not) be delivered this account
        *(用户不存在|邮箱不存在|收件人|邮箱已满)*
        """,
        unless=_OURS
        + """
            recipient address rejected
            login
            senders?
            domain of
            """,
        phases=_PHASES,
        reason=_NOBODY,
        source="Sendmail, Exim, Postfix, qmail, QQ",
    ),
    Row(
        About.RECIPIENT,
        """
        recipient address rejected ~ (user|undeliverable|unverified|unknown|mailbox|disabled|no such|
            address|account|recipient|invalid|inactive|quota|domain not|no longer)
        """,
        unless="""
            (greylist*|policy|access denied|blocked|relay*|rate|limit|domain blocked|not allowed)
            """,
        phases=_PHASES,
        reason=_NOBODY,
        source="Postfix: Recipient address rejected, with a reason",
    ),
    Row(
        About.RECIPIENT,
        """
        (host|domain|destination) (name )?unknown
        unknown (host|domain|destination)
        (recipient|destination|mx|recipient's) ~ domain ~ (not|unknown|invalid|doesn't|couldn't|isn't|find)
        (find|resolve|locate|route) ~ (recipient|destination) domain
        domain (name )?(not found|does not exist|doesn't exist|not exist)
        no such (domain|host)
        (unrouteable|unroutable) (mail )?(domain|address)
        (no|resolving|find) mx
        nxdomain
        """,
        unless=_OURS
        + """
            separate
            transaction
            rejected by
            whitelist
            """,
        phases=_PHASES,
        reason="The recipient's domain does not exist, or accepts no mail.",
        source="Sendmail, Exim: Host unknown",
    ),
    Row(
        About.RECIPIENT,
        """
        (rejected|blocked|refused) by (this |the )?(user|recipient|recipients|addressee)
        (target|destination) (address|mailbox|user)
        email address could not
        by recipient
        is no longer valid
        user ~ (rejected|does not accept|doesn't accept|doesn't want|has blocked)
        recipient (does not|doesn't|has not|is not) ~ (accept*|wish|want|authorized)
        recipient (is )?only accept*
        (recipient|user|addressee|mailbox owner) (\\S+ ){0,2}(not|doesn't|never|won't) (\\S+ )?(want|wish|
            accept|receive|like)
        (recipient|user|addressee) (\\S+ )?(refuses|refused|declines|declined|unsubscribed|opted)
        block rcpt
        blank mailhost
        mailbox (disabled|unavailable or access denied|is full|has moved)
        sorry your message to @ cannot be delivered
        (recipnotfound|recipientnotfound|unknownrecipient)
        this is not a valid
        """,
        unless="sender verif*",
        phases=_PHASES,
        reason=_WISH,
        source="Yahoo, MagicMail, Exchange: the recipient, or their wish",
    ),
    Row(
        About.RECIPIENT,
        """
        (user|account|customer) (\\S+ ){0,5}(inactive|disabled|locked|suspended|deactivated|discontinued|
            terminated|closed|expired|frozen|not active)
        (account|customer|member|subscriber|name|id) ~ (unknown|not found|not exist|doesn't exist|no longer|
            not known|isn't|invalid|not valid|does ?not ?exist|unbekannt|inconnu*)
        (unknown|no such|invalid|inactive|disabled) (\\S+ )?(account|customer|member|name|id|email|e mail|
            mail)
        """,
        beside="@\nrecipient*\nmailbox\nto this address\nhere",
        unless=_OURS
        + """
            smtp
            service
            """,
        phases=RECIPIENT,
        reason=_NOBODY,
        source="The answer to RCPT, which names the recipient",
    ),
)

RECIPIENT_CODES = (
    Row(
        About.RECIPIENT,
        """
        (account|customer|subscriber) (\\S+ ){0,3}(unknown|not found|not exist|doesn't exist|no longer|
            invalid|inactive|disabled|closed|expired|suspended|locked|deleted|discontinued|unavailable|
            not available)
        (unknown|no such|invalid|inactive|disabled|closed) (account|customer|subscriber)
        """,
        enhanced=r"1\.1|2\.1",
        unless=_OURS,
        phases=RECIPIENT,
        reason=_NOBODY,
        source="Interia: 550 5.1.1 Account not found; X.1.1 and X.2.1 are about the recipient",
    ),
    Row(
        About.RECIPIENT,
        "recipient address(es)? rejected\nall recipient addresses rejected",
        enhanced=r"1\.\d+|2\.\d|4\.1|7\.13",
        phases=_PHASES,
        reason=_NOBODY,
        source="Microsoft 365: 550 5.4.1 Recipient address rejected: Access denied",
    ),
    Row(
        About.RECIPIENT,
        enhanced=r"1\.(?:[12346]|10|351)|2\.[14]|4\.4|7\.13",
        unless=_OURS
        + """
            (from|header|headers)
            (your|account|client)
            (spam|blocked|denied|policy|permitted|allowed|permission)
            """,
        phases=_PHASES,
        reason="X.1.X is about the recipient's address, X.2.X about its mailbox.",
        source="RFC 3463 3.2, 3.3",
    ),
    Row(
        About.RECIPIENT,
        "mailbox unavailable\nmailbox name not allowed\naction aborted mailbox",
        codes=r"[45]5\d",
        phases=RECIPIENT,
        unless="failure sending\npolicy\ntry again later\nsender\nblocked\nnot allowed from\nrestrictions",
        reason="RFC 5321 has this text for an unknown recipient.",
        source="RFC 5321 4.2.2",
    ),
)
