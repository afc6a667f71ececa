"""What is promised beside the mail itself, and outlasts a power cut: allowances, lists, events, `drop/`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from outbound.event_hook import hook

from power_cuts.books import Books, Event
from power_cuts.standing import Spool
from power_cuts.story import Finding, Story
from power_cuts.verdict import Aftermath

RATIONED = "few.test"
KEYED = "keyed"
"""Begins the tokens of messages with an Idempotency-Key, which is the token."""
ALLOWED = 3
"""Recipients at `RATIONED`, in a day."""
SUPPRESSED = "gone@one.test"


class _Heard(list[dict[str, Any]]):
    """Notes each event when it has been taken."""

    def __init__(self, books: Books) -> None:
        super().__init__()
        self._books = books

    def __iadd__(self, events: Any) -> Self:
        for event in events:
            self._books.note("heard", to=[event["to"]] if "to" in event else [], what=event["event"])
        return self


@contextmanager
def listener(books: Books) -> Iterator[dict[str, Any]]:
    """Run what is told of events; gives the settings that tell it."""
    with hook() as made:
        made.taken = _Heard(books)
        yield made.settings()


def broken(after: Aftermath, spool: Path) -> Iterator[Finding]:
    """Everything of this that does not hold after a cut."""
    before = [event for event in after.promised if event.at < after.cut.at]
    yield from _of_allowance(before, after.drained)
    yield from _of_list(before, after.drained)
    yield from _of_events(before, after.drained)
    if left := [path.name for path in (spool / "drop").glob("[!.]*")]:
        yield Finding("drop left", f"nobody took in {left}")


def missing(spool: Spool, story: Story) -> Iterator[Finding]:
    """Name what a power cut has taken of the files beside the mail, before any program has run on them."""
    delivered = [to for e in story.before if e.kind == "delivered" for to in e.to if to.endswith(RATIONED)]
    counted = sum(_counted(line) for line in spool.lines("state") if RATIONED in str(line.get("of")))
    if len(delivered) > counted:
        yield Finding("allowance forgotten", f"{delivered} were delivered, and {counted} are counted")
    if any((e.kind, e.token) == ("done", SUPPRESSED) for e in story.before) and not any(
        line.get("address") == SUPPRESSED for line in spool.lines("suppressed")
    ):
        yield Finding("no longer suppressed", f"{SUPPRESSED} is in no file of suppressed/")
    known = {line.get("id") for line in spool.lines("once") if line.get("event") == "accepted"}
    for mail in story.accepted:
        if mail.token.startswith(KEYED) and mail.what not in known:
            yield Finding("key forgotten", f"no file of once/ has {story.of(mail)}")


def _counted(budget: dict[str, Any]) -> int:
    """How many a file says were sent, or may have been."""
    return sum(number for _, number in budget.get("used", [])) + sum(budget.get("held", {}).values())


def _of_allowance(before: list[Event], drained: Sequence[Event]) -> Iterator[Finding]:
    taken = [to for e in (*before, *drained) if e.kind == "delivered" for to in e.to if to.endswith(RATIONED)]
    if len(taken) > ALLOWED:
        yield Finding("over the allowance", f"{taken} were delivered; {ALLOWED} are allowed")


def _of_list(before: list[Event], drained: Sequence[Event]) -> Iterator[Finding]:
    """Who was put on the suppression list gets nothing from then on."""
    listed = [e.at for e in before if (e.kind, e.token) == ("done", SUPPRESSED)]
    sent = [e for e in (*before, *drained) if e.kind == "delivered" and SUPPRESSED in e.to]
    if listed and any(e.at > listed[0] for e in sent):
        yield Finding("suppressed, and delivered", f"listed at {listed[0]}, sent at {[e.at for e in sent]}")


def _of_events(before: list[Event], drained: Sequence[Event]) -> Iterator[Finding]:
    """Each delivery after the cut is told; of those before it the power may have taken the ledger's lines."""
    heard = {to for e in (*before, *drained) if (e.kind, e.what) == ("heard", "sent") for to in e.to}
    sent = {to for e in drained if e.kind == "delivered" for to in e.to}
    if untold := sorted(sent - heard):
        yield Finding("event lost", f"nobody was told that {untold} got their mail")
