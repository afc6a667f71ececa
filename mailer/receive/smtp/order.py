"""The order of commands in a session (RFC 5321 4.1.4, RFC 6409 4.3): what must have come before each.

A session is in one stage at any time. The table says which commands are refused there, and with what reply;
any other command is served. The session walks it: each verb looks its row up, and a command that is served
moves the session on. Refused commands move nothing.
"""

from collections.abc import Mapping
from enum import IntEnum

from mailer.mail.reply import Reply
from mailer.receive import replies


class Stage(IntEnum):
    """How far a session has come; whatever ends a transaction leads back to the first five."""

    CONNECTED = 0
    """The client has not introduced itself, or has to do so again after STARTTLS."""
    PLAINTEXT = 1
    """It has; STARTTLS is due, because the listener demands encryption."""
    PLAINTEXT_ELSEWHERE = 2
    """A login is due, and STARTTLS before it: the client is on another host."""
    UNKNOWN = 3
    """A login is due."""
    READY = 4
    MAIL = 5
    """A transaction has begun, and has no recipient."""
    RCPT = 6
    """It has a recipient."""
    CHUNKS = 7
    """The first chunk of its message has come, and not the last."""


IN_TRANSACTION = Stage.MAIL
"""A transaction has begun in this stage and all later ones."""

_DUE_FIRST = {
    Stage.CONNECTED: replies.NEED_EHLO,
    Stage.PLAINTEXT: replies.NEED_STARTTLS,
    Stage.PLAINTEXT_ELSEWHERE: replies.NEED_TLS_AND_AUTH,
    Stage.UNKNOWN: replies.NEED_AUTH,
}

REFUSALS: Mapping[str, Mapping[Stage, Reply]] = {
    "MAIL": {
        **_DUE_FIRST,
        Stage.MAIL: replies.NESTED_MAIL,
        Stage.RCPT: replies.NESTED_MAIL,
        Stage.CHUNKS: replies.NESTED_MAIL,
    },
    "RCPT": {**_DUE_FIRST, Stage.READY: replies.NEED_MAIL, Stage.CHUNKS: replies.CHUNKS_BEGUN},
    "DATA": {
        **_DUE_FIRST,
        Stage.READY: replies.NEED_MAIL,
        Stage.MAIL: replies.NEED_RCPT,
        Stage.CHUNKS: replies.CHUNKS_BEGUN,
    },
    "BDAT": {**_DUE_FIRST, Stage.READY: replies.NEED_MAIL, Stage.MAIL: replies.NEED_RCPT},
    "AUTH": {
        Stage.CONNECTED: replies.NEED_EHLO,
        Stage.PLAINTEXT: replies.NEED_STARTTLS,
        Stage.PLAINTEXT_ELSEWHERE: replies.NEED_TLS,
        Stage.MAIL: replies.AUTH_IN_MAIL,
        Stage.RCPT: replies.AUTH_IN_MAIL,
        Stage.CHUNKS: replies.AUTH_IN_MAIL,
    },
    "STARTTLS": {Stage.CONNECTED: replies.NEED_EHLO},
}
"""By verb and stage. EHLO, HELO, RSET, NOOP, VRFY, EXPN, HELP and QUIT are served in every stage."""
