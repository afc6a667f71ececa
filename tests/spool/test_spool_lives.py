"""Any order of events, with deaths between any two system calls, against a model of where each message is.

The model holds what must be seen of each message. An operation that dies may leave any state on its way, of
which the model then takes up the one that is there. Nothing else may happen: every accepted message is in
exactly one place, its journal folds to what the model knows, and only what was sent or removed vanishes.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from spools.crash import dying_at
from spools.runner import DELAY, HORIZON, attempt, claims_of, settle
from spools.strategies import NOW, envelope, receive
from spools.walk import Found, walk

from mailer.spool.directory import Spool
from mailer.spool.entry import read_entry
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import Busy
from mailer.spool.run.claim import Claim
from mailer.spool.run.operate import Operator
from mailer.spool.run.sweep import clean_tmp, requeue_due
from mailer.spool.scan import find, names, spots

pytestmark = [pytest.mark.fault_row(36), pytest.mark.exhaustive]


ADDRESSES = ("sent@example.net", "deferred@example.net", "bounced@example.net")
FINAL = {"sent", "bounced"}


@dataclass(frozen=True)
class Death:
    """Before which system call of an operation the program dies, and whether a write is cut by it."""

    at: int | None
    torn: bool


# Most operations live: else no message would come far.
deaths = st.builds(Death, st.sampled_from([None] * 7 + [0, 1, 2, 3, 4, 5, 8]), st.booleans())


@dataclass(frozen=True)
class Known:
    """What is to be seen of one message."""

    place: str
    statuses: dict[str, str]
    held: bool = False

    def moved(self, place: str) -> "Known":
        return replace(self, place=place)


def known_from(found: Found | None) -> Known | None:
    return Known(found.place, found.statuses, found.held) if found else None


def some_in(*places: str) -> Callable[["Lives"], bool]:
    """A precondition: there is a message in one of these places."""
    return lambda self: any(known.place in places for known in self.model.values())


class Lives(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="lives-")) / "spool"
        self.spool = Spool.open(self.root, create=True)
        self.operator = Operator(self.spool, "ann")
        self.now = NOW
        self.model: dict[str, Known] = {}
        self.claims: dict[str, Claim] = {}

    def teardown(self) -> None:
        for claim in self.claims.values():
            claim.locked.release()
        self.spool.close()
        shutil.rmtree(self.root.parent)

    @contextmanager
    def operation(self, death: Death, name: str, *way: Known | None) -> Iterator[None]:
        """Run an operation on a message; `way` are the states through which it goes, the last one its end.

        If it dies in the hands of a runner, so does the runner.
        """
        before = self.model.get(name)
        with dying_at(death.at, torn=death.torn) as boundary:
            yield
        seen = known_from(walk(self.root).get(name))
        assert seen in ((before, *way) if boundary.dead else way[-1:])
        if seen is None:
            self.model.pop(name, None)
        else:
            self.model[name] = seen
        if boundary.dead:
            self.bury(name)

    def draw(self, data: st.DataObject, *places: str) -> str:
        """Choose a message that is in one of these places."""
        return data.draw(
            st.sampled_from(sorted(n for n, known in self.model.items() if known.place in places))
        )

    def bury(self, name: str) -> None:
        if claim := self.claims.pop(name, None):
            claim.locked.release()

    @precondition(lambda self: len(self.model) < 3)
    @rule(
        to=st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=3, unique=True),
        size=st.sampled_from([0, 10, 200_000]),
        death=deaths,
    )
    def receive(self, to: list[str], size: int, death: Death) -> None:
        """What is acknowledged is in new/; what is not may be there too, whole."""
        self.now += 0.01  # Ids sort by arrival then, and the same choices meet the same messages again.
        before = set(walk(self.root))
        acknowledged: set[str] = set()
        with dying_at(death.at, torn=death.torn):
            acknowledged.add(receive(self.spool, bytes(size), envelope(*to), self.now))
        arrived = set(walk(self.root)) - before
        assert acknowledged <= arrived
        self.model |= {name: Known("new", dict.fromkeys(to, "pending")) for name in arrived}

    @precondition(some_in("new"))
    @rule(data=st.data(), death=deaths)
    def claim(self, data: st.DataObject, death: Death) -> None:
        self.claim_one(self.draw(data, "new"), death)

    def claim_one(self, name: str, death: Death) -> None:
        taken: list[Claim | None] = []
        with self.operation(death, name, self.model[name].moved("cur")):
            taken.append(claims_of(self.spool, self.now).claim(name))
        for claim in taken:
            assert claim
            self.claims[name] = claim

    @precondition(some_in("cur"))
    @rule(death=deaths)
    def recover(self, death: Death) -> None:
        """A new runner takes over what dead ones left, and nothing that a living one holds."""
        for name in sorted(names(self.spool, "cur")):
            if name in self.claims:
                assert claims_of(self.spool, self.now).recover(name) is None
                continue
            taken: list[Claim | None] = []
            with self.operation(death, name, self.model[name]):
                taken.append(claims_of(self.spool, self.now).recover(name))
            for claim in taken:
                assert claim
                assert walk(self.root)[name].kinds[-1] == "recovered"
                self.claims[name] = claim

    def due(self, name: str) -> set[str]:
        state = self.claims[name].locked.read().state
        return {standing.address for standing in state.due(self.now, HORIZON)}

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), death=deaths)
    def deliver(self, data: st.DataObject, death: Death) -> None:
        self.deliver_one(data.draw(st.sampled_from(sorted(self.claims))), death)

    def deliver_one(self, name: str, death: Death) -> None:
        known, due = self.model[name], self.due(name)
        if known.held or not due:
            return
        assert not {a for a in due if known.statuses[a] in FINAL}
        way = [replace(known, statuses=known.statuses | dict.fromkeys(due, "uncertain"))]
        # The outcome lines go out in one write, of which a death may leave the first ones.
        for address in ADDRESSES:
            if address in due:
                fate = {address: address.partition("@")[0]}
                way.append(replace(known, statuses=way[-1].statuses | fate))
        claim = self.claims[name]
        with self.operation(death, name, *way):
            attempt(Claim(claim.locked, claim.locked.read()), self.now)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), death=deaths)
    def settle(self, data: st.DataObject, death: Death) -> None:
        self.settle_one(data.draw(st.sampled_from(sorted(self.claims))), death)

    def settle_one(self, name: str, death: Death) -> None:
        known, claim = self.model[name], self.claims[name]
        statuses = set(known.statuses.values())
        after: Known | None
        if known.held:
            after = known.moved("hold")
        elif statuses == {"sent"}:
            after = None
        elif statuses <= FINAL:
            after = known.moved("failed")
        else:
            after = known if self.due(name) else known.moved("retry")
        with self.operation(death, name, after):
            settle(self.spool, claim, self.now)
        if after != known:
            self.bury(name)

    @precondition(some_in("new"))
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        """A message's usual life, so that enough of them come to rest somewhere."""
        name = self.draw(data, "new")
        for step in (self.claim_one, self.deliver_one, self.settle_one):
            step(name, Death(None, torn=False))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def runner_dies(self, data: st.DataObject) -> None:
        self.bury(data.draw(st.sampled_from(sorted(self.claims))))

    def operate(self, death: Death, name: str, verb: Callable[[Spot], None], *way: Known | None) -> None:
        """Let the operator do something; what a runner has in hand stays as it is."""
        (spot,) = find(self.spool, name)
        if name in self.claims:
            with pytest.raises(Busy):
                verb(spot)
            return
        with self.operation(death, name, *way):
            verb(spot)

    @precondition(some_in("new", "cur", "retry", "failed"))
    @rule(data=st.data(), death=deaths)
    def hold(self, data: st.DataObject, death: Death) -> None:
        name = self.draw(data, "new", "cur", "retry", "failed")
        held = replace(self.model[name], held=True)
        self.operate(death, name, lambda spot: self.operator.hold(spot, self.now), held, held.moved("hold"))

    @precondition(some_in("hold"))
    @rule(data=st.data(), death=deaths)
    def release(self, data: st.DataObject, death: Death) -> None:
        name = self.draw(data, "hold")
        free = replace(self.model[name], held=False)
        self.operate(death, name, lambda spot: self.operator.release(spot, self.now), free, free.moved("new"))

    @precondition(some_in("new", "cur", "retry", "hold", "failed"))
    @rule(data=st.data(), death=deaths, named=st.booleans())
    def retry(self, data: st.DataObject, death: Death, named: bool) -> None:  # noqa: FBT001 - Hypothesis passes it
        name = self.draw(data, "new", "cur", "retry", "hold", "failed")
        known = self.model[name]
        again = {a: "pending" if s == "bounced" else s for a, s in known.statuses.items()}
        anew = named or set(known.statuses.values()) <= FINAL
        opened = replace(known, statuses=again if anew else known.statuses, held=False)
        end = opened if known.place in {"new", "cur"} else opened.moved("new")
        verb = self.operator.retry if named else self.operator.hasten
        self.operate(death, name, lambda spot: verb(spot, self.now), opened, end)

    @precondition(some_in("retry", "hold", "failed"))
    @rule(data=st.data(), death=deaths)
    def remove(self, data: st.DataObject, death: Death) -> None:
        name = self.draw(data, "retry", "hold", "failed")
        self.operate(death, name, self.operator.remove, None)

    @rule(later=st.sampled_from([0.0, 60.0, DELAY + 60, 365 * 86400.0]), death=deaths)
    def sweep(self, later: float, death: Death) -> None:
        """What is due comes back to new/, and nothing else; litter in tmp/ goes."""
        self.now += later
        minute = time.strftime("%Y%m%dT%H%MZ", time.gmtime(self.now))
        # With a second name in `cur/`, which a death left, it is there, and for a runner to recover.
        resting = {name for name, known in self.model.items() if known.place == "retry"}
        due = {n for n, at in walk(self.root, ("retry",)).items() if n in resting and at.bucket <= minute}
        # Which of several it would come to is the filesystem's whim, and no example could be repeated.
        die_at = death.at if len(due) < 2 else None
        with dying_at(die_at, torn=death.torn) as boundary:
            list(requeue_due(self.spool, claims_of(self.spool, self.now), self.now, HORIZON))
            clean_tmp(self.spool, self.now)
        for name, found in walk(self.root).items():
            if name in due and found.place == "new":
                self.model[name] = self.model[name].moved("new")
            else:
                assert name not in due or boundary.dead

    @invariant()
    def every_message_is_where_and_what_the_model_says(self) -> None:
        seen = walk(self.root)
        assert {name: known_from(found) for name, found in seen.items()} == self.model
        assert all(found.intact for found in seen.values())
        met_first = sorted(spots(self.spool), key=lambda spot: spot.place is not Place.CUR)
        assert {spot.name: self.folded(spot) for spot in reversed(met_first)} == self.model

    def folded(self, spot: Spot) -> Known:
        """What our own fold says, which everybody else decides by."""
        fd = os.open(self.root / spot.path, os.O_RDONLY)
        try:
            state = read_entry(fd, spot.name).state
        finally:
            os.close(fd)
        statuses = {standing.address: standing.status.value for standing in state.standings}
        return Known(spot.place.value, statuses, bool(state.held))


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=80, stateful_step_count=60, deadline=None)
