"""An attempt at a message in a real spool, over routes that answer as a script says; no network."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mailer.config.hops import Provider
from mailer.config.model import Config
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Status
from mailer.mail.reply import Reply
from mailer.maillog.events import MailLog
from mailer.send.attempt import Attempt
from mailer.send.backoff import Backoff
from mailer.send.context import RunContext
from mailer.send.outgoing import Outgoing
from mailer.send.phase import Phase
from mailer.send.presentation import AS_ACCEPTED, Presentation
from mailer.send.record import Record
from mailer.send.routes.directions import Directions
from mailer.send.routes.route import OnCommit, OnTrouble
from mailer.send.routes.table import Table
from mailer.send.trouble import judge
from mailer.spool.directory import Spool
from mailer.spool.message_state import State
from mailer.spool.run.claim import Claim, Claims

HOUR = 3600.0
NOON = 1_790_000_000.0
"""When each attempt begins, in seconds since the epoch, plus an hour for each."""

Answer = str | Outcome | Exception
"""A server's reply to the recipient, such as "250 ok"; an outcome; or what the route raises."""


@dataclass(eq=False)
class ScriptedRoute:
    """A route that answers what its script says for an address; what it does not name is taken."""

    name: str
    script: Mapping[str, Answer | Callable[[], Answer]] = field(default_factory=dict)
    batch_size: int = 100
    batch_delay: float = 0.0
    retries_unclear_refusals: bool = True
    holds_second_doubt: bool = False
    attempts: int = 1
    presentation: Presentation = AS_ACCEPTED
    budget: None = None
    by_domain: bool = False
    """Whether each domain is a destination of its own, as on the direct route."""
    batches: list[list[str]] = field(default_factory=list)
    """The recipients of each transaction that was begun."""

    @property
    def hop(self) -> str:
        return f"{self.name}:25"

    def groups(self, recipients: Sequence[Recipient]) -> list[list[Recipient]]:
        if not self.by_domain:
            return [list(recipients)]
        groups: dict[str, list[Recipient]] = {}
        for recipient in recipients:
            groups.setdefault(recipient.address.rpartition("@")[2], []).append(recipient)
        return list(groups.values())

    async def deliver(
        self,
        _outgoing: Outgoing,
        recipients: Sequence[Recipient],
        on_commit: OnCommit,
        _on_trouble: OnTrouble,
    ) -> list[Outcome]:
        self.batches.append([recipient.address for recipient in recipients])
        await asyncio.sleep(0)
        outcomes = [self._outcome(recipient.address) for recipient in recipients]
        taken = [
            recipient
            for recipient, outcome in zip(recipients, outcomes, strict=True)
            if outcome.status in {Status.SENT, Status.UNCERTAIN}
        ]
        if taken:
            on_commit(taken, self.hop)
        return outcomes

    def _outcome(self, address: str) -> Outcome:
        answer = self.script.get(address, self.script.get("*", "250 2.0.0 ok"))
        if callable(answer):
            answer = answer()
        match answer:
            case Exception():
                raise answer
            case Outcome():
                return answer
        status, scope = judge(Phase.RCPT, Reply(int(answer[:3]), (answer[4:],)))
        return Outcome(address, status, self.hop, answer, scope)

    def leads_to(self, hop: str) -> bool:
        return hop == self.hop


@dataclass
class Tries:
    """A claimed message, to be tried again and again, an hour apart."""

    claim: Claim
    routes: Sequence[ScriptedRoute]
    hold_uncertain: bool = False
    pauses: list[float] = field(default_factory=list)
    """The seconds of each pause between batches; no time passes."""
    hours: float = 0.0

    def once(self) -> State:
        """Try the recipients that are due; return the state as the file has it afterwards."""
        self.hours += 1
        record = Record(self.claim, self._context())
        asyncio.run(Attempt(record, self._pause).run(record.due))
        record.end_attempt()
        self.claim = Claim(self.claim.locked, self.claim.locked.read())
        return self.claim.entry.state

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def _context(self) -> RunContext:
        config = Config(
            forward_smtp=True, forward_providers=tuple(Provider(host=r.name) for r in self.routes)
        )
        directions = Directions(config)
        table = Table(directions, dict(zip(directions.targets, self.routes, strict=True)), lambda: 0.0)

        def clock() -> float:
            return NOON + self.hours * HOUR

        return RunContext(
            routes=table,
            backoff=Backoff(delays=(HOUR / 2,), max_age=100 * HOUR),
            hold_uncertain=self.hold_uncertain,
            log=MailLog(clock, lambda *_: None),
            clock=clock,
            random=lambda: 0.0,
        )


@contextmanager
def claimed(root: Path, name: str, *routes: ScriptedRoute, hold_uncertain: bool = False) -> Iterator[Tries]:
    """Claim a message of a spool while a block runs."""
    with Spool.open(root) as spool:
        claim = Claims(spool, lambda: NOON, "boot", lambda *_: None, lambda *_: None).claim(name)
        assert claim
        with claim.locked:
            yield Tries(claim, routes, hold_uncertain)


def statuses(state: State) -> dict[str, str]:
    """The status of each recipient, by address."""
    return {standing.address: standing.status.value for standing in state.by_address.values()}
