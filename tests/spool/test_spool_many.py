"""Many runners on one spool: each message is claimed once, and each attempt is one."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from spools.strategies import accept
from spools.walk import walk

from mailer.spool.layout import Place

pytestmark = pytest.mark.fault_row(11)

RUNNERS = 64
MESSAGES = 300

PROGRAM = """
import os, sys
from pathlib import Path
from spools.runner import run_once
from spools.strategies import NOW
from mailer.spool.directory import Spool
gate_read, gate_write = os.pipe()
for runner in range(int(sys.argv[2])):
    if os.fork() == 0:
        os.close(gate_write)
        spool = Spool.open(Path(sys.argv[1]))
        os.read(gate_read, 1)  # All begin at once: the gate opens by closing.
        run_once(spool, NOW, lambda name, address: os.write(1, f"{name} {address}\\n".encode()))
        os._exit(0)
os.close(gate_write)
sys.exit(sum(os.wait()[1] for _ in range(int(sys.argv[2]))))
"""


def run_many(root: Path) -> Counter[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(root), str(RUNNERS)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert not done.stderr
    return Counter(done.stdout.splitlines())


def test_64_runners_deliver_each_message_once(spool_path: Path) -> None:
    kinds = ("sent", "deferred", "bounced")
    fates = {
        accept(spool_path, b"x", f"{kind}@example.net"): kind for kind in kinds for _ in range(MESSAGES // 3)
    }
    deliveries = run_many(spool_path)
    assert deliveries == Counter(f"{name} {kind}@example.net" for name, kind in fates.items())
    queue = walk(spool_path, tuple(Place))
    assert {name: found.place for name, found in queue.items()} == {
        name: {"deferred": "retry", "bounced": "failed"}[kind]
        for name, kind in fates.items()
        if kind != "sent"
    }
    assert all(found.kinds == ["accepted", "committing", fates[name]] for name, found in queue.items())


def test_64_runners_recover_each_dead_runners_message_once(spool_path: Path) -> None:
    names = [accept(spool_path, b"x", "deferred@example.net") for _ in range(100)]
    for name in names:
        (spool_path / "new" / name).rename(spool_path / "cur" / name)
    assert set(run_many(spool_path).values()) == {1}
    queue = walk(spool_path)
    assert sorted(queue) == sorted(names)
    assert all(found.kinds == ["accepted", "recovered", "committing", "deferred"] for found in queue.values())
