"""Three hosts on CephFS beside three hosts on a local directory, in turn: their rate, and a client's wait."""

from collections.abc import Iterator
from pathlib import Path
from statistics import median

from hosts_lab.ceph import Ceph
from hosts_lab.ground import Local, Shared
from hosts_lab.load import uptime
from hosts_lab.session import NAMES, Session

_SECONDS = 12.0
_BUSY = 8
"""Clients at each host for the rate; for the wait it is one."""


def compare(base: Path, local: Path, turns: int) -> Iterator[str]:
    """Measure in turn, so that both meet the same load of the machine; yield lines for a report.

    Args:
        base: a new directory, for logs and Ceph's configuration.
        local: a directory on a local disk, for spools.
        turns: how often each is measured.
    """
    (base / "ceph").mkdir()
    rates, waits = [], []
    with Ceph(base / "ceph", NAMES) as ceph:
        for turn in range(turns):
            found = {}
            for name in ("cephfs", "local"):
                (shared := local / f"{turn}").mkdir(exist_ok=True)
                ground = Shared(ceph, f"mail-{turn}") if name == "cephfs" else Local(shared)
                found[name] = _measured(base / f"{name}-{turn}", ground, turn)
                rate, wait = found[name]
                yield f"{name}: {rate:.0f} messages a second, {1000 * wait:.0f} ms for one"
            rates.append(found["cephfs"][0] / found["local"][0])
            waits.append(found["cephfs"][1] / found["local"][1])
    yield (
        f"cephfs to local, medians of {turns}: {median(rates):.2f} of the rate ({min(rates):.2f} to "
        f"{max(rates):.2f}), {median(waits):.1f} times the wait ({min(waits):.1f} to {max(waits):.1f})"
    )


def _measured(directory: Path, ground: Local | Shared, turn: int) -> tuple[float, float]:
    """Return messages a second through all three hosts, and seconds until one is acknowledged."""
    quiet = Session(directory / "quiet", ground, 2 * turn, str)
    with quiet.running(1):
        quiet.work(_SECONDS)
    busy = Session(directory / "busy", ground, 2 * turn + 1, str)
    with busy.running(_BUSY):
        busy.work(_SECONDS / 4)
        before, began = busy.flow.look(), uptime()
        busy.work(_SECONDS)
        rate = (busy.flow.look() - before) / (uptime() - began)
    return rate, median(quiet.flow.waits)
