"""Claiming: who holds a file's lock owns the message, and what a runner may not have it does not get."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from spools.runner import attempt, claims_of, run_once, settle
from spools.strategies import NOW, accept
from spools.syncs import Fsyncs
from spools.walk import only, walk

from mailer.spool import locked_message
from mailer.spool.directory import Spool
from mailer.spool.journal import Event, Kind
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import Busy, Gone, LockedMessage
from mailer.spool.message_state import Disposition
from mailer.spool.run.claim import POISON_AFTER, Claims
from mailer.spool.run.operate import Operator
from mailer.spool.syscalls import boot_id

HOLDER = """
import sys
from pathlib import Path
from spools.runner import attempt, claims_of, settle
from mailer.spool.directory import Spool
spool = Spool.open(Path(sys.argv[1]))
claim = claims_of(spool, 1.8e9).claim(sys.argv[2])
print("claimed", flush=True)
sys.stdin.readline()
attempt(claim, 1.8e9)
print(settle(spool, claim, 1.8e9), flush=True)
"""


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def start_holder(root: Path, name: str) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert holder.stdout
    assert holder.stdout.readline() == "claimed\n"
    return holder


def test_a_claim_moves_to_cur_and_is_verified(spool_path: Path) -> None:
    name = accept(spool_path, b"hello", "sent@example.net")
    with Spool.open(spool_path) as spool:
        claim = claims_of(spool, NOW).claim(name)
        assert claim
        with claim.locked:
            assert (claim.id, claim.recovered, claim.suspect, claim.poison) == (name, False, False, False)
            assert claim.locked.read_message(claim.entry, 0, 100) == b"hello"
            assert claim.locked.read_message(claim.entry, 3, 100) == b"lo"
            assert claim.locked.read_message(claim.entry, 5, 100) == b""
            assert [found.name for found in only(spool_path, "cur")] == [name]


@pytest.mark.parametrize("other", ["", "another's", "ours"])
def test_a_file_that_moves_between_being_opened_and_locked_is_not_taken(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """Who has the lock of what the path does not name any more has nothing: it may name another file."""
    name = accept(spool_path, b"x", "sent@example.net")
    path, lock = spool_path / "new" / name, locked_message.lock

    def moved_first(fd: int) -> bool:
        path.rename(spool_path / "hold" / name)
        if other == "ours":
            path.write_bytes((spool_path / "hold" / name).read_bytes())
        elif other:
            path.write_text("another's")
        return lock(fd)

    monkeypatch.setattr(locked_message, "lock", moved_first)
    with Spool.open(spool_path) as spool, pytest.raises(Gone):
        LockedMessage.lock(spool, Spot(Place.NEW, name))
    assert path.exists() == bool(other)


def test_a_file_that_shrinks_while_it_is_sent_is_no_end_of_the_message(spool_path: Path) -> None:
    """What is sent then would end early, with a dot, or lie in the Maildir as if it were all."""
    name = accept(spool_path, b"hello\r\n" * 10_000, "sent@example.net")
    with Spool.open(spool_path) as spool:
        claim = claims_of(spool, NOW).claim(name)
        assert claim
        with claim.locked:
            os.truncate(spool_path / "cur" / name, 40_000)
            assert len(claim.locked.read_message(claim.entry, 0, 1_000)) == 1_000
            for offset in (39_000, 50_000):
                with pytest.raises(OSError, match="shorter than its message"):
                    claim.locked.read_message(claim.entry, offset, 10_000)


def test_what_has_moved_on_is_simply_not_to_be_had(spool_path: Path) -> None:
    name = accept(spool_path)
    with Spool.open(spool_path) as spool:
        claims = claims_of(spool, NOW)
        claim = claims.claim(name)
        assert claim
        assert claims.claim(name) is None
        assert claims.recover(name) is None, "its runner lives: it is us"
        claim.locked.release()


def test_a_file_that_moved_between_opening_and_locking_is_gone(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is then on a file that lies elsewhere: the path no longer names the inode."""
    name = accept(spool_path)
    real_open = os.open

    def slow_open(path: str, *args: int, **keywords: int) -> int:
        fd = real_open(path, *args, **keywords)
        if path == f"new/{name}":
            (spool_path / "new" / name).rename(spool_path / "hold" / name)
            (spool_path / "new" / name).write_bytes(b"another file under the same name")
        return fd

    with Spool.open(spool_path) as spool:
        monkeypatch.setattr(os, "open", slow_open)
        with pytest.raises(Gone):
            LockedMessage.lock(spool, Spot(Place.NEW, name))


def test_a_file_that_was_removed_between_opening_and_locking_is_gone(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = accept(spool_path)
    real_open = os.open

    def slow_open(path: str, *args: int, **keywords: int) -> int:
        fd = real_open(path, *args, **keywords)
        (spool_path / "new" / name).unlink(missing_ok=True)
        return fd

    with Spool.open(spool_path) as spool:
        monkeypatch.setattr(os, "open", slow_open)
        with pytest.raises(Gone):
            LockedMessage.lock(spool, Spot(Place.NEW, name))


@pytest.mark.fault_row(12)
def test_a_stopped_runner_keeps_its_claim_and_goes_on_with_it(spool_path: Path) -> None:
    """SIGSTOP for however long; there are no leases that could run out."""
    name = accept(spool_path, b"x", "sent@example.net")
    holder = start_holder(spool_path, name)
    with holder, Spool.open(spool_path) as spool:
        assert holder.stdin
        assert holder.stdout
        os.kill(holder.pid, signal.SIGSTOP)
        assert os.WIFSTOPPED(os.waitpid(holder.pid, os.WUNTRACED)[1])
        later = NOW + 10 * 365 * 86400
        assert claims_of(spool, later).recover(name) is None
        operator = Operator(spool, "ann")
        spot = Spot(Place.CUR, name)
        for verb in (operator.hold, operator.retry):
            with pytest.raises(Busy):
                verb(spot, later)
        with pytest.raises(Busy):
            operator.remove(spot)
        os.kill(holder.pid, signal.SIGCONT)
        holder.stdin.write("go\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "finish\n"
    assert walk(spool_path) == {}


def test_a_killed_runners_claim_is_free_at_once(spool_path: Path) -> None:
    name = accept(spool_path, b"x", "sent@example.net")
    holder = start_holder(spool_path, name)
    with holder, Spool.open(spool_path) as spool:
        holder.kill()
        holder.wait()
        claim = claims_of(spool, NOW).recover(name)
        assert claim
        assert claim.recovered
        assert only(spool_path, "cur")[0].kinds == ["accepted", "recovered"]
        claim.locked.release()


def test_a_message_that_kills_every_runner_is_tried_alone_and_then_held(spool_path: Path) -> None:
    """Innocents claimed beside it are not blamed: only deaths alone with it count."""
    name = accept(spool_path)
    with Spool.open(spool_path) as spool:
        claims = claims_of(spool, NOW)
        claim = claims.claim(name)
        assert claim
        deaths = 0
        while not claim.poison:
            assert claim.suspect == (deaths >= 2)
            if claim.suspect:
                claims.mark_alone(claim)
            claim.locked.release()  # The runner died.
            deaths += 1
            claim = claims.recover(name)
            assert claim
        assert deaths == 2 + POISON_AFTER
        claim.locked.append(Event(at="2026-11-22T21:45:01Z", event=Kind.HELD, reason="poison"))
        assert settle(spool, claim, NOW) is Disposition.HOLD
    assert only(spool_path, "hold")[0].events[-1]["reason"] == "poison"


def test_deaths_in_another_boot_do_not_count(spool_path: Path) -> None:
    """A machine that loses its power five times does not make the mail it carried poison."""
    name = accept(spool_path)
    with Spool.open(spool_path) as spool:
        first = claims_of(spool, NOW).claim(name)
        assert first
        first.locked.release()
        for boot in range(5):
            claims = Claims(spool, lambda: NOW, f"boot {boot}", lambda *_: None, lambda *_: None)
            claim = claims.recover(name)
            assert claim
            assert not claim.suspect
            claims.mark_alone(claim)
            claim.locked.release()


def test_a_runner_does_not_call_itself_dead_because_the_disk_was_full(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not write that it gave the message back; when there is room again, it goes on with it."""
    name = accept(spool_path)

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Spool.open(spool_path) as spool:
        claims = claims_of(spool, NOW)
        for take in (claims.claim, claims.recover):
            claim = take(name)
            assert claim
            assert not claim.died
            with monkeypatch.context() as patch:
                patch.setattr(os, "write", full)
                claims.give_back(claim)
            claim.locked.release()
        assert only(spool_path, "cur")[0].kinds == ["accepted"]
        other = claims_of(spool, NOW).recover(name)
        assert other
        assert other.died
        other.locked.release()


def test_appending_after_a_torn_line_ends_that_line_first(spool_path: Path) -> None:
    """Else the new line would be lost with the torn one: a message sent would be sent again."""
    name = accept(spool_path, b"x", "sent@example.net")
    path = spool_path / "new" / name
    with path.open("ab") as file:
        file.write(b'{"at":"2026-11-22T21:45:01Z","event":"sen')
    with Spool.open(spool_path) as spool:
        claim = claims_of(spool, NOW).claim(name)
        assert claim
        assert claim.entry.torn
        attempt(claim, NOW)
        found = only(spool_path, "cur")[0]
        assert found.kinds == ["accepted", "committing", "sent"]
        claim.locked.release()
        # And by somebody who has not read the file first, as recovery does.
        with (spool_path / "cur" / name).open("ab") as file:
            file.write(b"{")
        recovered = claims_of(spool, NOW).recover(name)
        assert recovered
        recovered.locked.release()
    assert only(spool_path, "cur")[0].kinds == ["accepted", "committing", "sent", "recovered"]


def test_a_line_that_was_cut_by_a_full_disk_is_ended_by_the_next(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = accept(spool_path, b"x", "sent@example.net")
    real_write = os.write
    with Spool.open(spool_path) as spool:
        claim = claims_of(spool, NOW).claim(name)
        assert claim
        written: list[int] = []

        def full_disk(fd: int, data: bytes) -> int:
            if written:
                raise OSError(28, "No space left on device")
            written.append(real_write(fd, bytes(data)[:20]))
            return 20

        deferred = Event(at="2026-11-22T21:45:01Z", event=Kind.DEFERRED, to=("sent@example.net",))
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full_disk)
            with pytest.raises(OSError, match="No space left"):
                claim.locked.append(deferred)
        attempt(claim, NOW)
        assert only(spool_path, "cur")[0].kinds == ["accepted", "committing", "sent"]
        settle(spool, claim, NOW)
    assert walk(spool_path) == {}


def test_a_copy_in_cur_does_not_stop_the_runner(spool_path: Path) -> None:
    """Somebody's `cp cur/ID new/`: it is left where it is and reported, and the others flow."""
    name = accept(spool_path, b"x", "deferred@example.net")
    (spool_path / "cur" / name).write_bytes((spool_path / "new" / name).read_bytes())
    other = accept(spool_path, b"y", "sent@example.net")
    skipped: list[tuple[Spot, str]] = []
    with Spool.open(spool_path) as spool:
        claims = claims_of(spool, NOW, lambda spot, reason: skipped.append((spot, reason)))
        assert claims.claim(name) is None
        assert [spot for spot, _ in skipped] == [Spot(Place.NEW, name)]
        claim = claims.claim(other)
        assert claim
        claim.locked.release()
        # Its lock was given up again.
        LockedMessage.lock(spool, Spot(Place.NEW, name)).release()


def test_a_copy_in_corrupt_does_not_stop_the_runner(spool_path: Path) -> None:
    """An operator copied a quarantined file back: unreadable as it is, it cannot be put away twice.

    That is told once, however often it is looked at, and nobody is said to have died.
    """
    name = accept(spool_path)
    path = spool_path / "new" / name
    path.write_bytes(path.read_bytes().replace(b"hello", b"hallo"))
    (spool_path / "corrupt" / name).write_bytes(path.read_bytes())
    skipped: list[Spot] = []
    with Spool.open(spool_path) as spool:
        before = open_descriptors()
        claims = claims_of(spool, NOW, lambda spot, _: skipped.append(spot))
        assert claims.claim(name) is None
        for _ in range(3):
            assert claims.recover(name) is None
        assert skipped == [Spot(Place.CUR, name)]
        assert only(spool_path, "cur")[0].kinds == ["accepted", "returned"]
        assert open_descriptors() == before


def test_a_copy_in_new_does_not_stop_the_sweep(spool_path: Path) -> None:
    name = accept(spool_path, b"x", "deferred@example.net")
    original = (spool_path / "new" / name).read_bytes()
    skipped: list[Spot] = []
    with Spool.open(spool_path) as spool:
        run_once(spool, NOW)
        (spool_path / "new" / name).write_bytes(original)
        bucket = only(spool_path, "retry")[0].bucket
        claims = claims_of(spool, NOW, lambda spot, _: skipped.append(spot))
        assert not claims.requeue_due(Spot(Place.RETRY, name, bucket))
        assert skipped == [Spot(Place.RETRY, name, bucket)]


def test_releasing_twice_closes_nothing_else(spool_path: Path) -> None:
    """A descriptor number is reused at once: a second close would free somebody else's lock."""
    name = accept(spool_path)
    with Spool.open(spool_path) as spool:
        locked = LockedMessage.lock(spool, Spot(Place.NEW, name))
        locked.release()
        reused = os.open(spool_path, os.O_RDONLY)
        locked.release()
        os.fstat(reused)
        os.close(reused)


def test_the_boot_id_is_read_where_the_kernel_tells_it(tmp_path: Path) -> None:
    (tmp_path / "boot_id").write_text("c0ffee\n")
    assert boot_id(tmp_path / "boot_id") == "c0ffee"
    assert boot_id(tmp_path / "none") == ""


def test_after_a_sync_that_failed_no_later_one_is_believed(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel drops what it could not write and says so once: a second sync would succeed, and lie."""
    name = accept(spool_path)
    with Spool.open(spool_path) as spool, LockedMessage.lock(spool, Spot(Place.NEW, name)) as message:
        message.append(Event(at="2026-11-22T21:45:01Z", event=Kind.HELD, reason="look at it"))
        fsyncs = Fsyncs(monkeypatch)
        fsyncs.failing.add(f"new/{name}")
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error"):
                message.sync()
            fsyncs.failing.clear()
    assert fsyncs.paths == [f"new/{name}"]
