"""The state machine of a session: which commands are allowed in which stage (RFC 5321 4.1.4, RFC 6409 4.3).

A session is in one stage at any time. The table lists the commands that are refused in each stage, with the
reply; any other command is served. Each verb looks up its row. A command that is served may change the stage;
a refused command does not.
"""

from collections.abc import Mapping
from enum import IntEnum

from mailer.mail.reply import Reply
from mailer.receive import replies


class Stage(IntEnum):
    """The stage of a session; the end of a transaction leads back to one of the first five."""

    CONNECTED = 0
    """No EHLO or HELO yet, or none since STARTTLS."""
    PLAINTEXT = 1
    """STARTTLS must come next, because the listener requires encryption."""
    PLAINTEXT_ELSEWHERE = 2
    """STARTTLS and then a login must come next, because the client is on another host."""
    UNKNOWN = 3
    """A login must come next."""
    READY = 4
    """MAIL may come next."""
    MAIL = 5
    """The transaction has a sender and no recipient."""
    RCPT = 6
    """The transaction has at least one recipient."""
    CHUNKS = 7
    """The first chunk of the message was received, and the last was not."""


IN_TRANSACTION = Stage.MAIL
"""The first of the stages in which a transaction is open."""

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
"""Refusals by verb and stage. EHLO, HELO, RSET, NOOP, VRFY, EXPN, HELP and QUIT are served in every stage."""
