"""The events that `machine.Dialogue` returns to its shell."""

import msgspec

from mailer.mail.reply import Reply
from mailer.send.phase import Phase


class Verdict(msgspec.Struct, frozen=True):
    """The reply that decided a recipient's case, and the command it answered; (DOT, 2yz) means sent."""

    phase: Phase
    reply: Reply


class Answered(msgspec.Struct, frozen=True):
    """The reply to a greeting, EHLO, STARTTLS, AUTH or QUIT."""

    phase: Phase
    reply: Reply


class GoAhead(msgspec.Struct, frozen=True):
    """354, with at least one recipient accepted: send the message, then call `finish`.

    `Settled` may come before `finish`, if the server refuses the message while it is being sent.
    """

    refused: tuple[Verdict | None, ...]
    """Each recipient's refusal, in the order of `begin`; None: accepted."""


class Settled(msgspec.Struct, frozen=True):
    """The transaction is over and every recipient has the reply that decided its case."""

    verdicts: tuple[Verdict, ...]
    """In the order of `begin`."""
    beyond: int = 0
    """How many octets the server has sent beyond: they answer the transaction begun behind the dot."""


class Broken(msgspec.Struct, frozen=True):
    """The session is over, because of a 421 or of input that is not SMTP; no more commands can be sent."""

    text: str
    phase: Phase
    reply: Reply | None = None
    refused: tuple[Verdict | None, ...] = ()
    """With a 421 within a transaction: the recipients' refusals up to and including it, in the order of
    `begin`; None: undecided."""


Event = Answered | GoAhead | Settled | Broken
