"""What a filesystem says of its free space: the only reader of statvfs(3) in the spool's rooms.

A filesystem need not know. CephFS reports -1 free inodes, btrfs 0 of 0 inodes, and a FUSE program that does
not implement statfs 0 for everything. Unknown is not none: an unknown number refuses no mail, and a write for
which there is no room fails by itself with ENOSPC.
"""

import os

import msgspec

MIN_INODES = 1000
"""With fewer, no new mail is accepted: each message is a file, and the rest of the host needs inodes, too."""


class FreeSpace(msgspec.Struct, frozen=True):
    """The free space of a filesystem, for users other than root."""

    octets: int | None
    """None if the filesystem does not say."""
    inodes: int | None
    """None if the filesystem does not say, or makes them as needed."""
    read_only: bool = False

    @property
    def lacks_inodes(self) -> bool:
        """Whether there are known to be too few inodes for new mail."""
        return self.inodes is not None and self.inodes < MIN_INODES

    def is_under(self, octets: int) -> bool:
        """Return whether fewer octets than these are known to be free."""
        return self.octets is not None and self.octets < octets


def free_space(place: int | os.PathLike[str]) -> FreeSpace:
    """Ask the filesystem of an open file, or of a path; raises OSError."""
    state = os.fstatvfs(place) if isinstance(place, int) else os.statvfs(place)
    blocks = _known(state.f_bavail, state.f_blocks)
    return FreeSpace(
        octets=None if blocks is None else blocks * state.f_frsize,
        inodes=_known(state.f_favail, state.f_files),
        read_only=bool(state.f_flag & os.ST_RDONLY),
    )


def _known(free: int, total: int) -> int | None:
    """Return a number of free units; None if it is not one of `total`: -1, also as an unsigned number."""
    return free if 0 <= free <= total and total > 0 else None
