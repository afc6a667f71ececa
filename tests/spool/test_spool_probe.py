"""The spool's self-test: what a filesystem cannot do is seen, and nothing is left behind."""

import os
import signal
import time
from pathlib import Path

import pytest
from spools.disk_faults import remounted
from spools.states import Queue
from testbed.capability import tracer, with_own_mounts
from testbed.doctor_findings import examined
from testbed.relay import Relay

from mailer.mail.finding import Grade
from mailer.spool.checks import probe
from mailer.spool.directory import Spool
from mailer.spool.layout import PROBE
from mailer.spool.run.sweep import STALE, clean_tmp
from mailer.spool.state.pause import pause
from mailer.spool.syscalls import Mount, mount_of
from mailer.spool.view import waiting
from mailer.spool.view.examine import directories, space
from mailer.spool.view.waiting import Signs, judge, queue

MiB = 2**20


def grades(findings) -> dict[str, Grade]:
    return {finding.what: finding.grade for finding in findings}


def test_a_disk_that_can_do_everything_is_fine_and_as_it_was(spool_path: Path) -> None:
    Spool.open(spool_path, create=True).close()
    before = sorted(spool_path.rglob("*"))
    found = probe.probe(spool_path, time.time)
    assert set(grades(found)) == {
        *("filesystem", "fsync", "rename", "inode", "link", "modes", "reserve", "names", "times"),
        *("create", "append", "flock"),
    }
    assert not {grade for what, grade in grades(found).items() if what != "filesystem"} - {Grade.OK}
    assert sorted(spool_path.rglob("*")) == before


def test_without_a_spool_its_future_place_is_tried(spool_path: Path) -> None:
    assert {finding.about for finding in probe.probe(spool_path / "deeper", time.time)} == {
        str(spool_path.parent)
    }
    assert not spool_path.exists()


@pytest.mark.parametrize(
    ("what", "inject", "grade", "words"),
    [
        ("fsync", "fsync:error=EIO", "problem", "Input/output error, for a file (EIO)"),
        ("fsync", "fsync:delay_exit=60000", "warning", "slow"),
        ("rename", "renameat2:error=EINVAL", "warning", "without RENAME_NOREPLACE"),
        ("rename", "renameat2:retval=0", "problem", "replaced a file"),
        ("flock", "flock:retval=0", "problem", "two programs can hold"),
        ("flock", "flock:error=ENOLCK", "problem", "No locks available"),
        ("link", "linkat:error=EPERM", "warning", "hard links do not work"),
        ("modes", "fchmod:retval=0", "problem", "mode 0640 has 0600"),
        ("reserve", "fallocate:error=EOPNOTSUPP", "warning", "cannot be reserved"),
        ("fsync", "fsync:error=EINVAL:when=2", "problem", "Invalid argument, for a directory (EINVAL)"),
        ("times", "utimensat:retval=0", "warning", "kept to"),
        ("inode", "renameat:error=EXDEV", "problem", "Invalid cross-device link (EXDEV)"),
    ],
)
def test_what_a_filesystem_cannot_do_is_reported(
    relay: Relay, tmp_path: Path, what: str, inject: str, grade: str, words: str
) -> None:
    Spool.open(relay.spool, create=True).close()
    call = inject.partition(":")[0]
    strace = (tracer(), "-f", "-o", str(tmp_path / "log"), "-e", f"trace={call}", "-e", f"inject={inject}")
    found = examined(relay, strace)
    assert found[what][0] == grade
    assert words in found[what][1]
    assert not list((relay.spool / "tmp").glob(f"{PROBE}*"))


def test_a_quota_that_is_used_up_is_not_a_filesystem_that_cannot(relay: Relay, tmp_path: Path) -> None:
    """Btrfs gives EDQUOT for renames, too, which it does as any other."""
    Spool.open(relay.spool, create=True).close()
    inject = "inject=renameat2,renameat,rename:error=EDQUOT"
    strace = (tracer(), "-f", "-o", str(tmp_path / "log"), "-e", "trace=/rename", "-e", inject)
    told = relay.mailer("doctor", "--offline", under=strace).stdout
    assert "rename" in told
    assert "raise the quota" in told
    assert "filesystem that can" not in told


def test_what_a_killed_doctor_leaves_the_sweep_removes_once_it_is_old(relay: Relay, tmp_path: Path) -> None:
    Spool.open(relay.spool, create=True).close()
    killed = (tracer(), "-o", str(tmp_path / "log"), "-f", "-e", "inject=fsync:signal=KILL")
    assert relay.mailer("doctor", "--offline", under=killed).returncode == -signal.SIGKILL
    [left] = (relay.spool / "tmp").glob(f"{PROBE}*")
    assert list(left.iterdir())
    assert relay.mailer("spool", "fsck").returncode == 0
    (left / "names").mkdir()
    (left / "names" / "name").touch()
    for age, there in ((STALE - 60, True), (STALE + 60, False)):
        os.utime(left, (moment := time.time() - age, moment))
        with Spool.open(relay.spool) as spool:
            assert clean_tmp(spool, None) == clean_tmp(spool, time.time()) == []
        assert left.exists() == there


def test_where_no_second_process_starts_one_does_what_two_would(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's own Python may lie in /root, where the spool's owner cannot read it."""
    Spool.open(spool_path, create=True).close()
    monkeypatch.setattr("sys.executable", str(spool_path / "nothing"))
    found = grades(probe.probe(spool_path, time.time))
    assert found["process"] is Grade.SKIPPED
    assert (found["create"], found["append"], found["flock"]) == (Grade.OK, Grade.OK, Grade.OK)


def test_times_of_another_clock_are_reported(spool_path: Path) -> None:
    Spool.open(spool_path, create=True).close()
    [times] = [each for each in probe.probe(spool_path, lambda: time.time() + 7200) if each.what == "times"]
    assert times.grade is Grade.WARNING
    assert "differs from this host's by -7200 s" in times.found


def test_a_spool_that_cannot_be_written_is_a_problem(relay: Relay) -> None:
    Spool.open(relay.spool, create=True).close()
    found = examined(relay, remounted(relay, "ro"))
    assert found["write"] == ("problem", "nothing can be written: Read-only file system")


def test_a_full_disk_is_a_problem(relay: Relay) -> None:
    """One megabyte, which is less than `minFreeSpace`, and none of it free."""
    relay.spool.mkdir(0o700)
    script = (
        f"mount -t tmpfs -o size=1m,mode=0700 none {relay.spool}"
        f"; touch {relay.spool}/.mailer-spool"
        f'; dd if=/dev/zero of={relay.spool}/filler bs=4k 2>/dev/null; exec "$@"'
    )
    found = examined(relay, (*with_own_mounts(), "sh", "-c", script, "sh"))
    assert found["filesystem"][0] == "warning"
    assert "lost at a reboot" in found["filesystem"][1]
    assert found["space"][0] == "problem"
    assert found["fsync"] == ("problem", "does not work here: No space left on device (ENOSPC)")


@pytest.mark.parametrize(
    ("mount", "grade", "words"),
    [
        (Mount("ext4", frozenset({"rw", "relatime"})), Grade.OK, "ext4, local"),
        (Mount("nfs4"), Grade.PROBLEM, "over a network"),
        (Mount("cifs"), Grade.PROBLEM, "over a network"),
        (Mount("tmpfs"), Grade.WARNING, "lost at a reboot"),
        (Mount("ext4", frozenset({"rw", "nobarrier"})), Grade.WARNING, "mounted with nobarrier"),
        (Mount("overlay"), Grade.WARNING, "lost with the container"),
        (Mount("fuseblk"), Grade.WARNING, "another system's format"),
        (Mount("fuse.sshfs"), Grade.PROBLEM, "over a network"),
        (Mount("fuse.novel"), Grade.PROBLEM, "not known to be reliable"),
    ],
)
def test_kinds_of_filesystems_are_told_apart(tmp_path: Path, mount: Mount, grade: Grade, words: str) -> None:
    finding = probe._filesystem(tmp_path, mount)
    assert (finding.grade, words in finding.found) == (grade, True)


def test_options_of_the_mount_and_of_the_filesystem_are_read(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text("22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,nobarrier\n")
    assert mount_of(0x801, str(mountinfo)) == Mount("ext4", frozenset({"rw", "relatime", "nobarrier"}))
    assert mount_of(0x802, str(mountinfo)) == Mount()


@pytest.mark.parametrize("place", ["", "new", "log"])
def test_a_directory_that_others_can_enter_is_reported_and_not_changed(spool_path: Path, place: str) -> None:
    Spool.open(spool_path, create=True).close()
    (spool_path / place).chmod(0o755)
    [finding] = directories(spool_path)
    assert (finding.what, finding.grade) == ("modes", Grade.WARNING)
    assert "chmod 0700" in finding.todo
    assert (spool_path / place).stat().st_mode & 0o777 == 0o755


def test_something_else_in_the_place_of_a_directory_is_a_problem(spool_path: Path) -> None:
    Spool.open(spool_path, create=True).close()
    (spool_path / "hold").rmdir()
    (spool_path / "hold").write_text("")
    assert grades(directories(spool_path)) == {"owner": Grade.PROBLEM}
    assert grades(queue(spool_path, 0.0)) == {"queue": Grade.SKIPPED}


def test_another_users_spool_is_a_problem(spool_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Spool.open(spool_path, create=True).close()
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    [finding] = directories(spool_path)
    assert (finding.grade, "belongs to user" in finding.found) == (Grade.PROBLEM, True)


def test_too_little_space_is_a_problem_and_little_a_warning(spool_path: Path) -> None:
    [free, *_] = space(spool_path, 0)
    assert free.grade is Grade.OK
    assert grades(space(spool_path, 2**62))["space"] is Grade.PROBLEM


@pytest.mark.parametrize(
    ("signs", "grade", "words"),
    [
        (Signs(late=0, claimed=0, idle=None), Grade.SKIPPED, "no run yet"),
        (Signs(late=0, claimed=0, idle=30), Grade.OK, "last run 30s ago"),
        (Signs(late=20, claimed=0, idle=30), Grade.OK, "mail has been ready for 20s"),
        (Signs(late=1000, claimed=0, idle=30), Grade.WARNING, "the runner cannot keep up"),
        (Signs(late=1000, claimed=3, idle=9000), Grade.WARNING, "the runner cannot keep up"),
        (Signs(late=0, claimed=0, idle=9000), Grade.WARNING, "no runner is active, and new mail would wait"),
        (Signs(late=1000, claimed=0, idle=9000), Grade.PROBLEM, ": no runner is active"),
        (Signs(late=1000, claimed=0, idle=None), Grade.PROBLEM, ": no runner is active"),
    ],
)
def test_whether_anybody_sends_is_judged_by_what_lies_about(signs: Signs, grade: Grade, words: str) -> None:
    finding = judge(signs, "spool")
    assert (finding.grade, words in finding.found) == (grade, True), finding


def test_what_is_ready_and_what_is_in_hand_is_seen(spool_path: Path) -> None:
    spool = Queue(spool_path)
    now = waiting.os.stat(spool_path).st_ctime
    assert waiting._signs(spool.spool, now).late == 0
    message = spool.new(received=now - 86_400)
    assert 900 < waiting._signs(spool.spool, now + 1000).late < 1100
    spool.defer(message, "451 no", seconds=60.0)
    assert waiting._signs(spool.spool, now).late == 0
    assert 700 < waiting._signs(spool.spool, now + 1000).late < 1000
    with spool.claimed(spool.new()):
        assert waiting._signs(spool.spool, now).claimed == 1
    assert waiting._signs(spool.spool, now).claimed == 0


def test_what_waits_for_the_operator_is_counted(spool_path: Path) -> None:
    spool = Queue(spool_path)
    for days in (3, 9):
        spool.fail(spool.new(received=1.8e9 - days * 86_400), "550 no")
    spool.hold(spool.new(received=1.8e9), "why not")
    found = {finding.what: finding for finding in queue(spool_path, 1.8e9)}
    assert (found["failed"].grade, found["hold"].grade) == (Grade.WARNING, Grade.WARNING)
    assert found["failed"].found == "2 given up; the oldest came 9d ago"
    assert found["hold"].found == "1 held; the oldest came 0s ago"
    assert found["corrupt"].grade is Grade.OK
    assert "mailer spool ls --state failed" in found["failed"].todo


def test_a_pause_is_not_taken_for_a_missing_runner(spool_path: Path) -> None:
    spool = Queue(spool_path)
    spool.new()
    pause(spool.spool, 0.0, "alice")
    [runner, *_] = queue(spool_path, 4e9)
    assert (runner.grade, "paused by alice" in runner.found) == (Grade.WARNING, True)
