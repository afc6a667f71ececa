"""A full, broken or read-only disk: nothing is acknowledged that is not there, nothing sent unrecorded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from spools.moves import MOVE
from spools.runner import run_once
from spools.strace import Ran, straced
from spools.strategies import NOW, accept, envelope
from spools.walk import QUEUE, only, walk
from testbed.capability import with_own_mounts

from mailer.spool.directory import Spool
from mailer.spool.incoming import Incoming

SIZE = 300_000


def fresh(root: Path) -> Path:
    Spool.open(root, create=True).close()
    return root


def check_no_second_fsync(ran: Ran) -> None:
    """After a failed fsync the kernel has dropped the pages: a second one succeeds, and lies."""
    failed: set[str] = set()
    for call in ran.calls:
        if call.name in {"fsync", "fdatasync"} and not call.path.endswith(("/new", "/cur")):
            assert call.path not in failed, call
            if call.result < 0:
                failed.add(call.path)


@pytest.mark.fault_row(4, 5)
@pytest.mark.parametrize(
    ("call", "when", "code"),
    [
        ("openat", 1, "ENOSPC"),
        ("openat", 1, "EDQUOT"),
        ("flock", 1, "ENOLCK"),
        ("write", 1, "ENOSPC"),
        ("write", 1, "EDQUOT"),
        ("write", 2, "EIO"),
        ("pwrite64", 1, "EIO"),
        ("fsync", 1, "EIO"),
        ("fsync", 1, "ENOSPC"),
        ("renameat2", 1, "EDQUOT"),
        ("renameat2", 1, "ENOSPC"),
        ("fsync", 2, "EIO"),
    ],
)
def test_what_the_disk_refused_is_neither_acknowledged_nor_left(
    tmp_path: Path, call: str, when: int, code: str
) -> None:
    """At each step of a commit; and the message after it is accepted as ever."""
    root = fresh(tmp_path / "spool")
    ran = straced(
        tmp_path / "log",
        "receive",
        str(root),
        str(SIZE),
        "10",
        "9",
        inject=(f"{call}:error={code}:when={when}",),
    )
    assert ran.said[0] == f"refused {code}"
    assert [line.split()[0] for line in ran.said[1:]] == ["accepted", "accepted"]
    assert sorted(walk(root)) == sorted(ran.said_after("accepted"))
    assert only(root, "tmp") == []
    check_no_second_fsync(ran)


@pytest.mark.parametrize(("call", "when"), [("fsync", 1), ("renameat2", 1), ("fsync", 2)])
def test_a_commit_that_cannot_be_undone_is_said_to_be_open(tmp_path: Path, call: str, when: int) -> None:
    """Neither 250 nor 451 would be the truth: the connection is dropped without a reply."""
    root = fresh(tmp_path / "spool")
    inject = (f"{call}:error=EIO:when={when}", "unlinkat:error=EROFS:when=1")
    ran = straced(tmp_path / "log", "receive", str(root), "10", inject=inject)
    assert ran.said == ["open EROFS"]
    assert [found.intact for found in walk(root, ("tmp", "new")).values()] == [True]


@pytest.mark.parametrize(
    ("call", "when", "code"),
    [
        ("openat", 3, "EMFILE"),
        (MOVE, 1, "ENOSPC"),
        ("fallocate", 1, "ENOSPC"),
        ("fallocate", 1, "EDQUOT"),
        ("write", 1, "ENOSPC"),
        ("write", 3, "EIO"),
        ("write", 3, "ENOSPC"),
        ("fdatasync", 1, "EIO"),
        ("mkdirat", 1, "ENOSPC"),
        (MOVE, 3, "EDQUOT"),
        ("fsync", 1, "EIO"),
        ("fsync", 3, "EIO"),
    ],
)
def test_a_runner_sends_nothing_that_it_has_no_room_to_record(
    tmp_path: Path, call: str, when: int, code: str
) -> None:
    """The message stays, and once the disk is well the next run ends it; nobody is mailed twice."""
    root = tmp_path / "spool"
    name = accept(root, b"x", "deferred@example.net")
    ran = straced(tmp_path / "log", "run", str(root), inject=(f"{call}:error={code}:when={when}",))
    assert sum(call.injected for call in ran.calls) == 1
    assert ran.said[-1] == f"stopped {code}"
    delivered = len(ran.said_after("delivered"))
    assert delivered == (
        0 if call in {"openat", "fallocate"} or (call, when) in {(MOVE, 1), ("write", 1)} else 1
    )
    (found,) = walk(root).values()
    assert (found.name, found.intact) == (name, True)
    check_no_second_fsync(ran)
    again: list[str] = []
    with Spool.open(root) as spool:
        run_once(spool, NOW, lambda _, address: again.append(address))
    (found,) = walk(root).values()
    assert found.place == "retry"
    assert found.statuses == {"deferred@example.net": "deferred"}
    # Only the outcome's own line may be missing, and then the file says so.
    assert len(again) == (1 if not delivered or (call, when) == ("write", 3) else 0)
    assert found.kinds.count("committing") == len(again) + delivered


def test_one_unreadable_sector_does_not_stop_the_others(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    for _ in range(3):
        accept(root, b"x", "bounced@example.net")
    ran = straced(
        tmp_path / "log", "run", str(root), inject=("pread64:error=EIO:when=1",), trace="pread64,renameat2"
    )
    assert ran.said[-1] == "done"
    assert len(only(root, "failed")) == 2
    assert len(only(root, "cur")) == 1


@pytest.mark.fault_row(7)
@pytest.mark.parametrize(
    "call", ["openat", "flock", "write", "pwrite64", "fsync", "fallocate", "fdatasync", "pread64"]
)
def test_an_interrupted_call_is_made_again(tmp_path: Path, call: str) -> None:
    """EINTR from everything that its manual page lets be interrupted."""
    trace = f"{call},renameat2"
    root = fresh(tmp_path / "spool")
    inject = f"{call}:error=EINTR:when=1"
    ran = straced(tmp_path / "log", "receive", str(root), str(SIZE), "10", inject=(inject,), trace=trace)
    assert [line.split()[0] for line in ran.said] == ["accepted", "accepted"]
    assert all(found.intact for found in walk(root).values())
    root = tmp_path / "other"
    accept(root, b"x", "deferred@example.net")
    ran = straced(tmp_path / "log", "run", str(root), inject=(inject,), trace=trace)
    assert ran.said[-1] == "done"
    assert len(only(root, "retry")) == 1


@pytest.mark.fault_row(7)
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_short_writes_make_complete_files(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """write(2) takes a few bytes at a time, as after a signal."""
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, bytes(data[:size])))
    message = b"0123456789" * 500
    name = accept(spool_path, message, "deferred@example.net")
    with Spool.open(spool_path) as spool:
        run_once(spool, NOW)
    found = walk(spool_path)[name]
    assert (found.place, found.intact, found.message) == ("retry", True, message)
    assert found.kinds == ["accepted", "committing", "deferred"]


def test_a_length_written_in_part_is_an_error(spool_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real_pwrite(fd, data[:3], at))
    with Spool.open(spool_path, create=True) as spool:
        incoming = Incoming.create(spool, received=NOW, user="", peer="", envelope=envelope())
        incoming.write(bytes(SIZE))
        with pytest.raises(OSError, match="in part"):
            incoming.seal(NOW)
        incoming.discard()
    assert walk(spool_path, ("tmp", *QUEUE)) == {}


def mounted(options: str, program: str) -> list[str]:
    """Run a program with its argument a fresh tmpfs of its own."""
    script = f'd=$(mktemp -d) && mount -t tmpfs -o {options},mode=700 none "$d" && exec "$0" -c "$1" "$d"'
    done = subprocess.run(
        [*with_own_mounts(), "sh", "-c", script, sys.executable, program],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


FULL = """
import sys
from pathlib import Path
from spools.programs import receive_one
from spools.runner import run_once
from spools.strategies import NOW
from spools.walk import walk
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool
root = Path(sys.argv[1], "spool")
spool = Spool.open(root, create=True)
committer = Committer(spool).start()
said = []
while not said or said[-1].startswith("accepted"):
    said.append(receive_one(spool, committer, b"x" * SIZE))
print(said[-1])
queue = walk(root, ("new", "tmp"))
assert sorted(queue) == sorted(line.split()[1] for line in said[:-1])
assert all(found.intact and len(found.message) == SIZE for found in queue.values())
print(len(queue) > 0)
for name in list(queue)[:2]:
    (root / "new" / name).unlink()
print(receive_one(spool, committer, b"x" * SIZE).split()[0])
committer.close()
"""


@pytest.mark.fault_row(4, 7)
@pytest.mark.parametrize("options", ["size=2m", "size=64m,nr_inodes=40"], ids=["no space", "no inodes"])
def test_a_really_full_disk_refuses_and_recovers(options: str) -> None:
    """A tmpfs of two megabytes fills in the middle of a write, which stops short."""
    assert mounted(options, FULL.replace("SIZE", "300_000")) == ["refused ENOSPC", "True", "accepted"]


READ_ONLY = """
import subprocess, sys
from pathlib import Path
from spools.programs import receive_one
from spools.runner import run_once
from spools.strategies import NOW, envelope, receive
from spools.walk import only, walk
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool
root = Path(sys.argv[1], "spool")
spool = Spool.open(root, create=True)
name = receive(spool, b"x", envelope("deferred@example.net"))
committer = Committer(spool).start()
subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
print(receive_one(spool, committer, b"y"))
mailed = []
try:
    run_once(spool, NOW, lambda *delivery: mailed.append(delivery))
except OSError as error:
    print(error.strerror, mailed)
subprocess.run(["mount", "-o", "remount,rw", sys.argv[1]], check=True)
assert [found.name for found in only(root, "new")] == [name]
print(receive_one(spool, committer, b"y").split()[0])
run_once(spool, NOW, lambda *delivery: mailed.append(delivery))
print(sorted(address for _, address in mailed), walk(root)[name].place)
committer.close()
"""


@pytest.mark.fault_row(8)
def test_a_filesystem_that_turns_read_only_refuses_mail_and_sends_none() -> None:
    """Remounted while the spool is open; when it is writable again all goes on."""
    assert mounted("size=4m", READ_ONLY) == [
        "refused EROFS",
        "Read-only file system []",
        "accepted",
        "['bob@example.net', 'deferred@example.net'] retry",
    ]
