"""What clients, destinations and the operator know of a power cut: the measure of what it left."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from power_cuts.books import Event
from power_cuts.image import Cut

SECOND = 1.0
"""A delivery in the last second before a cut may be made again: its record need not be durable yet."""
DISK = 1.0
"""Seconds that a sync may take here. What is to be durable within a second is handed to the disk after a
quarter of one; but this disk is a process of ours beside eight others, whose syncs have taken up to 0.8 s."""


@dataclass(frozen=True)
class Finding:
    """Something that must not be.

    Attributes:
        kind: which promise is broken.
        story: what happened, in sentences.
    """

    kind: str
    story: str


class Story:
    """What was promised and done before one cut, and after it.

    Attributes:
        before: what happened before the cut.
        accepted: the mail that was acknowledged before the cut, and after it.
        mail: all that was ever acknowledged, by token: of mail that no client was told of yet, too.
        orders: what the operator had ordered about each: hold, rm, nothing, or (a command ran) either.
    """

    def __init__(self, cut: Cut, promised: Sequence[Event], drained: Sequence[Event] = ()) -> None:
        """
        Args:
            cut: when it was.
            promised: all events of the recording, also those after the cut.
            drained: what happened while the programs drained the spool.
        """
        self.at = cut.at
        self.before = [event for event in promised if event.at < cut.at]
        self.accepted = [event for event in (*self.before, *drained) if event.kind == "accepted"]
        self.mail = {event.token: event for event in (*promised, *drained) if event.kind == "accepted"}
        self.orders = {event.token: self._order(event.token) for event in self.accepted}
        self._zero = next(event.at for event in promised if event.kind != "late")
        self._times: dict[tuple[str, str, str], list[float]] = {}
        for event in (*self.before, *drained):
            for to in event.to:
                self._times.setdefault((event.kind, event.token, to), []).append(event.at)

    def _order(self, token: str) -> str:
        given = [e for e in self.before if e.token == token and e.kind in {"asked", "done"}]
        if not given:
            return ""
        if given[-1].kind == "asked":
            return "either"
        return given[-1].what if given[-1].what in {"hold", "rm"} else ""

    def times(self, kind: str, token: str, to: str) -> list[float]:
        """When it happened to a recipient, before the cut and after it."""
        return self._times.get((kind, token, to), [])

    def is_late(self, kind: str, token: str, to: str) -> bool:
        """Whether it had happened so long before the cut that it is not to happen again."""
        return any(at < self.at - self.allowed for at in self.times(kind, token, to))

    @cached_property
    def allowed(self) -> float:
        """The last second, what the disk takes, and for how long there was no processor in that time."""
        allowed = SECOND + DISK
        for late in reversed([event for event in self.before if event.kind == "late"]):
            if self.at - late.at < allowed + late.seconds:
                allowed += late.seconds
        return allowed

    def of(self, mail: Event | None) -> str:
        """A message's story up to the cut."""
        if mail is None:
            return "Nobody was told of it before the cut."
        happened: dict[tuple[str, str], list[str]] = {}
        for e in (e for e in self.before if e.token == mail.token):
            what = "" if e.kind == "accepted" else e.what
            to = f"{short(e.to)} " if e.to else ""
            happened.setdefault((e.kind, what), []).append(f"{to}at {e.at - self._zero:.3f} s")
        life = "; ".join(f"{' '.join(key).strip()} {short(times)}" for key, times in happened.items())
        return f"'{mail.token}' ({mail.what}): {life}."


def short(names: Sequence[str]) -> str:
    """Not forty recipients where five say as much."""
    if len(names) <= 6:
        return ", ".join(names)
    return f"{', '.join(names[:3])}, {len(names) - 5} more, {', '.join(names[-2:])}"
