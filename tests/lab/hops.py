"""Next hops that answer as the story says, and keep what they heard: outside of the faulted machine."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass, field
from typing import NamedTuple

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Scope, Status
from mailer.send.budgets import BudgetShare
from mailer.send.outgoing import Outgoing
from mailer.send.phase import Phase
from mailer.send.presentation import Presentation
from mailer.send.routes.route import OnCommit, OnTrouble
from mailer.send.smtp.places import Places
from mailer.send.trouble import HopTrouble
from mailer.spool.state.slots import Slots

HOP = "mx.example.net[192.0.2.1]:25"
SENT, LATER, REFUSED, DOWN, LOST, CUT, DEADLY = "sent", "later", "refused", "down", "lost", "cut", "deadly"
"""What a hop does: accept; 451; 550; break down before the dot; accept, and lose the reply; lose the dot;
the message kills its runner."""


class Ack(NamedTuple):
    """What a client knows: it was told 250."""

    token: str
    at: float


class Accepted(NamedTuple):
    """A hop took a message for a recipient."""

    token: str
    recipient: str
    at: float


class Notice(NamedTuple):
    """A notification arrived at the sender."""

    name: str
    token: str
    recipients: tuple[str, ...]


class Planted(NamedTuple):
    """Something that does not belong into the spool."""

    kind: str
    path: str
    inode: int


@dataclass
class Log:
    """What clients, hops and others outside know; it survives every fault."""

    acks: list[Ack] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    accepted: list[Accepted] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    tried: Counter[tuple[str, str]] = field(default_factory=Counter)
    reopened: Counter[str] = field(default_factory=Counter)
    lost: set[tuple[str, str]] = field(default_factory=set)
    """Whose final reply was lost."""
    unsure: set[str] = field(default_factory=set)
    """Messages that the disk refused to write: no power cut need leave what programs see of them."""
    removed: list[str] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    """Of these the command said that it had removed them."""
    held: list[str] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    """Of these the command said that it held them, and nobody has released them."""
    copies: Counter[str] = field(default_factory=Counter)
    """How often a message was copied by hand."""
    copied: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often for a recipient who had not got it, as the file said."""
    moved: set[str] = field(default_factory=set)
    """The ids of which the command said that it had moved them to the other spool."""
    planted: dict[str, Planted] = field(default_factory=dict)
    """What others have put into the spool, by its name."""
    paused: list[bool | None] = field(default_factory=lambda: [False])
    """What the operator last wanted; None: that is not certain, for a command has not ended."""
    tokens: list[str] = field(default_factory=list)
    """The refresh tokens that a server gave; each ends the one before."""
    stored: list[str] = field(default_factory=list)
    """Those that were said to be durable."""
    told: list[tuple[str, str, str]] = field(default_factory=list)
    """Events that were taken: message, recipient, kind."""
    listed: dict[str, float | None] = field(default_factory=dict)
    """Addresses that are suppressed, and when the command said so; None: that is not certain."""
    used: list[float] = field(default_factory=list)
    """When a recipient was accepted, also of a notification: a provider counts these."""
    ids: dict[str, str] = field(default_factory=dict)
    """The ids under which hops saw messages."""
    violations: list[str] = field(default_factory=list)
    version: int = 0

    def copy(self) -> "Log":
        return Log(**{name: copy(value) for name, value in vars(self).items()})

    def signature(self) -> int:
        accepted = tuple((one.token, one.recipient) for one in self.accepted)
        others = (len(self.stored), len(self.tokens), self.paused[0], len(self.told), len(self.used))
        commands = frozenset(self.gone), frozenset(self.kept), frozenset(self.moved)
        listed = frozenset((address, at is None) for address, at in self.listed.items())
        tried = frozenset(self.tried.items())
        return hash((tuple(self.acks), accepted, tuple(self.notices), tried, others, commands, listed))


@dataclass(eq=False)
class Hop:
    """A `Route` with answers for each message and recipient, in order; the last one is repeated."""

    log: Log
    answers: dict[tuple[str, str], tuple[str, ...]]
    contents: dict[str, bytes]
    clock: Callable[[], float]
    allows_again: Callable[[str, str], str]
    """Returns why a recipient may not get a message again; empty: it may."""
    waits: Callable[[str, str], float]
    """Returns until when, by its file, a recipient is not to be tried; 0: it may be."""
    began: float
    """When the machine did."""
    pace: Callable[[], float]
    die: Callable[[], None]
    earliest: dict[str, float]
    """When a message may be sent, by the wall clock."""
    name: str = HOP
    batch_size: int = 2
    batch_delay: float = 0.0
    budget: BudgetShare | None = None
    limits: Sequence[tuple[float, int]] = ()
    """Seconds of a window, and how many recipients it accepts in each."""
    places: Places | None = None
    slots: Slots | None = None
    session: Callable[[], AbstractContextManager[None]] = nullcontext
    presentation: Presentation = field(default_factory=Presentation)
    retries_unclear_refusals: bool = False
    holds_second_doubt: bool = False
    attempts: int = 1000

    def groups(self, recipients: Sequence[Recipient]) -> list[list[Recipient]]:
        return [list(recipients)]

    def leads_to(self, hop: str) -> bool:
        return hop == self.name

    async def deliver(
        self, outgoing: Outgoing, recipients: Sequence[Recipient], on_commit: OnCommit, on_trouble: OnTrouble
    ) -> list[Outcome]:
        if self.places is None or self.slots is None:
            return await self._transact(outgoing, recipients, on_commit)
        slot = await self.places.take(self.slots, self.name)
        try:
            with self.session():
                return await self._transact(outgoing, recipients, on_commit)
        finally:
            slot.release(in_order=True)

    async def _transact(
        self, outgoing: Outgoing, recipients: Sequence[Recipient], on_commit: OnCommit
    ) -> list[Outcome]:
        content, begun = b"", self.clock()
        while piece := outgoing.read(len(content), 1000):
            content += piece
        token = token_of(content)
        notice = not outgoing.envelope.sender and b"multipart/report" in content
        answers = [SENT if notice else self._answer(token, r.address) for r in recipients]
        self.log.version += 1
        if self.pace():
            await asyncio.sleep(self.pace())
        if DEADLY in answers:
            self.die()
        if DOWN in answers:
            raise HopTrouble(self.name, Phase.CONNECT, "Connection refused")
        taken = [
            r.address for r, answer in zip(recipients, answers, strict=True) if answer in {SENT, LOST, CUT}
        ]
        if not taken:
            return [self._outcome(r, answer) for r, answer in zip(recipients, answers, strict=True)]
        reasons = [self.allows_again(token, r) for r in taken] if not notice else []
        on_commit([r for r in recipients if r.address in taken], self.name)
        lost = LOST in answers or CUT in answers
        if CUT not in answers:
            if not notice:
                self.log.ids[token] = outgoing.claim.id
            self._take(token, content, taken, begun, notice=notice)
            self.log.violations += filter(None, reasons)
        if self.pace():
            await asyncio.sleep(self.pace())
        if lost:
            self.log.lost |= {(token, address) for address in taken}
            text = "connection lost after the dot"
            return [
                Outcome(r.address, Status.UNCERTAIN, self.name, text, Scope.HOST)
                if r.address in taken
                else self._outcome(r, answer)
                for r, answer in zip(recipients, answers, strict=True)
            ]
        return [self._outcome(r, answer) for r, answer in zip(recipients, answers, strict=True)]

    def _answer(self, token: str, recipient: str) -> str:
        answers = self.answers.get((token, recipient), (SENT,))
        number = self.log.tried[token, recipient]
        if number and not self.log.copies[token] and self.clock() < self.waits(token, recipient):
            self.log.violations.append(f"{token} {recipient}: tried before its pause was over")
        self.log.tried[token, recipient] += 1
        return answers[min(number, len(answers) - 1)]

    def _outcome(self, recipient: Recipient, answer: str) -> Outcome:
        status, reply, scope = {
            SENT: (Status.SENT, "250 2.0.0 Ok", Scope.RECIPIENT),
            LATER: (Status.DEFERRED, "451 4.7.1 Later", Scope.RECIPIENT),
            REFUSED: (Status.BOUNCED, "550 5.1.1 No such user", Scope.RECIPIENT),
        }[answer]
        return Outcome(recipient.address, status, self.name, reply, scope)

    def _take(self, token: str, content: bytes, taken: Sequence[str], begun: float, *, notice: bool) -> None:
        log = self.log
        log.version += 1
        self._count(len(taken))
        if notice:
            name = re.search(rb"(?im)^Message-ID: (\S+)", content)
            failed = re.findall(rb"(?im)^Final-Recipient: *rfc822; *(\S+)", content)
            log.notices.append(
                Notice(
                    name.group(1).decode() if name else "", token, tuple(sorted(f.decode() for f in failed))
                )
            )
            return
        expected = self.contents.get(token, b"")
        if not content.endswith(expected) or not _ADDED.fullmatch(content.removesuffix(expected)):
            log.violations.append(f"{token}: other octets were sent than came")
        if self.clock() < self.earliest.get(token, 0.0) and not log.reopened[token]:
            log.violations.append(f"{token}: sent before the time that its sender has named")
        if token in log.gone and not log.copies[token]:
            log.violations.append(f"{token}: sent, though the operator had removed it")
        if token in log.kept and not log.copies[token]:
            log.violations.append(f"{token}: sent, though the operator holds it")
        for recipient in taken:
            at = log.listed.get(recipient)
            # An entry counts from the next attempt on.
            if at is not None and (at <= self.began or begun - at > _LONGEST_ATTEMPT):
                log.violations.append(f"{token} {recipient}: sent, though the address was suppressed")
        log.accepted += [Accepted(token, recipient, self.clock()) for recipient in taken]

    def _count(self, recipients: int) -> None:
        """Keep account as a provider does, in windows that may lie anyhow."""
        log, now = self.log, self.clock()
        log.used += [now] * recipients
        for window, most in self.limits:
            if (seen := sum(now - at < window for at in log.used)) > most:
                log.violations.append(f"{seen} recipients in {window:.0f} s, and the hop allows {most}")


_LONGEST_ATTEMPT = 60.0
"""Seconds, with the time that all hops of a story take."""


def token_of(content: bytes) -> str:
    found = re.search(rb"(?m)^X-Token: (\w+)", content)
    return found.group(1).decode() if found else ""


_RECEIVED = rb"Received: [^\r]*\r\n(?:[ \t][^\r]*\r\n)*"
_ADDED = re.compile(_RECEIVED + rb"(?:X-Token: \w+\r\n" + _RECEIVED + rb")?")
"""What is added to a message that has a date and an id, and to one that is sent again."""
