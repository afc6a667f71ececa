"""Probe a filesystem: try each property that the spool relies on, and report which hold and why they matter.

It works in temporary directories that it makes and removes. No message is touched, and other programs ignore
these directories, because their names are not message ids. The sweep of `tmp/` (`run/sweep.py`) removes those
of a probe that was killed.
"""

import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import rmtree

from mailer.mail.clock import Clock
from mailer.mail.finding import Finding, Grade
from mailer.spool.checks import trials, two_clients
from mailer.spool.checks.client import Client, Here, SecondProcess
from mailer.spool.checks.trials import Outcome
from mailer.spool.filesystems import FLEETING, FOREIGN, INSTEAD, POWER_CUT, SHARED, filesystem_of, refusal
from mailer.spool.layout import HOSTS, PROBE, Place
from mailer.spool.syscalls import Mount

_UNSAFE_OPTIONS = {"nobarrier", "barrier=0", "volatile"}
"""Mount options under which fsync returns before the data is safe (ext4(5), xfs(5), overlayfs)."""


def probe(spool: Path, clock: Clock, second_mount: Path | None = None) -> list[Finding]:
    """Try what the spool needs on its filesystem, present or future.

    Args:
        spool: the spool's directory; if it does not exist yet, its nearest existing parent is probed.
        clock: the time, to compare that of new files with.
        second_mount: the spool's directory in a second mount of its filesystem, to try also what two hosts
            would see of each other.

    Everything that was made is removed again, even if a trial fails. Filesystems on which no program starts
    are probed as well, to show which properties they lack.
    """
    place = spool
    found: list[Finding] = []
    try:
        place = _where(spool)
        found.append(_filesystem(place, _mounted(place)))
        with _workshop(place) as (_, fd):
            found += _tried(str(place), fd, (*trials.TRIALS, ("times", partial(trials.times, clock=clock))))
        with _workshop(place) as (_, fd):
            found += _between_processes(str(place), fd)
        if second_mount is not None:
            found += _between_mounts(place, _same_place(spool, place, second_mount))
    except OSError as error:
        found.append(_unusable(place, error))
    return found


def _where(spool: Path) -> Path:
    """Return the directory to work in; raises OSError."""
    if (spool / Place.TMP).is_dir():
        return spool / Place.TMP
    return next(place for place in (spool, *spool.parents) if place.is_dir())


def _same_place(spool: Path, place: Path, second_mount: Path) -> Path:
    """Return the path of `place`, which is in or above the spool, in the second mount of the spool."""
    spool, second_mount = spool.absolute(), second_mount.absolute()
    if place.absolute().is_relative_to(spool):
        return second_mount / place.absolute().relative_to(spool)
    return second_mount.parents[len(spool.relative_to(place.absolute()).parts) - 1]


def _mounted(place: Path) -> Mount:
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return filesystem_of(fd)
    finally:
        os.close(fd)


_OF_THE_MOMENT = {
    errno.EROFS: "mount it for writing, or set spoolDir to another place",
    errno.ENOSPC: "make room: nothing can be accepted, and what is queued cannot be recorded as sent",
    errno.EDQUOT: "raise the quota, or make room: until then nothing is accepted, and nothing sent",
}
"""Advice for errors that say nothing about the abilities of the filesystem."""


def _unusable(place: Path, error: OSError) -> Finding:
    todo = {
        **_OF_THE_MOMENT,
        errno.EACCES: "run this as the user that the programs run as, or give it the directory with chown",
    }.get(error.errno or 0, "look at the system's log (dmesg), and at the disk")
    return Finding(str(place), "write", Grade.PROBLEM, f"nothing can be written: {error.strerror}", todo)


def _filesystem(place: Path, mount: Mount) -> Finding:
    def found(grade: Grade, words: str, todo: str = "") -> Finding:
        return Finding(str(place), "filesystem", grade, words, todo)

    name = mount.kind
    if why := refusal(name, of_hosts=any((above / HOSTS).is_dir() for above in (place, *place.parents))):
        words = f"{name}, {why}: no program starts here"
        return found(Grade.PROBLEM, words, INSTEAD)
    if name in FLEETING:
        words = f"{name}, which is in memory: mail waiting there is lost at a reboot"
        return found(Grade.WARNING, words, "set spoolDir to a disk")
    if unsafe := sorted(_UNSAFE_OPTIONS & mount.options):
        words = f"{name}, mounted with {', '.join(unsafe)}: a power cut loses mail that was accepted"
        return found(Grade.WARNING, words, "mount it without")
    if name in FOREIGN:
        words = f"{name}, another system's format: a power cut in the middle of a rename may lose the message"
        return found(Grade.WARNING, words, "set spoolDir to ext4, XFS or btrfs")
    if name in {"overlay", "fuse.fuse-overlayfs"}:
        words = f"{name}, a container's own layer: mail waiting there is lost with the container"
        return found(Grade.WARNING, words, "put the spool on a volume")
    tested = "were tested" if name in POWER_CUT else f"were tested on {', '.join(sorted(POWER_CUT))} only"
    kind = "shared by hosts that have a spool each" if name in SHARED else "local"
    return found(Grade.OK, f"{name}, {kind}; power cuts {tested}")


@contextmanager
def _workshop(place: Path) -> Iterator[tuple[str, int]]:
    """Yield the name and a descriptor of a new temporary directory, which is removed afterwards."""
    directory = tempfile.mkdtemp(prefix=PROBE, dir=place)
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield Path(directory).name, fd
        finally:
            os.close(fd)
    finally:
        rmtree(directory, ignore_errors=True)


def _tried(about: str, fd: int, wanted: Iterable[tuple[str, Callable[[int], Outcome]]]) -> Iterator[Finding]:
    for what, trial in wanted:
        yield _finding(about, what, partial(trial, fd))


def _finding(about: str, what: str, trial: Callable[[], Outcome]) -> Finding:
    try:
        return Finding(about, what, *trial())
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "")
        found = f"does not work here: {error.strerror} ({name})"
        todo = _OF_THE_MOMENT.get(error.errno or 0, "set spoolDir to a local filesystem that can")
        return Finding(about, what, Grade.PROBLEM, found, todo)


def _between_processes(about: str, fd: int) -> Iterator[Finding]:
    here = Here(fd)
    other: Client
    try:
        other = SecondProcess(fd)
    except OSError as error:
        words = (
            f"a second process cannot be started ({error.strerror}): this one did what two would have done"
        )
        yield Finding(about, "process", Grade.SKIPPED, words)
        other = Here(fd)
    yield from _compared(about, here, other, two_clients.TRIALS)


def _compared(
    about: str, one: Client, other: Client, wanted: Iterable[tuple[str, two_clients.TrialOfTwo]]
) -> Iterator[Finding]:
    try:
        for what, trial in wanted:
            yield _finding(about, what, partial(trial, one, other))
    finally:
        one.kill()
        other.kill()


def _between_mounts(place: Path, elsewhere: Path) -> Iterator[Finding]:
    """Try what two hosts see of each other's changes, in one directory of both mounts; raises OSError."""
    about = str(elsewhere)
    with _workshop(place) as (name, fd):
        try:
            second = os.open(elsewhere / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            words = f"does not show a directory that was just made in {place}: {error.strerror}"
            todo = "name the spool's directory in a second mount of the same filesystem"
            yield Finding(about, "mounts", Grade.PROBLEM, words, todo)
            return
        try:
            if os.fstat(second).st_dev == os.fstat(fd).st_dev:
                words = f"is in the same mount as {place}, and so it shows nothing of a second host"
                todo = "mount the filesystem a second time, as another client"
                yield Finding(about, "mounts", Grade.UNKNOWN, words, todo)
                return
            try:
                other = SecondProcess(second)
            except OSError as error:
                words = f"a second process cannot be started ({error.strerror})"
                yield Finding(about, "mounts", Grade.UNKNOWN, words)
                return
            yield from _compared(about, Here(fd), other, two_clients.BETWEEN_MOUNTS)
        finally:
            os.close(second)
            # If the two disagree, the first may be unable to remove what the second made.
            rmtree(elsewhere / name, ignore_errors=True)
