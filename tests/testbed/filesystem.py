"""Small file systems of several kinds, made, checked and mounted from image files, as root."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.tools import program

_PATIENCE = 60
"""Seconds. Each of these commands takes milliseconds; one that hangs fails its test."""


@dataclass(frozen=True)
class FileSystem:
    """One kind.

    Attributes:
        name: what we call it.
        size: of an image, in bytes; little of it is ever written.
        make: the command that makes it, to be followed by the image's path.
        check: what runs at boot before it is mounted after a crash; nothing where mounting does it all.
        options: for mount(8).
    """

    name: str
    size: int
    make: Sequence[str]
    check: Sequence[str] = ()
    options: str = ""

    def create(self, image: Path) -> None:
        """Make an empty one in a new file."""
        with image.open("xb") as file:
            file.truncate(self.size)
        _run([program(self.make[0]), *self.make[1:], str(image)])

    def repair(self, image: Path) -> None:
        """Do what is done at boot after a crash.

        Raises:
            AssertionError: it could not be repaired.
        """
        if self.check:
            # e2fsck(8): 1 means that errors were corrected, 4 that some were left.
            _run([program(self.check[0]), *self.check[1:], str(image)], fine=(0, 1))

    @contextmanager
    def mounted(self, image: Path, directory: Path) -> Iterator[Path]:
        """Mount an image (or a disk's file) on a new directory while the block runs."""
        directory.mkdir()
        options = ",".join(filter(None, ("loop", self.options)))
        _run([program("mount"), "-o", options, str(image), str(directory)])
        try:
            yield directory
        finally:
            _run([program("umount"), str(directory)])
            directory.rmdir()


def _run(argv: Sequence[str], fine: Sequence[int] = (0,)) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    assert done.returncode in fine, f"{argv} ended with {done.returncode}: {done.stdout}{done.stderr}"


_MIB = 1 << 20
# Blocks of 4 KiB, as mkfs.ext4 makes them on larger disks; inode tables at once, so that no kernel thread
# writes them beside what is tested.
_EXT4 = ("mkfs.ext4", "-q", "-b", "4096", "-E", "lazy_itable_init=0")
FILE_SYSTEMS = {
    each.name: each
    for each in (
        FileSystem("ext4", 64 * _MIB, _EXT4, ("e2fsck", "-p")),
        FileSystem("ext4 without journal", 64 * _MIB, (*_EXT4, "-O", "^has_journal"), ("e2fsck", "-f", "-y")),
        # The smallest that mkfs.xfs makes. Images of one disk have one UUID, and several are mounted at once.
        FileSystem("xfs", 320 * _MIB, ("mkfs.xfs", "-q"), (), "nouuid"),
        # As small as can be without "mixed" block groups, which nobody has on a server's disk. A transaction
        # lasts 30 s by default; shorter, several end while a test runs, and a name may be of an earlier one.
        FileSystem("btrfs", 128 * _MIB, ("mkfs.btrfs", "-q"), options="commit=8"),
    )
}
