"""The table of all rows, in the order in which they are tried; the first that matches counts.

Rows that explicitly mention a mailbox or a mail's form come first, since such replies may mention accounts
too. Rows about ourselves precede those about the mail and the recipient: taking trouble with our account for
a refusal of the mail loses mail, while the opposite error only loses time. The grammar follows, for replies
that no phrase matches. Rows for codes alone come last.
"""

from mailer.send.replies import account, grammar, mails, quotas, recipients, senders, session, theirs
from mailer.send.replies.reading import About
from mailer.send.replies.row import OPENING, Row

_OPENING = (
    Row(
        About.SESSION,
        "policy",
        phases=frozenset({"connect", "banner"}),
        reason="The server refuses our address by a policy: before EHLO, it knows nothing else.",
        source="IONOS: 421 Reject due to policy violations",
    ),
    Row(
        About.SESSION,
        codes=r"5\d\d",
        phases=frozenset({"connect", "banner"}),
        reason="The server refuses to talk to us.",
        source="RFC 5321 3.1",
    ),
    Row(
        About.HOST,
        codes=r"[45]\d\d",
        phases=OPENING,
        reason="The server refuses the session.",
        source="RFC 5321 3.1",
    ),
)

TABLE: tuple[Row, ...] = (
    *theirs.DESTINATIONS,
    *recipients.MAILBOXES,
    *mails.FORMS,
    *senders.SENDERS,
    *quotas.QUOTAS,
    *session.HELLO,
    *theirs.TRANSACTIONS,
    *session.LIMITS,
    *senders.SENDER_REPUTE,
    *account.ACCOUNTS,
    *session.STANDING,
    *senders.UNWANTED,
    *mails.SIZES,
    *mails.NO_SENDER,
    *theirs.HOSTS,
    *recipients.RECIPIENTS,
    *mails.CONTENTS,
    *mails.NO_SENDER_AT_MAIL,
    *grammar.OURS,
    *grammar.THEIRS,
    *theirs.TRANSACTION_CODES,
    *quotas.QUOTA_CODES,
    *account.ACCOUNT_CODES,
    *senders.SENDER_CODES,
    *mails.MAIL_CODES,
    *recipients.RECIPIENT_CODES,
    *theirs.HOST_CODES,
    *_OPENING,
)
