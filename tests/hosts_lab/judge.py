"""What must not be, by what clients, the next hop and `mailer spool ls` say; the ledger is not asked."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hosts_lab.load import Moment

FENCED_AFTER = 35.0
"""Seconds after the begin of an epoch (`mailer guide several-hosts`)."""
_LAG = 1.0
"""Seconds between a final dot and its durable record: without that it is in doubt."""


@dataclass
class Fault:
    """What happened to a host, in seconds since boot."""

    kind: str
    host: str
    adopter: str
    at: float
    epoch: float = float("inf")
    """When the epoch of the adopter had begun."""
    back: float = float("inf")
    """When the host joined again."""
    doubts: int = 0
    """Messages that it may have at their final dots without a record."""
    loses_a_second: bool = False
    """Whether records that were not synced yet are lost, as in a power cut: those of the second before."""

    def excuses(self, dot: Moment) -> bool:
        """Tell whether the host may not have recorded this final dot."""
        return dot.host == self.host and self.at - _LAG <= dot.at <= self.epoch + FENCED_AFTER

    def forbids(self, moment: Moment) -> bool:
        """Tell whether the host might do nothing any more."""
        return moment.host == self.host and self.epoch + FENCED_AFTER < moment.at < self.back


@dataclass
class Verdict:
    """What a session has shown."""

    acknowledged: int = 0
    delivered: int = 0
    lost: int = 0
    duplicates: int = 0
    most_duplicates: int = 0
    """Of one fault."""
    fenced: int = 0
    """What a host did after it was fenced."""
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def judge(
    acknowledged: Iterable[Moment], dots: Iterable[Moment], faults: list[Fault], left: Iterable[str]
) -> Verdict:
    """Return what must not be, and the figures.

    Args:
        acknowledged: what the clients were told.
        dots: what the next hop got.
        faults: what happened to the hosts.
        left: what is in the spools at the end.
    """
    verdict = Verdict(faults=Counter(fault.kind for fault in faults))
    copies: dict[str, list[Moment]] = defaultdict(list)
    for dot in dots:
        copies[dot.mark].append(dot)
    verdict.delivered = len(copies)
    verdict.wrong += [f"{each} is left in a spool" for each in left]
    for moment in acknowledged:
        verdict.acknowledged += 1
        if moment.mark not in copies:
            verdict.lost += 1
            verdict.wrong.append(f"{moment.mark} was acknowledged by {moment.host}, and never arrived")
        verdict.wrong += _fenced(verdict, moment, faults, "acknowledged")
    for same in copies.values():
        for dot in same:
            verdict.wrong += _fenced(verdict, dot, faults, "delivered")
    verdict.wrong += _duplicates(verdict, copies.values(), faults)
    return verdict


def _duplicates(verdict: Verdict, copies: Iterable[list[Moment]], faults: list[Fault]) -> Iterator[str]:
    all_of_one: Counter[int] = Counter()
    excused: Counter[int] = Counter()
    for same in copies:
        for dot in sorted(same)[:-1]:
            verdict.duplicates += 1
            number = next((number for number, fault in enumerate(faults) if fault.excuses(dot)), None)
            if number is None:
                yield f"{dot.mark} arrived again, and {dot.host} had no trouble: {same}"
                continue
            all_of_one[number] += 1
            if dot.at >= faults[number].at or not faults[number].loses_a_second:
                excused[number] += 1
    for number, count in excused.items():
        if count > faults[number].doubts:
            yield f"{count} messages arrived again after {faults[number]}"
    verdict.most_duplicates = max(all_of_one.values(), default=0)


def _fenced(verdict: Verdict, moment: Moment, faults: list[Fault], what: str) -> Iterator[str]:
    for fault in faults:
        if fault.forbids(moment):
            verdict.fenced += 1
            late = moment.at - fault.epoch
            yield f"{moment.mark} was {what} by {moment.host} {late:.1f} s after the epoch of {fault.adopter}"
