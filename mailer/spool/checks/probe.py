"""A probe of the filesystem: try each system call that the spool relies on, and report the results.

It works in a temporary directory that it makes and removes. No message is touched, and a program that reads
the spool meanwhile ignores the directory, whose name is not an id.
"""

import errno
import fcntl
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from stat import S_IMODE
from time import perf_counter

from mailer.mail.finding import Finding, Grade
from mailer.spool.filesystems import FLEETING, FOREIGN, filesystem_of, refusal
from mailer.spool.layout import FILE_MODE, Place
from mailer.spool.syscalls import Mount, rename_without_replacing, reserve

PREFIX = ".probe-"
"""The beginning of the temporary directory's name."""
_ROUNDS = 9
"""How many syncs are measured; the first one may have to wake up the disk."""
_SIZE = 2048
"""Octets in a test file: the size of a small message."""
_SLOW = 0.05
"""Seconds. A disk seek takes 0.01; if a sync takes more than a few of them, clients notice it per message."""
_UNSAFE_OPTIONS = {"nobarrier", "barrier=0", "volatile"}
"""Mount options under which fsync returns before the data is safe (ext4(5), xfs(5), overlayfs)."""


def probe(spool: Path) -> list[Finding]:
    """Try what the spool needs on its filesystem, present or future.

    Args:
        spool: the spool's directory; if it does not exist yet, its nearest existing parent is probed.

    Everything that was made is removed again, even if a trial fails.
    """
    place = spool
    try:
        place = _where(spool)
        kind = _filesystem(place, _mounted(place))
        if kind.grade is Grade.PROBLEM:
            return [kind]
        with _workshop(place) as fd:
            return [kind, *_trials(str(place), fd)]
    except OSError as error:
        return [_unusable(place, error)]


def _where(spool: Path) -> Path:
    """Return the directory to work in; raises OSError."""
    if (spool / Place.TMP).is_dir():
        return spool / Place.TMP
    return next(place for place in (spool, *spool.parents) if place.is_dir())


def _mounted(place: Path) -> Mount:
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return filesystem_of(fd)
    finally:
        os.close(fd)


def _unusable(place: Path, error: OSError) -> Finding:
    todo = {
        errno.EROFS: "mount it for writing, or set spoolDir to another place",
        errno.ENOSPC: "make room: nothing can be accepted, and what is queued cannot be recorded as sent",
        errno.EDQUOT: "raise the quota, or make room",
        errno.EACCES: "run this as the user that the programs run as, or give it the directory with chown",
    }.get(error.errno or 0, "look at the system's log (dmesg), and at the disk")
    return Finding(str(place), "write", Grade.PROBLEM, f"nothing can be written: {error.strerror}", todo)


def _filesystem(place: Path, mount: Mount) -> Finding:
    def found(grade: Grade, words: str, todo: str = "") -> Finding:
        return Finding(str(place), "filesystem", grade, words, todo)

    name = mount.kind
    if why := refusal(name):
        words = f"{name}, {why}: no program starts here"
        return found(Grade.PROBLEM, words, "set spoolDir to a local filesystem, such as ext4, XFS or btrfs")
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
    return found(Grade.OK, f"{name}, local")


@contextmanager
def _workshop(place: Path) -> Iterator[int]:
    """Yield a descriptor of a new temporary directory, which is removed afterwards with its content."""
    directory = tempfile.mkdtemp(prefix=PREFIX, dir=place)
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        rmtree(directory, ignore_errors=True)


def _trials(about: str, fd: int) -> Iterator[Finding]:
    for what, trial in _TRIALS:
        try:
            grade, found, todo = trial(fd)
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "")
            found = f"does not work here: {error.strerror} ({name})"
            yield Finding(about, what, Grade.PROBLEM, found, "set spoolDir to a local filesystem that can")
        else:
            yield Finding(about, what, grade, found, todo)


Outcome = tuple[Grade, str, str]


def _fsync(fd: int) -> Outcome:
    took = [_accept_one(fd, f"message-{number}") for number in range(_ROUNDS)]
    usual, worst = statistics.median(took), max(took)
    found = (
        f"file and directory in {usual * 1000:.2g} ms (median of {_ROUNDS}; slowest {worst * 1000:.2g} ms)"
    )
    if usual > _SLOW:
        return Grade.WARNING, f"{found}: slow", "every client waits that long for its 250; try another disk"
    return Grade.OK, found, ""


def _ms(seconds: float) -> str:
    milliseconds = seconds * 1000
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.2g} ms"


def _accept_one(directory: int, name: str) -> float:
    """Write a file as the receiver does; return how many seconds it took to make it durable."""
    fd = _new_file(directory, name)
    try:
        os.write(fd, bytes(_SIZE))
        began = perf_counter()
        os.fsync(fd)
        os.fsync(directory)
        return perf_counter() - began
    finally:
        os.close(fd)


def _rename(fd: int) -> Outcome:
    for name in ("one", "two"):
        os.close(_new_file(fd, name))
    try:
        rename_without_replacing(fd, "one", "two")
    except FileExistsError:
        rename_without_replacing(fd, "one", "three")
        return Grade.OK, "never replaces a file (RENAME_NOREPLACE)", ""
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
            raise
        os.rename("one", "three", src_dir_fd=fd, dst_dir_fd=fd)
        words = "works without RENAME_NOREPLACE; programs check for the target first, and then rename"
        return Grade.WARNING, words, "nothing to do while only mailer's programs write there"
    words = "RENAME_NOREPLACE replaced a file all the same"
    return Grade.PROBLEM, words, "set spoolDir to another filesystem"


def _flock(fd: int) -> Outcome:
    first = _new_file(fd, "locked")
    second = os.open("locked", os.O_RDWR | os.O_CLOEXEC, dir_fd=fd)
    try:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return Grade.OK, "keeps a second runner out", ""
        words = "two programs can hold an exclusive lock together: two runners would send the same mail"
        return Grade.PROBLEM, words, "set spoolDir to another filesystem"
    finally:
        os.close(second)
        os.close(first)


def _link(fd: int) -> Outcome:
    os.close(_new_file(fd, "linked"))
    try:
        os.link("linked", "again", src_dir_fd=fd, dst_dir_fd=fd)
    except OSError as error:
        words = f"hard links do not work here ({error.strerror}): this filesystem is made for other purposes"
        return (
            Grade.WARNING,
            words,
            "mailer does not need them, but ext4, XFS or btrfs is a safer place",
        )
    links = os.stat("linked", dir_fd=fd).st_nlink
    if links != 2:
        words = f"a file with two names reports {links} links: an intruder's link would not be detected"
        return Grade.WARNING, words, "set spoolDir to another filesystem"
    return Grade.OK, "hard links are counted", ""


def _modes(fd: int) -> Outcome:
    file = _new_file(fd, "mode")
    try:
        for mode in (0o640, FILE_MODE):  # one mode alone could be the same for all files here
            os.fchmod(file, mode)
            kept = S_IMODE(os.fstat(file).st_mode)
            if kept != mode:
                words = f"a file created with mode {mode:04o} has {kept:04o}: other users may read the mail"
                return Grade.PROBLEM, words, "set spoolDir to a filesystem that keeps modes"
    finally:
        os.close(file)
    return Grade.OK, "modes are kept", ""


def _reserve(fd: int) -> Outcome:
    file = _new_file(fd, "reserved")
    try:
        if reserve(file, 0, _SIZE):
            return Grade.OK, "room can be reserved (fallocate)", ""
    finally:
        os.close(file)
    words = "room cannot be reserved: a disk that fills up at the wrong moment leaves a delivery in doubt"
    return Grade.WARNING, words, "keep some space free"


_TRIALS: tuple[tuple[str, Callable[[int], Outcome]], ...] = (
    ("fsync", _fsync),
    ("rename", _rename),
    ("flock", _flock),
    ("link", _link),
    ("modes", _modes),
    ("reserve", _reserve),
)


def _new_file(directory: int, name: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(name, flags, FILE_MODE, dir_fd=directory)
