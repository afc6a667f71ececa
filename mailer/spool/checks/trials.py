"""What the spool needs of one host's view of its filesystem, each tried by doing it.

Each trial works in an empty directory, relative to its descriptor, and leaves its files for the caller to
remove. It returns a grade, what was found, and what to do; or raises OSError, which means that this does not
work here.
"""

import errno
import os
import statistics
from collections.abc import Callable
from stat import S_IMODE
from time import perf_counter

from mailer.mail.clock import Clock
from mailer.mail.finding import Grade
from mailer.spool.layout import FILE_MODE
from mailer.spool.syscalls import rename_without_replacing, reserve

UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
TOLERABLE = "nothing to do while only mailer's programs write there"
ELSEWHERE = "set spoolDir to another filesystem"
_ROUNDS = 9
"""How many syncs are measured; the first one may have to wake up the disk."""
_SIZE = 2048
"""Octets in a test file: the size of a small message."""
_SLOW = 0.05
"""Seconds. A disk seek takes 0.01; if a sync takes more than a few of them, clients notice it per message."""
_ODD_MOMENT = 1_700_000_001_123_456_789
"""Nanoseconds since the epoch: a time that every coarser resolution changes."""
_COARSE = 2.0
"""Seconds to which FAT keeps times; what is coarser is not known to exist."""
_ANOTHER_CLOCK = 60.0
"""Seconds between this host's clock and the times of new files. What is left in `tmp/` is removed by its age
when that is a day; a minute leaves the operator time to see a clock drift."""
_NAMES = (
    "01M82KGEY3WBBXBFP3K78QFDBH",
    "01M82KGEY3WBBXBFP3K78QFDBH.refused",
    "20261224T0600Z-scheduled",
    "20261122.jsonl",
    ".mailer-spool",
    ".token-0123456789abcdef0123.json.4194304",
    "token-0123456789abcdef0123.json.damaged",
)
"""Names of each form that the spool uses; the longest is shorter than 64 octets."""

Outcome = tuple[Grade, str, str]


def fsync(fd: int) -> Outcome:
    """A file and its name are made durable as the receiver does it, and in good time."""
    took = [_accept_one(fd, f"message-{number}") for number in range(_ROUNDS)]
    usual, worst = statistics.median(took), max(took)
    found = f"file and directory in {_ms(usual)} (median of {_ROUNDS}; slowest {_ms(worst)})"
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
        _sync(fd, "a file")
        _sync(directory, "a directory")
        return perf_counter() - began
    finally:
        os.close(fd)


def _sync(fd: int, of: str) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}, for {of}") from error


def rename(fd: int) -> Outcome:
    """A rename does not replace a file."""
    for name in ("one", "two"):
        os.close(_new_file(fd, name))
    try:
        # This first: the kernel itself refuses a target that it knows, also where the flag is missing.
        rename_without_replacing(fd, "one", "three")
        rename_without_replacing(fd, "three", "two")
    except FileExistsError:
        return Grade.OK, "never replaces a file (RENAME_NOREPLACE)", ""
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        os.rename("one", "three", src_dir_fd=fd, dst_dir_fd=fd)
        words = "works without RENAME_NOREPLACE; programs check for the target first, and then rename"
        return Grade.WARNING, words, TOLERABLE
    return Grade.PROBLEM, "RENAME_NOREPLACE replaced a file all the same", ELSEWHERE


def inode(fd: int) -> Outcome:
    """A file is known by its inode, by which programs compare what they locked with what has its path."""
    os.mkdir("elsewhere", dir_fd=fd)
    file = _new_file(fd, "here")
    try:
        opened = os.fstat(file)
        os.rename("here", "elsewhere/there", src_dir_fd=fd, dst_dir_fd=fd)
        named = os.stat("elsewhere/there", dir_fd=fd, follow_symlinks=False)
        if not (os.path.samestat(opened, named) and os.path.samestat(os.fstat(file), named)):
            words = "a file has another inode number after a rename: programs would not know what they locked"
            return Grade.PROBLEM, words, ELSEWHERE
        os.unlink("elsewhere/there", dir_fd=fd)
        if os.fstat(file).st_nlink:
            words = "a file that was removed while it was open still has a link: it could be taken for mail"
            return Grade.PROBLEM, words, ELSEWHERE
    finally:
        os.close(file)
    return Grade.OK, "numbers stay over a rename, and a removed file has no link", ""


def link(fd: int) -> Outcome:
    """Hard links work and are counted."""
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
        return Grade.WARNING, words, ELSEWHERE
    return Grade.OK, "hard links are counted", ""


def modes(fd: int) -> Outcome:
    """A file keeps the mode that it is given."""
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


def reservation(fd: int) -> Outcome:
    """Room can be reserved for the outcome of a delivery."""
    file = _new_file(fd, "reserved")
    try:
        if reserve(file, 0, _SIZE):
            return Grade.OK, "room can be reserved (fallocate)", ""
    finally:
        os.close(file)
    words = "room cannot be reserved: a disk that fills up at the wrong moment leaves a delivery in doubt"
    return Grade.WARNING, words, "keep some space free"


def names(fd: int) -> Outcome:
    """Names of the spool's forms are kept as they are."""
    os.mkdir("names", dir_fd=fd)
    for name in _NAMES:
        os.close(_new_file(fd, f"names/{name}"))
    # Opened after that: btrfs lists what there was when the directory was opened.
    directory = os.open("names", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        with os.scandir(directory) as entries:
            listed = {entry.name for entry in entries}
    finally:
        os.close(directory)
    if changed := sorted(listed ^ {*_NAMES}):
        words = f"names are not kept as they are: {', '.join(changed)}"
        return Grade.PROBLEM, words, ELSEWHERE
    return Grade.OK, "names are kept as they are", ""


def times(fd: int, clock: Clock) -> Outcome:
    """Files have the times of this host's clock, finely enough."""
    file = _new_file(fd, "times")
    try:
        os.write(file, b"x")
        off = os.fstat(file).st_mtime - clock()
        os.utime(file, ns=(_ODD_MOMENT, _ODD_MOMENT))
        lost = abs(_ODD_MOMENT - os.fstat(file).st_mtime_ns) / 1e9
    finally:
        os.close(file)
    if abs(off) > _ANOTHER_CLOCK:
        words = f"new files have the time of another clock, which differs from this host's by {off:+.0f} s"
        return Grade.WARNING, words, "let both hosts set their clocks by NTP: files are removed by their age"
    if lost >= _COARSE:
        words = f"times of files are kept to {lost:.0f} s only"
        return Grade.WARNING, words, ELSEWHERE
    return Grade.OK, f"of this host's clock, kept {_resolution(lost)}", ""


def _resolution(lost: float) -> str:
    return next(words for bound, words in _RESOLUTIONS if lost < bound)


_RESOLUTIONS = (
    (1e-9, "to the nanosecond"),
    (1e-6, "within a microsecond"),
    (1e-3, "within a millisecond"),
    (1.0, "within a second"),
    (_COARSE, "within two seconds"),
)


TRIALS: tuple[tuple[str, Callable[[int], Outcome]], ...] = (
    ("fsync", fsync),
    ("rename", rename),
    ("inode", inode),
    ("link", link),
    ("modes", modes),
    ("reserve", reservation),
    ("names", names),
)
"""By the name of the check; `times` needs a clock, too."""


def _new_file(directory: int, name: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(name, flags, FILE_MODE, dir_fd=directory)
