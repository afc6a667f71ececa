"""Run sessions of faults on hosts that share a directory, and add up their figures."""

import argparse
import fcntl
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fault_runs import record

from hosts_lab.ceph import Ceph
from hosts_lab.compare import compare
from hosts_lab.ground import Ground, Local, Shared
from hosts_lab.judge import Verdict
from hosts_lab.load import uptime
from hosts_lab.session import NAMES, Session

_OF_A_SESSION = 10
"""Rounds between two looks at the books."""


def main() -> int:
    """Run until enough rounds, minutes or messages; return 1 when a promise is broken."""
    asked = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends what was started
    say: Callable[[str], object] = lambda line: sys.stdout.write(f"{line}\n") and sys.stdout.flush()  # noqa: E731
    if asked.compare:
        with (
            tempfile.TemporaryDirectory(prefix="mailer-hosts-lab-") as base,
            tempfile.TemporaryDirectory(prefix="mailer-hosts-", dir=asked.compare) as local,
        ):
            for line in compare(Path(base), Path(local), 3):
                say(line)
        return 0
    end = uptime() + 60 * asked.minutes
    seed, rounds, messages = asked.seed, asked.rounds, 0
    part = "local" if asked.local else "cephfs"
    while rounds > 0 and uptime() < end and messages < asked.messages:
        begun = min(rounds, _OF_A_SESSION)
        base = Path(tempfile.mkdtemp(prefix=f"mailer-hosts-lab-{seed}-"))
        say(f"session of seed {seed}, {part}, in {base}")
        with _ground(asked.local, base) as ground:
            session = Session(base / "hosts", ground, seed, say, pause=asked.pause)
            with session.running(asked.clients):
                for _ in range(begun):
                    session.round(asked.kind)
                    if uptime() > end:
                        break
            verdict = session.verdict()
        say(_told(verdict))
        _add(part, verdict)
        if verdict.wrong:
            say("\n".join([*verdict.wrong[:50], f"{len(verdict.wrong)} in all; kept: {base}"]))
            return 1
        shutil.rmtree(base)
        seed, rounds, messages = seed + 1, rounds - begun, messages + verdict.acknowledged
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/hosts_lab")
    parser.add_argument("--local", type=Path)
    parser.add_argument("--compare", type=Path)
    parser.add_argument("--rounds", type=int, default=_OF_A_SESSION)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--messages", type=int, default=sys.maxsize)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--kind", choices=Shared.kinds, default="")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


@contextmanager
def _ground(local: Path | None, base: Path) -> Iterator[Ground]:
    if local:
        with tempfile.TemporaryDirectory(prefix="mailer-hosts-", dir=local) as directory:
            yield Local(Path(directory))
        return
    directory = base / "ceph"
    directory.mkdir()
    with Ceph(directory, NAMES) as ceph:
        yield Shared(ceph)


def _told(verdict: Verdict) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(verdict.faults.items()))
    return (
        f"{verdict.faults.total()} rounds ({kinds}): {verdict.acknowledged:,} acknowledged, "
        f"{verdict.lost} lost, {verdict.duplicates} arrived twice "
        f"({verdict.most_duplicates} after one fault at most), "
        f"{verdict.fenced} by a fenced host, {len(verdict.wrong)} broken promises"
    )


def _add(part: str, verdict: Verdict) -> None:
    """Add a session's figures to those of the same version of the product."""
    record.STATE.mkdir(parents=True, exist_ok=True)
    with (record.STATE / "hosts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known: dict[str, Any] = record.read().get("hosts", {}).get(part, {})
        if known.get("version") != record.version():
            known = {}
        counted = {
            "rounds": verdict.faults.total(),
            "acknowledged": verdict.acknowledged,
            "lost": verdict.lost,
            "duplicates": verdict.duplicates,
            "fenced": verdict.fenced,
            "broken": len(verdict.wrong),
        }
        faults = verdict.faults
        faults.update(known.get("faults", {}))
        figures = {
            **{name: value + known.get(name, 0) for name, value in counted.items()},
            "most": max(verdict.most_duplicates, known.get("most", 0)),
            "faults": dict(faults),
            "version": record.version(),
        }
        record.note("hosts", part, figures)


if __name__ == "__main__":
    sys.exit(main())
