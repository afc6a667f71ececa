"""Rows about our account: its login, and what it is allowed to do."""

from mailer.send.replies.reading import About
from mailer.send.replies.row import AUTH, MAIL, RECIPIENT, SENDER, UNKNOWN, Row

_LOGIN = "Our login is missing or refused, so every mail would be refused."
_STATE = "Our account there may not do this, so every mail would be refused."

ACCOUNTS = (
    Row(
        About.ACCOUNT,
        """
        mailbox log ?on fail*
        mapiexceptionlogonfailed
        """,
        reason="Our application may not open the mailbox that it sends as, so every mail would be refused.",
        source="Microsoft 365: 430 4.2.0 STOREDRV; mailbox logon failure",
    ),
    Row(
        About.ACCOUNT,
        """
        auth* ~ (required|unsuccessful|fail*|first|needed|reject*|denied|invalid|disabled|not|error|
            missing|aborted|mechanism|wrong|incorrect|exchange|before|succeeded|unavailable|temporarily)
        (must|need|needs|please|send|use|requires?|should) (to )?(be )?(auth*|log ?in|login|sign in)
        (not|isn't|never|un) ?(auth*|logged in)
        unauthenticated (sender*|user*|client*|access|relay*|connection*|session*)
        (no|without|failed|client not|unable to|not yet) auth*
        (invalid|incorrect|wrong|bad|unknown|missing) ~ (login|credential*|user ?name|password|api key|
            token|smtp credential*|login or password)
        log ?in ~ (required|first|fail*|again|denied|incorrect)
        login (fail*|denied|required|incorrect|invalid|error)
        identity changes
        pop before smtp
        check (for new|your) (mail|mails|email) before
        (api|smtp) key
        (authentification|anmeldung|autenticacion|autenticazione|authentifizierung|identifiants?)
        auth attempts
        """,
        unless="""
            spf
            dkim
            dmarc
            (domain*|from|email|sender's|message) authentication
            authentication (check|checks|information|result|results|level|requirements)
            not authori(z|s)ed to (send|use)
            not authori(z|s)ed (sender|from)
            password protected
            receiving
            <ip> is not
            unauthenticated (email|mail|message)
            """,
        reason=_LOGIN,
        source="RFC 4954 6, in the words of Microsoft 365, Google, Brevo, QQ, Yandex",
    ),
    Row(
        About.ACCOUNT,
        "(credentials|password|passwort|kennwort|mot de passe|app password)",
        phases=AUTH | SENDER | RECIPIENT | UNKNOWN,
        reason=_LOGIN,
        source="Microsoft 365, Zoho, GMX; after DATA a mail's text is checked for passwords",
    ),
    Row(
        About.ACCOUNT,
        """
        (account|service|smtp|access|user|domain) ~ not (yet )?(been )?(activated|active|enabled|approved|
            validated|provisioned)
        unauthenticated (email|mail|messages?) not (allowed|permitted)
        (account|email) ~ not ~ confirmed
        not (allowed|permitted|authorized|enabled) to send to (external|outside|other|this|these)
        (activate|confirm|validate|verify) your ~ account
        (request|account|requires) activation
        sandbox*
        (no|not|insufficient|without|lacks?|doesn't|don't) (have )?(the |any |sufficient |
            enough )?(permission|permissions|privileges?|rights)
        only send ~ to (your|verified|authorized|approved|confirmed)
        (testing|test|trial|sandbox|demo) (emails?|mails?|messages?|mode|account|domain)
        (sending|submission) (is |was |has been )?(denied|refused|forbidden|not permitted)
        (account|user) (is |was )?(on probation|under review|on hold)
        (your|smtp|sending|sender|this|outgoing|customer) (\\S+ ){0,3}account ~ (suspended|disabled|
            blocked|locked|inactive|restricted|terminated|deactivated|banned|closed|frozen|limited|
            compromised|on hold|under review|expired|cancelled)
        (outgoing|outbound|sending|smtp|relay) ~ (suspended|disabled|blocked|revoked|locked|restricted|
            turned off|prohibited)
        (account|user) ~ (suspended|disabled|blocked|locked|restricted|banned) ~ (sending|from sending|
            outgoing|abuse|spam|spamming|payment|billing|unpaid)
        (blocked|suspended|disabled|restricted|prohibited|banned) from sending
        not (allowed|permitted|authorized|enabled|able) to send (mail|email|messages|any)
        (trial|subscription|license|licence|plan|billing|payment) ~ (expired|required|ended|limit|overdue|
            not)
        """,
        unless="""
            tried to reach
            to recipient*
            message to
            mailbox
            email account
            (per|an|#) (hour|day|minute)
            recipient address rejected
            <ip> (is |was |has been )?(blocked|restricted)
            """,
        reason=_STATE,
        source="Brevo: 502 not yet activated; SMTP2GO, cPanel, Mailgun: suspended, sandbox",
    ),
    Row(
        About.ACCOUNT,
        """
        sandbox (subdomain|domain)*
        (unusual|suspicious|abnormal) (sending |account |login |outbound )?activity
        bad (outbound|inbound) (sender|connector)
        account (\\S+ ){0,2}(suspended|disabled|blocked|locked|deactivated) (please )?contact (us|support|our|
            billing|sales|customer)
        (outbound|outgoing) (spam|sender)
        (konto|compte|cuenta|conta|versand|envoi) ~ (gesperrt|deaktiviert|suspendu*|bloque*|desactive|
            suspendida|bloqueada|suspensa|bloccato|sospeso)
        enable smtp
        (account|sender) ~ (pending|awaiting) (approval|review|activation|verification)
        *(授权码|未登录|登录失败|认证失败)*
        (your|sender|sender's) (mailbox|mail box|inbox|storage) ~ (full|exceeded|over|limit)
        spam ~ (from|by|through) (your|this) (account|user|domain|mailbox|login)
        (access to smtp|smtp access|smtp service) ~ (denied|disabled|blocked|not|suspended)
        (your|this) (domain|service|user|login) ~ (suspended|disabled|blocked|locked|deactivated)
        (suspended|disabled|blocked|stopped) for (non payment|nonpayment|abuse|spam|billing)
        outboundspam*
        spam abuse detected
        (account|user|mailbox) ~ compromised
        to unblock ~ click
        """,
        unless="""
            destinataire*
            (recipient|recipient's|recipients)
            (empfanger*|empfaenger*|destinatario*)
            """,
        reason=_STATE,
        source="Zoho: 550 5.4.6 Unusual sending activity; Microsoft 365: 550 5.1.8 bad outbound sender",
    ),
    Row(
        About.ACCOUNT,
        """
        relay* ~ (denied|not permitted|not allowed|prohibited|disallowed|refused|rejected|forbidden|
            without|disabled)
        (unable|not|cannot|can't|refused?|denied|won't|will not|don't|do not|never) ~ (to )?relay*
        (as a|as an open|use me as a|using this server as a) relay
        (no|not|deny|denied|denies|refuses|rejects|forbids|prohibits|access) relay*
        relay* (\\S+ ){0,2}(check|fail*|error|restricted|blocked|unauthorized)
        not (a )?(gateway|local domain|in my list of allowed)
        (rcpthosts|allowed rcpthosts)
        """,
        unless="relaying disallowed as\nsmtp relay limit\nrelay dynamic*",
        reason=_STATE,
        source="Postfix: 554 5.7.1 Relay access denied; Exim: 550 relay not permitted; Sendmail, qmail",
    ),
    Row(
        About.ACCOUNT,
        """
        (user|account|customer|client) ~ (suspended|disabled|blocked|locked|inactive|restricted|
            deactivated|terminated|banned|not active|unavailable|not available|abnormal|expired|
            frozen|closed|on hold)
        """,
        unless="client <ip>",
        phases=SENDER | AUTH,
        reason=_STATE,
        source="At MAIL no recipient has been named yet (RFC 5321 3.3)",
    ),
)

ACCOUNT_CODES = (
    Row(About.ACCOUNT, codes=r"[45]\d\d", phases=AUTH, reason=_LOGIN, source="RFC 4954 4"),
    Row(
        About.ACCOUNT,
        enhanced=r"7\.(?:8|9|11|12|13|139|57|3)",
        phases=SENDER,
        reason=_LOGIN,
        source="RFC 4954 6, RFC 5248",
    ),
    Row(
        About.ACCOUNT,
        codes=r"53[0458]|526",
        phases=MAIL | UNKNOWN,
        enhanced=r"|7\.\d+|5\.\d",
        reason=_LOGIN,
        source="RFC 4954 6; 526 is Aliyun's",
    ),
    Row(About.ACCOUNT, codes=r"5\d\d", enhanced=r"7\.(?:8|11)", reason=_LOGIN, source="RFC 4954 6"),
)
