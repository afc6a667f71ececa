"""One command, one fault, in a new directory: did the fault come, and did everything hold?"""

import shutil
import tempfile
import traceback
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from outbound.hostile import Server

from call_faults.faults import Met, Point, met, points
from call_faults.rows import ROWS, Scene
from call_faults.world import World, moody

_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Trial:
    """What came of one.

    Attributes:
        outcome: `held`, `broken`; `missed`: threads did not count alike, and the fault did not come;
            `elsewhere`: it came at another thing than the spool or a peer.
        evidence: where to look, if something is wrong.
    """

    point: Point
    outcome: str
    wrong: list[str]
    evidence: Path | None = None


def play(row: str, directory: Path, point: Point | None = None) -> tuple[World, list[str]]:
    """Have a row's command meet a fault in a new directory; give what is wrong."""
    directory.mkdir()
    with Server({"rcpt": moody}) as hop, ExitStack() as running:
        scene = Scene(hop, running)
        world = World(directory, hop, ROWS[row].settings(scene, directory), point, scene.env)
        try:
            ROWS[row].act(world, scene)
            world.recover()
            return world, [*world.judge(), *ROWS[row].check(world, scene)]
        except Exception:  # noqa: BLE001 - what fails the harness is to be looked at, too
            return world, [*world.wrong, traceback.format_exc()]


def points_of(row: str) -> list[Point]:
    """Every fault that there is to be tried with a command."""
    with tempfile.TemporaryDirectory(dir=_place()) as name:
        Path(name).chmod(0o711)
        world, wrong = play(row, Path(name) / row)
        assert not wrong, wrong
        return points(world.trace, world.spool)


def try_at(row: str, point: Point, evidence: Path) -> Trial:
    """Put one fault at one call of a row's command."""
    with tempfile.TemporaryDirectory(dir=_place()) as name:
        Path(name).chmod(0o711)
        world, wrong = play(row, Path(name) / row, point)
        came = met(point, world.trace, world.spool)
        if came is not Met.HERE:
            return Trial(point, came.value, [])
        if not wrong:
            return Trial(point, "held", [])
        kept = evidence / f"{row}-{point}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(
            world.directory, kept, symlinks=True, ignore=shutil.ignore_patterns("*.gate", "*.sock")
        )
        return Trial(point, "broken", wrong, kept)


def _place() -> Path | None:
    return _MEMORY if _MEMORY.is_dir() else None
