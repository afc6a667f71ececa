"""The trouble table: decides whether a failure leads to another hop, a retry, or a bounce.

Three questions are kept apart. *Whose* trouble is it (`Scope`)? *How hard* is it (`Hardness`)? Is *another
hop left* that could cure it? `judge` answers the first two for a server's reply, from what `send/replies/`
reads in it; `decide` gives the action.

The principle behind the rows: a bounce tells a person that the mail cannot be delivered, so it takes a server
that said so about this message or this recipient. A host that is down, an expired password or a full disk
says nothing about the mail, however permanent the code looks.
"""

import errno
import os
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec.structs import replace

from mailer.mail.outcome import Outcome, Scope, Status
from mailer.mail.reply import Reply
from mailer.send.phase import Phase
from mailer.send.replies.reader import read, read_line
from mailer.send.replies.reading import About, Reading

if TYPE_CHECKING:
    from mailer.send.smtp.conversation import Conversation


class Hardness(StrEnum):
    """What another try can be expected to bring."""

    TEMPORARY = "temporary"
    """The same hop may take it later."""
    TEMPORARY_HERE = "temporary here"
    """This hop asks to try later but is unlikely to take it then, since the sender is not this account's.
    Another hop may."""
    PERMANENT = "permanent"
    """No hop will ever take it."""
    PERMANENT_HERE = "permanent here"
    """This hop never will; one with other rules, limits or abilities may (5.7.x, 5.3.4, 5.6.7)."""
    UNCLEAR = "unclear"
    """A permanent refusal with an unclear reason: the cause may be the hop or the sender's standing there."""
    UNCERTAIN = "uncertain"
    """It may have been taken already."""

    @classmethod
    def of(cls, outcome: Outcome) -> "Hardness":
        """Return the hardness of an outcome, from its status and from what its reply is about.

        Raises:
            ValueError: the outcome is not a failure (sent, pending), or leaves nothing to decide (expired).
        """
        match outcome.status:
            case Status.DEFERRED:
                sender = reading_of(outcome).about is About.SENDER
                return cls.TEMPORARY_HERE if sender and outcome.scope in _MAIL else cls.TEMPORARY
            case Status.UNCERTAIN:
                return cls.UNCERTAIN
            case Status.BOUNCED:
                return _refusal(reading_of(outcome))
        raise ValueError(f"{outcome.status} is not a failure")


def reading_of(outcome: Outcome) -> Reading:
    """Read the reply of an outcome; if it has no phase, guess from its scope what the reply answered."""
    guessed = Phase.RCPT if outcome.scope is Scope.RECIPIENT else Phase.DOT
    return read_line(outcome.phase or guessed, outcome.reply)


_ABOUT_DELIVERY = frozenset({About.RECIPIENT, About.MESSAGE, About.DESTINATION})


def _refusal(reading: Reading) -> Hardness:
    """Return how hard a permanent refusal is: about the mail at any hop, at this hop only, or unclear.

    X.7.x is security and policy (RFC 3463 3.8), and X.6.7 a lack of SMTPUTF8 (RFC 6531): they are about what
    the hop thinks of us, or about its abilities.
    """
    detail = reading.enhanced[2:]
    if reading.about not in _ABOUT_DELIVERY:
        return Hardness.UNCLEAR
    here = reading.here or detail.startswith("7.") or detail in {"3.4", "6.7"}
    return Hardness.PERMANENT_HERE if here else Hardness.PERMANENT


class Action(StrEnum):
    NEXT_HOP = "next hop"
    """Try another hop in the same run."""
    RETRY = "retry"
    """Try again when the schedule says."""
    SAME_HOP = "same hop"
    """Uncertain: only the same hop may be tried, or none, depending on `uncertain` (`retry` or `hold`)."""
    SECOND_OPINION = "second opinion"
    """Try once more when the schedule says, and bounce if it is refused again. The recipient's own exchanger
    is asked only once."""
    BOUNCE = "bounce"
    """Give up, and notify the sender."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table."""

    scopes: frozenset[Scope]
    hardness: frozenset[Hardness]
    hops_left: bool | None
    """Whether another hop must be left for the row to apply; None if it does not matter."""
    action: Action
    breaker: bool
    """Whether the failure counts toward the hop's circuit breaker, which later runs share."""
    reason: str
    source: str

    def covers(self, scope: Scope, hardness: Hardness, *, hops_left: bool) -> bool:
        return (
            scope in self.scopes
            and hardness in self.hardness
            and (self.hops_left is None or self.hops_left == hops_left)
        )


_ANYONE = frozenset(Scope)
_MAIL = frozenset({Scope.RECIPIENT, Scope.MESSAGE})
_HOP = frozenset({Scope.HOST, Scope.PROVIDER})
_OURS = frozenset({Scope.LOCAL})
_UNCERTAIN = frozenset({Hardness.UNCERTAIN})
_TEMPORARY = frozenset({Hardness.TEMPORARY})
_PERMANENT = frozenset({Hardness.PERMANENT})
_UNCLEAR = frozenset({Hardness.UNCLEAR})
_HERE = frozenset({Hardness.PERMANENT_HERE, Hardness.TEMPORARY_HERE, Hardness.UNCLEAR})
_REFUSED_HERE = frozenset({Hardness.PERMANENT_HERE})
_LATER_HERE = frozenset({Hardness.TEMPORARY_HERE})
_SURE = frozenset(Hardness) - _UNCERTAIN

# Every combination is covered by exactly one row.
TABLE = (
    Rule(_ANYONE, _UNCERTAIN, None, Action.SAME_HOP, breaker=False,
         reason="The hop may have taken it. Another hop would deliver it twice; this one may notice that.",
         source="RFC 5321 4.5.3.2.6, RFC 1047"),
    Rule(_MAIL, _TEMPORARY, None, Action.RETRY, breaker=False,
         reason="Refused temporarily. Greylisting or a full mailbox would be the same at another hop.",
         source="RFC 5321 4.2.1, 4.5.4.1"),
    Rule(_MAIL, _PERMANENT, None, Action.BOUNCE, breaker=False,
         reason="A server has refused this mail permanently; another one is not asked for a better answer.",
         source="RFC 5321 4.2.1, 6.1"),
    Rule(_MAIL, _HERE, True, Action.NEXT_HOP, breaker=False,
         reason="Refused because of standing or the hop's abilities, or unclear why; another may take it.",
         source="RFC 3463 3.4, 3.7, 3.8"),
    Rule(_MAIL, _REFUSED_HERE, False, Action.BOUNCE, breaker=False,
         reason="Refused permanently, and no other hop is left.",
         source="RFC 5321 4.2.1, 6.1"),
    Rule(_MAIL, _UNCLEAR, False, Action.SECOND_OPINION, breaker=False,
         reason="Refused permanently for an unclear reason, which may be a fault that is repaired by then.",
         source="RFC 5321 4.2.1: servers differ in what they mean by a code"),
    Rule(_MAIL, _LATER_HERE, False, Action.RETRY, breaker=False,
         reason="Refused temporarily, and no other hop is left.",
         source="RFC 5321 4.2.1, 4.5.4.1"),
    Rule(_HOP, _SURE, True, Action.NEXT_HOP, breaker=True,
         reason="The hop does not work, for us or at all. The mail is not the cause; another may take it.",
         source="RFC 5321 5.1"),
    Rule(_HOP, _SURE, False, Action.RETRY, breaker=True,
         reason="No hop works. The mail waits until the host, the password or the quota is repaired.",
         source="RFC 5321 4.5.4.1"),
    Rule(_OURS, _SURE, None, Action.RETRY, breaker=False,
         reason="Our own disk, memory or configuration: another hop would not help, and no mail may be lost.",
         source="RFC 5321 4.5.4.1"),
)  # fmt: skip


def rule(scope: Scope, hardness: Hardness, *, hops_left: bool) -> Rule:
    """Return the row that applies."""
    return next(row for row in TABLE if row.covers(scope, hardness, hops_left=hops_left))


def decide(scope: Scope, hardness: Hardness, *, hops_left: bool) -> Action:
    """Return what to do about a failure.

    Args:
        scope: whose trouble it is.
        hardness: the hardness of the outcome (`Hardness.of`) or of the `HopTrouble`.
        hops_left: whether another hop is left that may be tried after this kind of trouble.
    """
    return rule(scope, hardness, hops_left=hops_left).action


class HopTrouble(ConnectionError):
    """A next hop could not be used. It refused no message, and nothing was sent to any recipient."""

    def __init__(
        self,
        hop: str,
        phase: Phase,
        text: str,
        *,
        scope: Scope = Scope.HOST,
        reply: Reply | None = None,
        temporary: bool = True,
    ) -> None:
        """Keep what the operator needs.

        Args:
            hop: the hop, named as in `Outcome.hop`.
            phase: what the session was waiting for.
            text: one printable line: the server's reply or the system's error, verbatim.
            scope: HOST, PROVIDER (our account there) or LOCAL (our own resources).
            reply: the server's reply, if one caused this.
            temporary: False if only a person can repair it (a wrong password, an expired certificate).
        """
        super().__init__(f"{hop}: {phase}: {text}")
        self.hop = hop
        self.phase = phase
        self.text = text
        self.scope = scope
        self.reply = reply
        self.temporary = temporary
        self.conversation: Conversation | None = None
        """What was said in the session; None: there was no session, or not in this attempt (`again`)."""

    @property
    def hardness(self) -> Hardness:
        return Hardness.TEMPORARY if self.temporary else Hardness.PERMANENT

    def again(self) -> "HopTrouble":
        """Return a copy of this exception, to raise for another message."""
        return type(self)(
            self.hop,
            self.phase,
            self.text,
            scope=self.scope,
            reply=self.reply,
            temporary=self.temporary,
        )


class Resting(HopTrouble):
    """The hop was not tried, because it is paused after earlier trouble (see `breaker`)."""

    waits = False
    """Whether the mail must wait for this hop, even if another one could take it."""

    def __init__(self, hop: str, phase: Phase, text: str, *, scope: Scope, until: float) -> None:
        """Arguments as for `HopTrouble`, and `until`: when to ask again, in seconds since the epoch."""
        super().__init__(hop, phase, text, scope=scope)
        self.until = until


class SessionLost(HopTrouble):
    """The session broke within a transaction, certainly before the final dot: no recipient was sent."""


_RESET = {os.strerror(errno.ECONNRESET), os.strerror(errno.EPIPE)}


def may_be_about_a_recipient(trouble: HopTrouble) -> bool:
    """Tell whether a session may have broken because of one of the recipients of its transaction.

    A server that closes with commands unread makes its kernel send a reset, at which ours throws away the
    replies that were not read yet: then it looks as if MAIL had not been answered.
    """
    if not isinstance(trouble, SessionLost) or trouble.scope is not Scope.HOST:
        return False
    return trouble.phase is Phase.RCPT or (trouble.phase is Phase.MAIL and trouble.text in _RESET)


# The scope of readings that are not about the recipient or the message. Such a reply never counts against the
# mail, however permanent its code looks.
_SCOPE_OF = {
    About.ACCOUNT: Scope.PROVIDER,
    About.QUOTA: Scope.PROVIDER,
    About.SESSION: Scope.PROVIDER,
    About.HOST: Scope.HOST,
    About.TRANSACTION: Scope.RECIPIENT,
}


_OF_THE_MAIL = _ABOUT_DELIVERY | {About.SENDER, About.TRANSACTION}


def of_the_mail(phase: Phase, reply: Reply) -> bool:
    """Tell whether a reply is clearly about one mail, its sender or recipients, so that the hop is well."""
    return read(phase, reply).about in _OF_THE_MAIL


def too_many(outcome: Outcome) -> bool:
    """Tell whether a recipient was refused only because there were others in the same transaction.

    RFC 5321 4.5.3.1.10: 452, or 552 from an old server. A 452 without further words may also mean a full
    disk; asking again in a separate transaction settles it.
    """
    return (
        outcome.status is Status.DEFERRED
        and outcome.scope is Scope.RECIPIENT
        and reading_of(outcome).about is About.TRANSACTION
    )


def slows_down(outcome: Outcome) -> bool:
    """Tell whether a hop said that we send too much or too fast."""
    return outcome.status is Status.DEFERRED and reading_of(outcome).about is About.QUOTA


def without_account(outcome: Outcome) -> Outcome:
    """Return what an outcome means at a host where we have no account, such as a mail exchanger.

    One that refuses to relay is not responsible for the recipient, whatever the MX record says. If it asks
    for a login (530, 535), that says nothing about the mail.
    """
    if outcome.scope is not Scope.PROVIDER or outcome.status is not Status.DEFERRED:
        return outcome
    refused = outcome.reply.startswith("5") and not outcome.reply.startswith("53")
    if not refused or read_line(Phase.RCPT, outcome.reply).about is not About.ACCOUNT:
        return outcome
    return replace(outcome, status=Status.BOUNCED, scope=Scope.RECIPIENT)


_TAKEN = (Status.SENT, Scope.MESSAGE)


def judge(phase: Phase, reply: Reply) -> tuple[Status, Scope]:
    """Return what a reply within a transaction means for a recipient that it settles.

    The status is the recipient's if no other hop is tried; it is BOUNCED only where `decide` can bounce.

    Args:
        phase: what the reply answers: MAIL, RCPT, DATA or DOT.
        reply: the reply: 2yz (to the dot), 4yz or 5yz.
    """
    if reply.positive:
        return _TAKEN
    scope = Scope.RECIPIENT if phase is Phase.RCPT else Scope.MESSAGE
    if whose := _SCOPE_OF.get(read(phase, reply).about):
        return Status.DEFERRED, whose
    return (Status.BOUNCED if reply.permanent else Status.DEFERRED), scope


def judge_http(reply: str) -> tuple[Status, Scope]:
    """Return what a refusal over HTTP means, as `judge` does; `reply` is the line that the journal has."""
    reading = read_line(Phase.DOT, reply)
    if whose := _SCOPE_OF.get(reading.about):
        return Status.DEFERRED, whose
    scope = Scope.RECIPIENT if reading.about is About.RECIPIENT else Scope.MESSAGE
    return (Status.BOUNCED if reading.permanent else Status.DEFERRED), scope
