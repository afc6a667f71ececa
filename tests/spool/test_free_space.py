"""A filesystem that does not say what is free has room until a write fails."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from testbed.capability import with_own_mounts

_MOUNT = str(Path(__file__).parents[1] / "testbed" / "fuse_mount.py")
_ASK = """
import json, sys
from pathlib import Path
from mailer.receive.space import Space
from mailer.sendmail import drop
from mailer.sendmail.failure import Failure
from mailer.spool.directory import Spool
from mailer.spool.view.examine import space
from mailer.spool.view.obstacles import _disk
place = Path(sys.argv[1])
with Spool.open_unchecked(place) as spool:
    receiver = Space(spool, min_free=1 << 20, max_queued=0, now=lambda: 0.0)
    told = {"receiver": receiver.shortage(1), "runner": bool(_disk(spool))}
told["doctor"] = {finding.what: finding.grade.value for finding in space(place, 1 << 20)}
try:
    drop.hand_over(str(place), ["MAIL FROM:<>"], b"")
except Failure as failure:
    told["sendmail"] = "nearly full" in str(failure)
print(json.dumps(told))
"""
CEPH = "4096 4096 4096 22 -1"
CEPH_32 = f"4096 4096 4096 22 {2**32 - 1}"
BTRFS = "1000000 1000000 1000000 0 0"
SILENT = "0 0 0 0 0"


def asked(place: Path, statfs: str) -> dict[str, Any]:
    """Return what each program makes of a filesystem with this answer to statfs(2)."""
    place.mkdir()
    command = (*with_own_mounts(), sys.executable, _MOUNT, "fuse", str(place), sys.executable, "-c", _ASK)
    environment = {**os.environ, "FUSE_STATFS": statfs, "FUSE_MODE": "3733"}
    done = subprocess.run(
        (*command, str(place)), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("statfs", [CEPH, CEPH_32, BTRFS])
def test_inodes_that_are_not_known_are_no_shortage(tmp_path: Path, statfs: str) -> None:
    """CephFS says -1; a receiver that took it for none answered 452 to everything."""
    assert asked(tmp_path / "place", statfs) == {
        "receiver": "", "runner": False, "doctor": {"space": "ok"}, "sendmail": False
    }  # fmt: skip


def test_space_that_is_not_known_is_no_shortage_and_the_doctor_says_so(tmp_path: Path) -> None:
    assert asked(tmp_path / "place", SILENT) == {
        "receiver": "", "runner": False, "doctor": {"space": "skipped"}, "sendmail": False
    }  # fmt: skip


def test_none_that_is_known_is_a_shortage(tmp_path: Path) -> None:
    full = asked(tmp_path / "full", "1000000 0 0 0 0")
    assert full["receiver"].startswith("0 MiB free, 1 MiB wanted")
    assert (full["runner"], full["doctor"], full["sendmail"]) == (True, {"space": "problem"}, True)
    few = asked(tmp_path / "few", "1000000 1000000 1000000 100000 999")
    assert few["receiver"] == "fewer than 1000 inodes are free"
    assert (few["runner"], few["doctor"]["inodes"], few["sendmail"]) == (False, "problem", True)
