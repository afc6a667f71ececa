"""From samples to tables: medians with their spread, ratios, curves; as Markdown and as JSON."""

import math
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from bench.growth import Point
from bench.servers import Again, OfPostfix
from bench.works import Sample, Work

_BAR = 40
"""Characters of the longest bar of a curve."""


def machine(parent: Path) -> dict[str, Any]:
    """What it was measured on."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)", cpuinfo, re.MULTILINE)
    mount = subprocess.run(
        ["findmnt", "--noheadings", "--output", "FSTYPE,OPTIONS", "--target", str(parent)],
        capture_output=True, text=True, check=False,
    ).stdout.split()  # fmt: skip
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "processors": os.cpu_count(),
        "model": model[1] if model else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "filesystem": " ".join(mount),
        "load": os.getloadavg()[0],
    }


@dataclass(frozen=True, slots=True)
class Figures:
    """One contestant at one work."""

    samples: Sequence[Sample]
    """In the order of the rounds."""
    rest: Sample | None

    @property
    def rate(self) -> float:
        return median(sample.rate for sample in self.samples)

    @property
    def processor(self) -> float | None:
        """Seconds for one unit; None: it was less than the system counts (10 ms in all)."""
        return median(s.processor for s in self.samples if s.processor is not None) or None

    @property
    def per_core_second(self) -> float | None:
        """Units for a second of processor time."""
        return self.processor and 1 / self.processor

    def as_json(self) -> dict[str, Any]:
        rates = [sample.rate for sample in self.samples]
        return {
            "per_core_second": self.per_core_second,
            "cpu_us_each": self.processor and self.processor * 1e6,
            "median": self.rate,
            "min": min(rates),
            "max": max(rates),
            "pss_bytes": self.rest.memory if self.rest else None,
            "syncs_per_message": self.rest.syncs if self.rest else None,
        }


@dataclass(frozen=True, slots=True)
class Row:
    """One work and everybody who did it."""

    work: Work
    figures: dict[str, Figures]
    rival: str = OfPostfix.name
    """Whom the ratios are to."""

    def ratio(self) -> float:
        """Our rate to the rival's."""
        return self.figures["mailer"].rate / self.figures[self.rival].rate

    @property
    def reached(self) -> bool:
        return self.ratio() >= self.work.wanted

    def per_core_second(self, name: str) -> tuple[float, float, float] | None:
        """Compare how much is done in a core-second with how much the rival does, or for ourselves, we do.

        Returns:
            The median, the least and the largest ratio of the pairs, one of each round; None: some figure is
            too small for the system to count.
        """
        pairs = zip(self.figures[name].samples, self.figures[self.rival].samples, strict=True)
        if name == Again.name:
            pairs = zip(self.figures[name].samples, self.figures["mailer"].samples, strict=True)
        known = [(one.processor, other.processor) for one, other in pairs]
        ratios = [theirs / ours for ours, theirs in known if ours and theirs]
        return (median(ratios), min(ratios), max(ratios)) if ratios else None

    def as_json(self) -> dict[str, Any]:
        return {
            "work": self.work.name,
            "unit": self.work.unit,
            "ratio": self.ratio(),
            "ratio_per_core_second": self.per_core_second("mailer"),
            "control": self.per_core_second(Again.name),
            "wanted": self.work.wanted,
            "reached": self.reached,
            "contestants": {name: figures.as_json() for name, figures in self.figures.items()},
        }


_HEADINGS = (
    *("work", "who", "**each core-second**", "ratio to {rival}", "CPU each"),
    *("rate: median (least to most)", "ratio to {rival}", "PSS", "syncs a message"),
)


def works_table(rows: Sequence[Row]) -> str:
    """The comparison, as Markdown."""
    lines = [
        "The headline is what a second of one processor does: messages made durable, delivered or listed, or",
        "MB. Its ratios are of pairs, one of each round: the median, and from least to most. The control is",
        f"`{Again.name}`, whose ratio is to ourselves: what it is away from 1, no other ratio can show.",
        "",
        f"| {' | '.join(_HEADINGS)} |".format(rival=rows[0].rival),
        f"|{' --- |' * len(_HEADINGS)}",
    ]
    for row in rows:
        lines += [f"| {' | '.join(_cells(row, name, figures))} |" for name, figures in row.figures.items()]
    return "\n".join(lines)


def _cells(row: Row, name: str, figures: Figures) -> Iterator[str]:
    unit, known, ours = row.work.unit, figures.as_json(), name == "mailer"
    each, cpu, memory = known["per_core_second"], known["cpu_us_each"], known["pss_bytes"]
    compared = row.per_core_second(name)
    yield row.work.name if ours else ""
    yield name
    yield f"**{each:,.0f}** {unit}" if each else ""
    yield f"{compared[0]:.2f} ({compared[1]:.2f} to {compared[2]:.2f})" if compared else ""
    yield f"{cpu:,.0f} us" if cpu else ""
    yield f"{known['median']:,.0f} ({known['min']:,.0f} to {known['max']:,.0f}) {unit}/s"
    wanted = f"**{row.ratio():.2f}**"
    if row.rival == OfPostfix.name:
        wanted += f" of {row.work.wanted:g}{'' if row.reached else ' (not reached)'}"
    yield wanted if ours else f"{figures.rate / row.figures[row.rival].rate:.2f}"
    yield f"{memory / 1e6:.0f} MB" if memory else ""
    yield f"{known['syncs_per_message']:.2f}" if known["syncs_per_message"] is not None else ""


def curves(points: Iterable[Point], what: str) -> str:
    """Draw each figure over the sizes, as Markdown; bars are linear in the figure."""
    blocks = []
    ordered = sorted(points, key=lambda point: point.figure)
    for figure, group in groupby(ordered, key=lambda point: point.figure):
        found = list(group)
        most = max(point.value for point in found) or 1
        lines = [f"{figure}, by {what}:", ""]
        for point in found:
            bar = "#" * math.ceil(_BAR * point.value / most)
            verdict = "" if point.ceiling is None else f"  (ceiling {_quantity(point.ceiling, point.unit)})"
            lines.append(f"    {point.at:>9,} {bar:<{_BAR}} {_quantity(point.value, point.unit)}{verdict}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _quantity(value: float, unit: str) -> str:
    match unit:
        case "bytes":
            return f"{value / 1e6:.0f} MB"
        case "s":
            return f"{value:.3f} s"
    return f"{value:,.0f} {unit}"


def as_json(points: Iterable[Point]) -> list[dict[str, Any]]:
    return [asdict(point) for point in points]
