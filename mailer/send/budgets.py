"""A run's share of the budgets: reserved in small batches, used, and given back; see `mail/budget`.

Mail without a budget never comes here, and costs no look at the disk.
"""

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from mailer.config.hops import Provider
from mailer.config.model import Config
from mailer.mail.budget import Counted, Room, Terms, WhenUsedUp
from mailer.mail.clock import Clocks
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Scope
from mailer.send.phase import Phase
from mailer.send.trouble import HopTrouble, Resting, SessionLost
from mailer.spool.layout import Spool
from mailer.spool.state.budgets import BudgetFile, Holder, Unavailable

PATIENCE = 61.0
"""Seconds that a message waits in hand for its budget at most, a minute's window with what rounding adds."""
_MOST_WAITING = 50
"""Messages of a run that wait in hand for one budget, at most: each keeps its file open."""
LOOK = 1.0
"""Seconds between looks at a budget that is used up: others may give back what they did not need."""
_FLUSH = 2.0
"""Seconds until what was used and is not needed is written, if nothing is reserved before."""


class Spent(Resting):
    """A budget is used up; nothing was tried."""

    def __init__(
        self, purse: "Purse", reason: str, *, until: float, seconds: float, waits: bool, short: bool
    ) -> None:
        """Keep what the attempt needs.

        Args:
            purse: of the budget.
            reason: for the operator.
            until: when to ask again, in seconds since the epoch.
            seconds: the same from now.
            waits: the mail waits, even if another provider could take it.
            short: it may wait in hand.
        """
        when = datetime.fromtimestamp(until, UTC)
        text = f"not tried before {when:%Y-%m-%d %H:%M:%SZ}, since {reason}"
        super().__init__(purse.hop, Phase.CONNECT, text, scope=Scope.PROVIDER, until=until)
        self.purse = purse
        self.reason = reason
        self.seconds = seconds
        self.waits = waits
        self.short = short


class Purse:
    """What this run holds of one budget."""

    def __init__(
        self, file: BudgetFile, hop: str, name: str, holder: Callable[[], str], clocks: Clocks
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            file: the budget's record.
            hop: as outcomes name it.
            name: what the operator calls it.
            holder: names this run, see `spool.budgets.Holder`.
            clocks: what time it is.
        """
        self._file = file
        self.hop = hop
        self._name = name
        self._holder = holder
        self._clocks = clocks
        self._turn = asyncio.Lock()
        self._unused = 0
        """Reserved, and in nobody's hand."""
        self._out = 0
        """In the hands of messages."""
        self._used: list[tuple[float, int]] = []
        """Not written yet."""
        self._room: Room | None = None
        """What was last seen to be left, if nothing was."""
        self._why = ""
        """Why nothing was, if not because it is used up."""
        self._look_at = -math.inf
        """When to ask the file again."""
        self._booked = -math.inf
        """When the next message that cannot wait in hand has its turn, as far as this run knows."""
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._waiting = 0
        self.ends = False
        """The run does: nothing waits in hand any more."""

    @property
    def terms(self) -> Terms:
        return self._file.terms

    @property
    def closed_for(self) -> float:
        """Seconds until something may be taken; 0: now. Looks at the file, at most once a second."""
        if self._unused:
            return 0.0
        now = self._clocks.uptime()
        if now >= self._look_at:
            self._saw(self._file.look(), now)
        if self._room is None:
            return LOOK if self._waiting else 0.0
        return max(0.0, self._room.at - now)

    async def take(self, want: int) -> int:
        """Take as many recipients as may be sent now, one at least.

        Raises:
            Spent: none may.
            OSError: it cannot be recorded.
        """
        if self.terms.counted is Counted.MESSAGES:
            await self._take(1)
            return want
        return await self._take(want)

    async def _take(self, want: int) -> int:
        async with self._turn:
            if not self._unused:
                await self._reserve(want)
            count = min(want, self._unused)
            self._unused -= count
            self._out += count
            return count

    def give_back(self, recipients: int) -> None:
        """Return what was taken for so many: their transaction did not begin."""
        count = self._counts(recipients)
        self._out -= count
        self._unused += count
        self._write_soon()

    def settle(self, recipients: int) -> None:
        """The transaction with so many has ended."""
        count = self._counts(recipients)
        self._out -= count
        self._used.append((self._clocks.uptime(), count))
        self._write_soon()

    def _counts(self, recipients: int) -> int:
        return 1 if self.terms.counted is Counted.MESSAGES else recipients

    async def _reserve(self, want: int) -> None:
        now = self._clocks.uptime()
        if self._room and now < self._look_at:
            raise self._spent(now)
        used, self._used = self._used, []
        try:
            count, room = await asyncio.to_thread(
                self._file.take, self._holder(), max(want, self.terms.reserve), used, self._out
            )
        except Unavailable as unavailable:
            self._used += used
            self._saw(Room(0, now + LOOK, None), now, str(unavailable))
            raise self._spent(now) from unavailable
        except BaseException:
            self._used += used  # It may be on the disk; counted twice is better than not at all.
            raise
        self._unused += count
        now = self._clocks.uptime()
        self._saw(None if count else room, now)
        if not count:
            raise self._spent(now)

    def _saw(self, room: Room | None, now: float, why: str = "") -> None:
        self._why = why
        self._room = room if room and not room.free else None
        self._look_at = min(self._room.at, now + LOOK) if self._room else now + LOOK

    def _spent(self, now: float) -> Spent:
        room = self._room or Room(0, now + LOOK, None)
        wait = max(0.0, room.at - now)
        short = wait <= PATIENCE and self._waiting < _MOST_WAITING and not self.ends
        if not short and self.terms.when_used_up is WhenUsedUp.WAIT:
            self._booked = max(self._booked, room.at) + self.terms.pause
            wait = self._booked - now
        reason = self._why or f"the allowance of {self._name} ({room.limit}, {self.terms.counted}) is used up"
        until = self._clocks.wall() + wait
        waits = self.terms.when_used_up is WhenUsedUp.WAIT
        return Spent(self, reason, until=until, seconds=wait, waits=waits, short=short)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count a message among those that wait in hand."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def _write_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH, self._flush)

    def _flush(self) -> None:
        self._timer = None
        self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        """Write what was used, and give back what nobody takes; what cannot be written is kept."""
        async with self._turn:
            if not self._used and not self._unused:
                return
            used, self._used = self._used, []
            unused, self._unused = self._unused, 0
            try:
                await asyncio.to_thread(self._file.put, self._holder(), used, self._out)
            except OSError:
                self._used += used
                self._unused += unused
                self._write_soon()
            except BaseException:
                self._used += used
                raise

    async def close(self) -> None:
        """Give back what is left, if it can be written."""
        if self._timer:
            self._timer.cancel()
        if self._writing:
            await self._writing
        await self._write()
        if self._timer:
            self._timer.cancel()


class Permit:
    """What one transaction takes of each budget that concerns it, for `with`."""

    def __init__(self, purses: Sequence[Purse], recipients: int) -> None:
        """Keep what was taken; args: recipients: how many."""
        self._purses = purses
        self.recipients = recipients
        self.unasked = 0
        """Of these, how many the transaction was not for in the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What broke before MAIL was not counted by anybody. A request that an interface refused for our
        # account (429 among others) may have been, and then it asks for a pause, which is kept. Counted here
        # as well, a few of them would use up a day's recipients though nobody was sent anything.
        unheard = isinstance(error, HopTrouble) and not isinstance(error, SessionLost)
        for purse in self._purses:
            if unheard:
                purse.give_back(self.recipients)
                continue
            purse.settle(self.recipients - self.unasked)
            if self.unasked and purse.terms.counted is Counted.RECIPIENTS:
                purse.give_back(self.unasked)


async def permit(purses: Sequence[Purse], want: int) -> Permit:
    """Take of each budget as many recipients as all of them allow.

    Raises:
        Spent: one allows none; nothing is taken.
        OSError: as `Purse.take`.
    """
    taken: list[tuple[Purse, int]] = []
    count = want
    try:
        for purse in purses:
            count = await purse.take(count)
            taken.append((purse, count))
    except BaseException:
        for purse, some in taken:
            purse.give_back(some)
        raise
    for purse, some in taken:
        if some > count and purse.terms.counted is Counted.RECIPIENTS:
            purse.give_back(some - count)
    return Permit(purses, count)


class Budgets:
    """The budgets of a run, as an async context manager: on exit it gives back what it holds."""

    def __init__(self, config: Config, spool: Spool, clocks: Clocks, trusts: Callable[[], bool]) -> None:
        """Prepare; nothing is opened yet."""
        self._spool = spool
        self._clocks = clocks
        self._trusts = trusts
        self._holder: Holder | None = None
        self._purses: dict[str, Purse] = {}
        self._domains = [budget for budget in config.domain_budgets if budget.terms]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for purse in self._purses.values():
            await purse.close()
        if self._holder:
            self._holder.close()

    def purse(self, of: str, terms: Terms, hop: str, name: str) -> Purse | None:
        """Return the purse of a budget; None: everything is allowed.

        Args:
            of: what its record is kept by.
            terms: what is allowed.
            hop: as outcomes name it.
            name: what the operator calls it.
        """
        if not terms:
            return None
        if of not in self._purses:
            file = BudgetFile(self._spool, of, terms, self._clocks.read, self._trusts)
            self._purses[of] = Purse(file, hop, name, self._name, self._clocks)
        return self._purses[of]

    def of_provider(self, provider: Provider, hop: str) -> Purse | None:
        """Return a provider's purse; args: hop: as outcomes name it."""
        return self.purse(provider.account, provider.terms, hop, provider.label)

    def of_domain(self, domain: str) -> Purse | None:
        """Return the purse of the first budget that covers a recipient domain."""
        for budget in self._domains:
            if budget.covers(domain):
                return self.purse(budget.record, budget.terms, budget.domains[0], budget.label)
        return None

    def split(self, groups: Sequence[Sequence[Recipient]]) -> list[tuple[Sequence[Recipient], Purse | None]]:
        """Divide groups of recipients so that each has one domain's budget, or none."""
        if not self._domains:
            return [(group, None) for group in groups]
        divided: list[tuple[Sequence[Recipient], Purse | None]] = []
        for group in groups:
            parts: dict[Purse | None, list[Recipient]] = {}
            for recipient in group:
                domain = recipient.address.rpartition("@")[2].lower()
                parts.setdefault(self.of_domain(domain), []).append(recipient)
            divided += [(part, purse) for purse, part in parts.items()]
        return divided

    def end_waits(self) -> None:
        """Have messages that wait in hand go to `retry/` within a second: the run ends."""
        for purse in self._purses.values():
            purse.ends = True

    def _name(self) -> str:
        if self._holder is None:
            self._holder = Holder(self._spool)
        return self._holder.name
