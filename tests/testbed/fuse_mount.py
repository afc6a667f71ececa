"""Mounts a FUSE filesystem of a kind and runs a command beside it: `fuse_mount.py KIND PLACE COMMAND...`.

It is an empty directory that says how it is called, and nothing more: every change fails. `$FUSE_STATFS` has
the five numbers of its answer to statfs(2): blocks, free, free for users, files, free files. `$FUSE_MODE` is
the directory's mode. It is for the directory's owner alone (others get EACCES, also root), as what a user has
mounted with fusermount is. To be run in a mount namespace of its own, which takes the mount with it; the
process that answers ends with the command.
"""

import ctypes
import errno
import os
import signal
import stat
import struct
import sys
from pathlib import Path

LOOKUP, FORGET, GETATTR, STATFS, INIT, OPENDIR, READDIR, BATCH_FORGET = 1, 2, 3, 17, 26, 27, 28, 42
IN, OUT = struct.Struct("=IIQQIIIHH"), struct.Struct("=IiQ")
MODE = int(os.environ.get("FUSE_MODE", "700"), 8)
SPACE = [int(number) % 2**64 for number in os.environ.get("FUSE_STATFS", "1000 " * 5).split()]
ATTRIBUTES = struct.pack(
    "=QII QQQQQQ IIIIIIIIII", 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, stat.S_IFDIR | MODE, 2, 0, 0, 0, 4096, 0
)
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)


def answer(opcode: int, body: bytes) -> bytes | int | None:
    """What to reply with: bytes, an error number, or None where no reply is awaited."""
    if opcode in {FORGET, BATCH_FORGET}:
        return None
    if opcode == LOOKUP:
        return errno.ENOENT
    return {
        INIT: struct.pack("=IIIIHHIIHHI7I", 7, 31, 65536, 0, 16, 12, 65536, 1, 16, 0, *[0] * 8),
        GETATTR: ATTRIBUTES,
        STATFS: struct.pack("=5Q10I", *SPACE, 4096, 255, 4096, *[0] * 7),
        OPENDIR: struct.pack("=QII", 0, 0, 0),
        READDIR: b"",
    }.get(opcode, errno.ENOSYS)


def serve(fuse: int) -> None:
    while True:
        try:
            request = os.read(fuse, 1 << 17)
        except OSError:
            return  # Unmounted.
        _, opcode, unique, *_ = IN.unpack_from(request)
        reply = answer(opcode, request[IN.size :])
        if isinstance(reply, int):
            os.write(fuse, OUT.pack(OUT.size, -reply, unique))
        elif reply is not None:
            os.write(fuse, OUT.pack(OUT.size + len(reply), 0, unique) + reply)


def main() -> None:
    kind, place, *command = sys.argv[1:]
    fuse = os.open("/dev/fuse", os.O_RDWR)
    owner = Path(place).stat()
    options = f"fd={fuse},rootmode=40000,user_id={owner.st_uid},group_id={owner.st_gid}"
    if libc.mount(b"test", place.encode(), kind.encode(), 0, options.encode()) != 0:
        sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
    if os.fork() == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        serve(fuse)
        os._exit(0)
    os.close(fuse)
    os.execvp(command[0], command)


main()
