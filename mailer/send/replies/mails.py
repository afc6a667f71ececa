"""Rows about the message itself: its size, its content, its form, or an invalid sender address."""

from mailer.send.replies.reading import About
from mailer.send.replies.row import CONTENT, SENDER, UNKNOWN, Row

SIZES = (
    Row(
        About.MESSAGE,
        """
        (message|mail|email|size|e mail|header|headers|attachment|attachments|file|body|content|data|line|
            lines|mime|nachricht) ~ (too (large|big|long|much)|exceed*|over (the |your )?(limit|maximum|
            size)|larger than|bigger than|zu gross)
        (exceed*|over|maximum|max|fixed|above|larger than) ~ (size|length|bytes|kb|mb|megabytes)
        (size|length) (limit|exceeds|exceeded|restriction)
        databytes
        (too|so) (large|big) (a |for )?(message|mail|email|system|us|this)
        too much (mail )?data
        excessive (\\S+ ){0,3}data
        (length|size) ~ (data|content|message|mail|body) ~ (maximum|threshold|limit|exceed*|over)
        administrative limit
        """,
        unless="""
            (mailbox|inbox|mail box) (\\S+ ){0,2}(size|is|limit|quota|full|has|storage|exceed*)
            mailbox ~ full
            too much load
            storage allocation
            over ?quota
            (rate|connection|connections|hour|day|hops|session)
            (recipient|user) ~ (quota|over)
            """,
        here=True,
        reason="The mail, or a part of it, is larger than this hop accepts.",
        source="qmail: 552 message size exceeds my databytes limit; Postfix, Exchange, Gmail",
    ),
    Row(
        About.MESSAGE,
        enhanced=r"3\.4|2\.3",
        here=True,
        reason="Too large for this hop.",
        source="RFC 3463 3.4, 3.3; also as (#5.3.4)",
    ),
)

FORMS = (
    Row(
        About.MESSAGE,
        """
        (message|mail|email|header|headers) (is|are) not rfc (# )?compliant
        (format|syntax|structure|encoding|mime) ~ violation
        (invalid|illegal|bad) (data|characters?) in (the |this )?(message|mail|body|header)
        (missing|without|having no|no) ~ (valid )?(address )?in (the )?from (header)?
        (missing|without|having no) (a |an )?(valid )?from (header|field|address)
        """,
        phases=CONTENT | UNKNOWN,
        reason="The mail violates a rule about its form.",
        source="OpenSMTPD: 550 5.7.1 Delivery not authorized, message refused: Message is not RFC 2822 ...",
    ),
)

NO_SENDER = (
    Row(
        About.MESSAGE,
        """
        domain of sender ~ (not exist|not resolve|not found|doesn't exist)
        (sender|from|sender's|mail from) ~ (domain|address|host|mailbox) ~ (not exist|not found|
            not resolve|unresolv*|invalid|doesn't exist|does not|doesn't|non ?existent|unroutable|unknown|
            syntax|not valid|malformed|not a valid|bad)
        sender ~ (domain|address|mx) (must|does|has|not|could not|is not|isn't|unknown)
        (unresolvable|invalid|bad|unroutable|unrouteable|malformed|missing) (\\S+ ){0,2}(sender|return path|
            envelope from|(from|sender) (domain|address|host))
        invalid dns mx
        sender ~ (no|without) (\\S+ ){0,3}(mx|dns|a)
        need fully qualified (address|sender)
        postmaster verification failed
        (mail|sender|from|email) address ~ fully qualified
        domain name required ~ sender
        return (email |mail )?(domain|address|path) ~ (invalid|not exist|not valid|unknown)
        (from|sender) domain (must|should|needs to|has to|did not|could not|does not) (resolve|exist)
        (requires?|needs?|must have|want|expect*) (\\S+ ){0,2}(valid|resolvable|existing|real|
            qualified) (sender|from|return|envelope)
        (sender|from|return path) (@ )?(from|in|has|with|uses|using) (\\S+ ){0,2}(tld|top level domain|
            reserved domain|domain)
        """,
        unless="recipient*\nfrom header\nheader from\nauth*",
        reason="The sender's address does not exist.",
        source="Sendmail: 553 5.1.8 Domain of sender address does not exist",
    ),
)

# A reply that also mentions one of these may be about our account or host instead.
_OURS = """
    (account|accounts|subscription|plan|license|licence|billing|trial|sandbox|demo)
    (outgoing|outbound|sending) (is |has been )?(paused|suspended|disabled|blocked|limit*)
    (permission*|paused|suspended|credentials|auth*)
    (quota|rate|limit) (exceeded|reached)
    your (ip|host|server|network|domain|mta)
    """

# Before DATA, no server has seen the content: a reply about spam is then about us, or unclear.
CONTENTS = (
    Row(
        About.MESSAGE,
        """
        (spam|*spam|spammy|spam*)
        (virus|viruses|malware|phish*|ube|uce|unsolicited|suspicious|infected|trojan|worm|ransomware|junk|
            junkmail|bulk|malicious|scam|fraud*)
        dt spm
        (content|body|url|urls|link|links|text|subject|keyword) ~ (rejected|denied|refused|blocked|
            filtered|not accepted|policy|prohibited|forbidden|unacceptable|not allowed|scan*|filter*)
        (message|mail|email|e mail) (content|contains|contained|considered|appears|looks|filtered|blocked|
            flagged|classified|identified|score*)
        nature of the content
        (harmful|objectionable|inappropriate|restricted) ~ (content|code|attachment)
        (blocked|rejected|refused|denied) (due to|because of|for|by) ~ (content|attachment|virus)
        content restrict*
        (reject*|block*|refus*|den(y|ied)) (message |mail )?content
        content (filter|filtering|inspection|scanner)
        (mail|message|email|content) ?policy violation
        (illegal|dangerous|forbidden|prohibited|blocked|banned|unsafe|executable) ~ (attachment*|file|
            extension|content|name)
        (banned|blocked) (filename|file|extension|name)
        (rejecting|rejected|blocked|denied|refused|banned) ~ (content|message|body)
        (header|content) based
        垃圾邮件
        """,
        unless=_OURS
        + """
            recipient address rejected
            destination domain
            """,
        phases=CONTENT | UNKNOWN,
        reason="The mail's content is refused.",
        source="Yandex, Comcast, Amavis, SpamAssassin, Rspamd, 163: spam or virus",
    ),
    Row(
        About.MESSAGE,
        """
        (# hops|hops|hop count|hop limit)
        received header*
        (mail|message|routing|forwarding|delivery) loop*
        loop* detected
        loops back
        too many (received|hops)
        (header|headers|header's) ~ (missing|invalid|error|malformed|duplicate*|not|bad|rejected|multiple|
            syntax|compliant|required|violat*)
        (missing|invalid|duplicate|multiple|malformed|bad|no|required|illegal) ~ (header|headers|from|
            date|message id|subject|mime|to header)
        header error
        (not|non|isn't) ~ compliant
        rfc # compliant
        attachment* ~ (not|exceed*|rejected|blocked|number|type|limit)
        number of attachments
        (mime|# bit|multipart|charset|encoding|encoded word|base#) ~ (error|invalid|malformed|not|
            required|permitted|broken)
        improper use of
        conversion (required|not)
        data format
        (json|xml) parsing
        messages? missing
        (bare|stray|lone|naked) (lf|cr|line|newline|linefeed|carriage)*
        looping (message|mail|email)
        (long|over long) lines?
        multiple addresses in from
        """,
        unless=_OURS
        + """
            (helo|ehlo)
            invalid ~ (recipient|rcpt)
            recipient address rejected
            from <ip>
            """,
        phases=CONTENT | UNKNOWN,
        reason="The mail's form is refused.",
        source="Gmail, Yahoo; RFC 5321 6.3: loops",
    ),
)

NO_SENDER_AT_MAIL = (
    Row(
        About.MESSAGE,
        """
        (address|mail ?from|from|mailbox|sender|path|originator) (\\S+ ){0,3}(invalid|unknown|
            required|malformed|syntax|not valid|illegal|incorrect|not found|not exist|doesn't exist|
            missing|incomplete|unresolvable|unroutable|nonexistent|not fully qualified)
        (invalid|unknown|malformed|illegal|bad|incorrect|wrong|missing|incomplete|unresolvable|nonexistent|
            non existent|bogus) (\\S+ )?(address|mail ?from|from|mailbox|path|originator)
        domain name required
        or ~ expected after
        """,
        unless="auth*\nlog ?in\npassword\npermission*\nrelay*\n<ip>\nip\nhost*\nserver\nclient\nrecipient*",
        phases=SENDER,
        reason="The sender's address does not exist: at MAIL no other address has been sent yet.",
        source="RFC 5321 3.3",
    ),
)

MAIL_CODES = (
    Row(About.MESSAGE, enhanced=r"1\.[78]", reason="The sender's address is bad.", source="RFC 3463 3.1"),
    Row(
        About.MESSAGE,
        enhanced=r"6\.\d+|4\.6",
        reason="The mail's content or form is refused, or it is in a loop.",
        source="RFC 3463 3.4, 3.6",
    ),
)
