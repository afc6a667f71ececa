"""From samples to tables: medians with their spread, ratios, curves; as Markdown and as JSON."""

import math
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from bench.growth import Point
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
    rest: Sample | None

    @property
    def rate(self) -> float:
        return median(sample.rate for sample in self.samples)

    def as_json(self) -> dict[str, Any]:
        rates = [sample.rate for sample in self.samples]
        processor = [s.processor for s in self.samples if s.processor is not None]
        return {
            "median": self.rate,
            "min": min(rates),
            "max": max(rates),
            "cpu_us_per_message": median(processor) * 1e6 if processor else None,
            "pss_bytes": self.rest.memory if self.rest else None,
            "syncs_per_message": self.rest.syncs if self.rest else None,
        }


@dataclass(frozen=True, slots=True)
class Row:
    """One work and everybody who did it."""

    work: Work
    figures: dict[str, Figures]

    def ratio(self) -> float:
        """Ours to Postfix's."""
        return self.figures["mailer"].rate / self.figures["Postfix"].rate

    @property
    def reached(self) -> bool:
        return self.ratio() >= self.work.wanted

    def as_json(self) -> dict[str, Any]:
        return {
            "work": self.work.name,
            "unit": self.work.unit,
            "ratio": self.ratio(),
            "wanted": self.work.wanted,
            "reached": self.reached,
            "contestants": {name: figures.as_json() for name, figures in self.figures.items()},
        }


def works_table(rows: Sequence[Row]) -> str:
    """The comparison, as Markdown."""
    lines = [
        "| work | who | median (least to most) | CPU a message | PSS | syncs a message | ratio to Postfix |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        for name, figures in row.figures.items():
            known = figures.as_json()
            cpu, memory, syncs = known["cpu_us_per_message"], known["pss_bytes"], known["syncs_per_message"]
            wanted = f"**{row.ratio():.2f}** of {row.work.wanted:g} {'' if row.reached else '(not reached)'}"
            cells = (
                row.work.name if name == "mailer" else "",
                name,
                f"{known['median']:,.0f} ({known['min']:,.0f} to {known['max']:,.0f}) {row.work.unit}",
                f"{cpu:.0f} us" if cpu else "",
                f"{memory / 1e6:.0f} MB" if memory else "",
                f"{syncs:.2f}" if syncs is not None else "",
                wanted.rstrip() if name == "mailer" else f"{figures.rate / row.figures['Postfix'].rate:.2f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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
