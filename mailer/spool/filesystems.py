"""Filesystems that a spool may be on: those known to be written by this machine alone.

The spool relies on flock(2), on rename(2) as one step, and on fsync(2). If another machine can access the
same files, each of these may mean something else: a lock may hold only here, the other machine may see half
of a rename, and a sync may reach only a cache. A list of such filesystems would never be complete, so this is
a list of the local ones. To allow another one, run `mailer doctor` and a power cut on it, and add it to
`LOCAL`.
"""

import os

from mailer.ground.libc import libc as _libc
from mailer.spool.syscalls import Mount, mount_at, mount_of

_DISK, _MEMORY, _STACKED, _FOREIGN, _READ_ONLY = range(5)

LOCAL = {
    # Suitable: POSIX modes, links and locks, an atomic rename, and a sync that reaches the disk.
    "ext2": _DISK,
    "ext3": _DISK,
    "ext4": _DISK,
    "xfs": _DISK,
    "btrfs": _DISK,
    "zfs": _DISK,
    "f2fs": _DISK,
    "bcachefs": _DISK,
    "jfs": _DISK,
    "reiserfs": _DISK,
    "reiser4": _DISK,
    "nilfs2": _DISK,
    "ubifs": _DISK,
    "jffs2": _DISK,
    # Suitable until the power fails; `mailer doctor` warns.
    "tmpfs": _MEMORY,
    "ramfs": _MEMORY,
    "rootfs": _MEMORY,
    # Each call is passed on to the filesystem below, which is local in all but unusual set-ups.
    # fuse-overlayfs is the overlay of containers without root.
    "overlay": _STACKED,
    "aufs": _STACKED,
    "ecryptfs": _STACKED,
    "fuse.fuse-overlayfs": _STACKED,
    # Local disks in another system's format: locks are the kernel's own, and fsync writes. A power cut may
    # tear a rename, and modes or links may be missing; `mailer doctor` says which. `fuseblk` is FUSE over a
    # block device of this machine, such as ntfs-3g.
    "fuseblk": _FOREIGN,
    "ntfs3": _FOREIGN,
    "ntfs": _FOREIGN,
    "exfat": _FOREIGN,
    "vfat": _FOREIGN,
    "msdos": _FOREIGN,
    "hfsplus": _FOREIGN,
    "udf": _FOREIGN,
    # Read-only: opening the spool for writing gives the better error message.
    "squashfs": _READ_ONLY,
    "erofs": _READ_ONLY,
    "iso9660": _READ_ONLY,
    "cramfs": _READ_ONLY,
}

SHARED = {"fuse.ceph-fuse"}
"""Filesystems over a network that hosts may share if each has a directory of its own (`host`).

Tested with two mounts by `scripts/hosts_lab`: each host writes and locks only in its own directory, so that
no promise depends on what another host sees of a lock or an append; an evicted host stays out.
"""
POWER_CUT = {"ext4", "xfs", "btrfs"}
"""Those whose power was cut while mail was accepted and sent (`tests/end_to_end/test_power_cut.py`)."""
FLEETING = {kind for kind, sort in LOCAL.items() if sort == _MEMORY}
FOREIGN = {kind for kind, sort in LOCAL.items() if sort == _FOREIGN}

INSTEAD = (
    "set spoolDir to a directory on a local filesystem, such as ext4, XFS or btrfs; "
    "`mailer guide several-hosts` says what several hosts can share"
)
"""What to do about a filesystem that is refused."""
_NETWORK = "a filesystem over a network"
_UNRELIABLE = "whose locks and syncs are not reliable enough for a spool"
_REASONS = {
    f"{_NETWORK}, {_UNRELIABLE}": """
        smbfs ncpfs afs coda lustre beegfs gpfs orangefs pvfs2 wekafs
        fuse.sshfs fuse.davfs fuse.s3fs fuse.rclone fuse.gcsfuse fuse.juicefs fuse.mfs fuse.moosefs
        fuse.curlftpfs fuse.blobfuse2 fuse.seaweedfs""",
    # Seen with two mounts of NFSv4.2, Linux 6.1 at both ends; RFC 8881 section 8.4.
    f"{_NETWORK}, where a rename reports an error although it was done if the server restarts meanwhile, and "
    "where a lock ends with its lease while its holder goes on": "nfs nfs4",
    # mount.cifs(8): `nobrl`, and caching by oplocks and leases that the server may break at any time.
    f"{_NETWORK}, whose locks and modes depend on the server and on mount options": "cifs smb2 smb3",
    # Seen in public reports; its vendor has ended it.
    f"{_NETWORK} that has granted one lock to two clients after a disconnect": "glusterfs fuse.glusterfs",
    # Seen with ceph-fuse 16: `mailer doctor --second-mount`.
    f"{_NETWORK}, where two hosts that append to one file overwrite lines; with `host` each has its own": (
        "fuse.ceph-fuse"
    ),
    f"{_NETWORK}, whose client in the kernel has not been tested": "ceph fuse.ceph",
    f"a filesystem that several machines write to, {_UNRELIABLE}": "ocfs2 gfs gfs2",
    f"a directory of the machine that runs this one, {_UNRELIABLE}": """
        9p virtiofs vboxsf vmhgfs prl_fs drvfs fuse.vmhgfs-fuse fuse.grpcfuse""",
}
_REFUSED = {kind: why for why, kinds in _REASONS.items() for kind in kinds.split()}
"""Filesystems in common use that are refused, with the reason for the message."""

_MAGIC = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0xCA451A4E: "bcachefs",
    0x3153464A: "jfs",
    0x52654973: "reiserfs",
    0x3434: "nilfs2",
    0x24051905: "ubifs",
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
    0x794C7630: "overlay",
    0xF15F: "ecryptfs",
    0x65735546: "fuse",
    0x6969: "nfs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb3",
    0x01021997: "9p",
    0x00C36400: "ceph",
    0x0BD00BD0: "lustre",
    0x01161970: "gfs2",
    0x7461636F: "ocfs2",
    0x4D44: "vfat",
    0x2011BAB0: "exfat",
    0x7366746E: "ntfs3",
    0x73717368: "squashfs",
    0xE0F5E1E2: "erofs",
    0x9660: "iso9660",
}
"""Types by statfs(2), for a system without /proc and for mounts that are not listed there."""


def filesystem_of(fd: int) -> Mount:
    """Return the filesystem of an open file or directory, from its mount or else from statfs(2).

    The mount is used rather than the device because files of a btrfs subvolume have a device of their own.
    """
    mount = mount_at(fd)
    if not mount.kind:
        mount = mount_of(os.fstat(fd).st_dev)
    return mount if mount.kind else Mount(_MAGIC.get(magic := _magic_of(fd), f"type {magic:#x}"))


def refusal(kind: str, *, of_hosts: bool = False) -> str:
    """Return why a spool may not be on a filesystem, as part of a sentence; empty if it may.

    Args:
        kind: the type of the filesystem.
        of_hosts: the spool is that of one of several hosts, in a directory that they share.
    """
    if kind in LOCAL or (of_hosts and kind in SHARED):
        return ""
    if kind in _REFUSED:
        return _REFUSED[kind]
    if kind.partition(".")[0] == "fuse":
        return "a filesystem implemented by a program, whose locks and syncs are not known to be reliable"
    return "which is not known to be used by this machine alone, with reliable locks and syncs"


def _magic_of(fd: int) -> int:
    """Return f_type, the first word of struct statfs on every Linux; 0 if the call fails."""
    import ctypes  # noqa: PLC0415 - only for a mount that is not listed

    state = (ctypes.c_long * 32)()  # struct statfs has 120 octets.
    return int(state[0]) & 0xFFFFFFFF if _libc.fstatfs(fd, state) == 0 else 0
