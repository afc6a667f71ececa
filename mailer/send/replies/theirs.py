"""Rows about the server: its limits for a transaction or a destination, and its own state and faults."""

from mailer.send.replies.reading import About
from mailer.send.replies.row import CONTENT, MAIL, RECIPIENT, UNKNOWN, Row

_MANY = "Too many recipients for one transaction; the others are sent in another."

TRANSACTIONS = (
    Row(
        About.TRANSACTION,
        """
        separate transaction
        next (batch|transaction)
        (multiple|too many|different) ~ domains? ~ transaction
        per transaction
        (too many|number of|maximum|max|exceeded) (\\S+ ){0,2}(recipients|rcpts?|rcpt|rcpt to)
        recipients ~ per (message|mail|transaction|envelope|email)
        recipients? (limit|exceed*|count)
        (out of|beyond|above) (\\S+ ){0,2}(rcpts?|recipients)
        """,
        unless="""
            (hour|day|daily|minute|hourly|today|#h)
            (invalid|unknown|bad|nonexistent|non existent|failed|rejected) (recipient*|rcpt)
            per (connection|session)
            recipients from
            rate
            """,
        phases=MAIL | UNKNOWN,
        reason=_MANY,
        source="RFC 5321 4.5.3.1.10; Gmail",
    ),
)

TRANSACTION_CODES = (
    Row(About.TRANSACTION, enhanced=r"5\.3", reason=_MANY, source="RFC 3463 3.6"),
    Row(
        About.TRANSACTION,
        codes=r"452",
        bare=True,
        phases=RECIPIENT,
        reason=_MANY,
        source="RFC 5321 4.5.3.1.10",
    ),
)

DESTINATIONS = (
    Row(
        About.DESTINATION,
        """
        gr(e|a)y ?list*
        gr(e|a)y ?listing
        postgrey
        """,
        reason="Greylisting: the server accepts the mail later.",
        source="postgrey, Rspamd, SQLgrey and others",
    ),
    Row(
        About.DESTINATION,
        """
        (messages|mail|email|mails|message) (to|for) (\\S+ ){0,4}(deferred|delayed|limited)
        receiving (mail|messages|email) (at|too|faster)
        (user|recipient|person|account|mailbox) you are trying to contact
        (to|for) this (recipient|user|mailbox|domain) ~ (hour|day|minute|limit|rate)
        (recipient|user|mailbox|account|domain) is receiving
        (recipient|mailbox|destination|domain) ~ (rate|rates|thread) ~ (limit*|exceeded)
        (recipient|mailbox) (has )?(exceeded|reached) (their|its) (\\S+ ){0,2}(limit|rate)
        too many (messages|emails|mails) (to|for) (this|that|the) (recipient|user|mailbox|domain|address)
        """,
        unless="""
            recipient address rejected rate
            sent from your
            sending rate
            tenant
            external recipient*
            your (tenant|account|limit|quota)
            """,
        reason="This recipient gets too much mail, from all senders together.",
        source="iCloud: 421 Messages to X deferred due to excessive volume; Gmail 4.2.1",
    ),
    Row(
        About.DESTINATION,
        """
        (host|domain|server) does not accept (any )?mail
        domain ~ (not|no longer) accept* (any )?mail
        null mx
        no longer accept* mail
        (could not find|cannot find|can't find|couldn't find|no) (a |any )?(mail ?server|mail exchanger|mx|
            mx record) for
        """,
        phases=RECIPIENT | CONTENT | UNKNOWN,
        reason="The recipient's domain accepts no mail.",
        source="RFC 7505; 553 5.1.2 Could not find a mail server for X",
    ),
)

_STATE = "The server is faulty or overloaded; another one may accept the mail."

HOSTS = (
    Row(
        About.HOST,
        """
        insufficient ~ (space|storage|resources|disk|memory)
        (disk|filesystem|spool|queue|file system) ~ full
        out of (disk|memory|space|resources)
        (no|not enough|low on|lack of) ~ (disk|space|resources|memory)
        system storage
        (resources|resource) (\\S+ )?(unavailable|exhausted|shortage)
        """,
        unless="mailbox\nmail box\nquota\nuser\nrecipient",
        reason="The server's disk or memory is full.",
        source="RFC 5321 4.2.2: 452; Postfix",
    ),
    Row(
        About.HOST,
        """
        (internal|system|server|local|configuration|config|mailer|software|processing|database|backend|
            lookup|proxy|upstream|operating system|script|scanner|filter|policy server) ~ (error|errors|
            problem|failure|fault|exception|failed|unavailable)
        operating system
        (could not|cannot|can't|unable to|failed to) (load|connect|contact|open|scan|write|store|queue|
            process|read)
        (spam*|rspamd|clam*|amavis*|antivirus|anti virus|virus scanner|scanner|ldap|mysql|redis|
            milter) ~ (unavailable|unreachable|not reachable|not running|not available|timeout|timed out|
            failed|error|down)
        failed to be replicated
        queue file write
        (write|read|i o|disk|queue|memory|storage|network|socket) error
        (queue|spool|mail store|message store|backend|dns) (is |was )?(\\S+ )?(unavailable|not available|busy|
            timeout|failure|offline|locked)
        negative greeting
        temporary mta failure
        temporar* ~ (error|problem|failure|issue|unavailable|lookup)
        (unexpected|unknown|general|unspecified|transient|technical) (error|failure|problem)
        not accepting (connections|messages|mail)
        milter
        """,
        unless="""
            recipient error
            (sending|sent) mail
            auth*
            user unknown
            recipient (verification|verify|validation)
            mailbox ~ (unavailable|not found)
            (unverified|undeliverable) address
            address temporarily
            (message|mail|email) ~ (rejected|refused) due to ~ (content|spam)
            """,
        reason=_STATE,
        source="Postfix, Exchange, Sendmail, Yahoo",
    ),
    Row(
        About.HOST,
        """
        mail server temporarily
        (agent|process|resource|service) ~ (busy|unavailable)
        (license|licence) expired
        (domain|temporary) (domain )?failure
        (service|server|system|host|cluster|machine) ~ (not available|unavailable|maintenance|shutting|
            shut ?down|overload*|too busy|going down|busy|down for|closing|unreachable)
        maintenance
        (high|heavy|excessive) (system |server )?load
        (restarting|rebooting)
        overloaded
        (load|load average) ~ (high|exceeded)
        shutting down
        try another server
        """,
        unless="<ip>\nclient\nblocked\nlisted\nmailbox\nuser\nby (\\S+ )?spam filter",
        reason=_STATE,
        source="RFC 5321 3.8: 421 Service not available",
    ),
    Row(
        About.HOST,
        """
        (command|commands|verb) ~ (recognized|unrecognized|implemented|unknown|unimplemented|recognised|
            understood|disabled|supported|unexpected|rejected)
        (unrecognized|unknown|unimplemented|unsupported|unexpected|invalid) (command|parameter|verb|
            argument|option)
        bad (sequence|command)
        (need|needs|valid|must) ~ (rcpt|mail)( to| from| command| first)?
        send (rcpt|mail) (to|from|command|first)
        (rcpt|mail|data) first
        (no|need) (valid |more )?(recipients?|rcpt)
        no recipients ~ (specified|given)
        protocol (violation|error)
        (parameter|argument|arguments|parameters) ~ (not implemented|syntax|unknown|unsupported|invalid|
            required)
        (out of|wrong) (sequence|order)
        not implemented
        syntax error
        (parse|parsing|sequence|state) error
        (unbalanced|unmatched) ?
        """,
        unless="""
            auth*
            address
            mailbox
            recipient address
            (recipient|rcpt|destination|addressee) (to )?(syntax|format)
            (first )?(invalid|unknown|no such) recipient
            too many
            activity
            (data|helo|ehlo) command rejected
            helo
            mime
            """,
        reason="It does not follow our commands.",
        source="RFC 5321 4.2.4",
    ),
    Row(
        About.HOST,
        """
        imap server
        (tls|starttls) (currently |temporarily )?(not available|unavailable|is not)
        """,
        reason=_STATE,
        source="RFC 3207 4: 454; RFC 5248",
    ),
)

HOST_CODES = (
    Row(About.HOST, enhanced=r"3\.[1-5]", reason="The server's disk, load or faults.", source="RFC 3463 3.4"),
    Row(About.HOST, enhanced=r"4\.[0-35]", codes=r"4\d\d", reason="Its network.", source="RFC 3463 3.5"),
    Row(
        About.HOST,
        enhanced=r"5\.[0125]",
        codes=r"5\d\d",
        reason="It does not follow our commands.",
        source="RFC 3463 3.6",
    ),
    Row(About.HOST, codes=r"50[0234]", reason="It does not follow our commands.", source="RFC 5321 4.2.4"),
)
