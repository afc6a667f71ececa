"""What two mounts of one filesystem see of each other: what is wrong is told, and by its name."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from testbed.capability import with_own_mounts
from testbed.relay import Relay

from mailer.mail.finding import Grade
from mailer.spool.checks.probe import probe
from mailer.spool.directory import Spool

_MOUNTS = str(Path(__file__).parents[1] / "testbed" / "fuse_passthrough.py")
_PROBE = """
import json, sys, time
from pathlib import Path
from mailer.spool.checks.probe import probe
one, other = Path(sys.argv[1]), Path(sys.argv[2])
for directory in ("", "tmp"):
    (one / "spool" / directory).mkdir()
found = probe(one / "spool", time.time, other / "spool")
print(json.dumps([[each.about, each.what, each.grade, each.found] for each in found]))
"""
Told = dict[tuple[str, str], tuple[str, str]]


def probed(directory: Path, faults: str = "") -> Told:
    """Grade and words by mount and check, of a spool that is looked at from two mounts with these faults."""
    source, one, other = (directory / name for name in ("source", "one", "other"))
    for each in (source, one, other):
        each.mkdir()
    command = (*with_own_mounts(), sys.executable, _MOUNTS, "fuse.novel", str(source), str(one), str(other))
    environment = {**os.environ, "FUSE_FAULTS": faults}
    done = subprocess.run(
        (*command, sys.executable, "-c", _PROBE, str(one), str(other)),
        env=environment, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Names that a mount does not show cannot be removed there.
    assert {"odd-names", "unseen"} & {*faults.split()} or not list((source / "spool" / "tmp").iterdir())
    return {
        (Path(about).relative_to(directory).parts[0], what): (grade, words)
        for about, what, grade, words in json.loads(done.stdout)
    }


def test_two_mounts_that_agree_are_fine(tmp_path: Path) -> None:
    told = probed(tmp_path)
    assert {what for mount, what in told if mount == "other"} == {
        "create", "rename", "append", "visibility", "flock"
    }  # fmt: skip
    assert {check for check, (grade, _) in told.items() if grade != "ok"} == {("one", "filesystem")}


@pytest.mark.parametrize(
    ("faults", "mount", "what", "words"),
    [
        ("local-locks", "other", "flock", "two programs can hold an exclusive lock together"),
        ("kept-locks", "one", "flock", "a lock that was released is not free"),
        ("blind-append", "other", "append", "200 lines that two programs appended"),
        ("stale", "other", "visibility", "does not see at once: a new file (20 of 20 times)"),
        ("unseen not-exclusive", "other", "create", "64 of 64 names were given to both"),
        ("unseen replacing", "other", "rename", "64 of 64 names were given to both"),
        ("moving-inodes", "one", "inode", "has another inode number after a rename"),
        ("undead", "one", "inode", "removed while it was open still has a link"),
        ("odd-names", "one", "names", "names are not kept as they are"),
    ],
)
def test_what_two_mounts_cannot_do_is_reported(
    tmp_path: Path, faults: str, mount: str, what: str, words: str
) -> None:
    grade, found = probed(tmp_path, faults)[mount, what]
    assert grade == "problem"
    assert words in found


def test_a_second_path_of_the_same_mount_is_no_second_mount(spool_path: Path) -> None:
    Spool.open(spool_path, create=True).close()
    path = spool_path.with_name("path")
    path.symlink_to(spool_path)
    [told] = [each for each in probe(spool_path, time.time, path) if each.what == "mounts"]
    assert (told.grade, "is in the same mount" in told.found) == (Grade.UNKNOWN, True)


def test_another_directory_is_no_second_mount(spool_path: Path, tmp_path: Path) -> None:
    Spool.open(spool_path, create=True).close()
    [told] = [each for each in probe(spool_path, time.time, tmp_path) if each.what == "mounts"]
    assert (told.grade, "does not show a directory that was just made" in told.found) == (Grade.PROBLEM, True)


def test_a_second_mount_is_found_for_a_spool_that_is_to_be_made(relay: Relay) -> None:
    """The nearest directory that exists is compared, by way of the same number of parents."""
    second = relay.directory / "second" / "deep"
    second.mkdir(parents=True)
    done = relay.mailer("doctor", "--offline", "--json", "--second-mount", str(second))
    found = [json.loads(line) for line in done.stdout.splitlines()]
    [told] = [each for each in found if each["what"] == "mounts"]
    assert told["about"].startswith(f"{second.parent}")
    assert told["grade"] == "problem"


def test_a_missing_flag_of_rename_is_no_problem_for_the_other_trials(tmp_path: Path) -> None:
    told = probed(tmp_path, "no-noreplace")
    assert told["one", "rename"][0] == told["other", "rename"][0] == "warning"
    assert told["other", "visibility"][0] == told["other", "append"][0] == "ok"
