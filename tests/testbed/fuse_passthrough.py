"""Mounts a directory twice, as two hosts would: `fuse_passthrough.py KIND SOURCE ONE OTHER COMMAND...`.

Each mount is a client of its own, with a server process of its own, and passes each call on to the directory
SOURCE. So both mounts are as coherent as a local filesystem, unless `$FUSE_FAULTS` names some of these:

    local-locks     locks are known only within a mount
    kept-locks      a lock stays after its file was closed
    stale           names and attributes are believed for an hour, absent names, too
    blind-append    O_APPEND is where the client believes the end to be
    not-exclusive   O_EXCL is not obeyed
    replacing       RENAME_NOREPLACE is not obeyed
    no-noreplace    RENAME_NOREPLACE is not known
    moving-inodes   a file gets another inode number by a rename
    undead          a removed file has a link as long as it is open
    unseen          files that another mount made are not seen
    odd-names       names are listed in lower case

While the file `$FUSE_EVICTED` exists, every call in the first mount fails, as for a client of CephFS that was
evicted. To be run in a mount namespace of its own, which takes the mounts with it; the servers end with the
command.
"""

import ctypes
import errno
import fcntl
import os
import signal
import stat
import struct
import sys
from pathlib import Path

# What the kernel's <linux/fuse.h> calls FUSE_..., protocol 7.31.
LOOKUP, FORGET, GETATTR, SETATTR, MKDIR, UNLINK, RMDIR, RENAME, LINK = 1, 2, 3, 4, 9, 10, 11, 12, 13
OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH, INIT, OPENDIR = 14, 15, 16, 17, 18, 20, 25, 26, 27
READDIR, RELEASEDIR, FSYNCDIR, SETLK, SETLKW, CREATE, INTERRUPT = 28, 29, 30, 32, 33, 35, 36
BATCH_FORGET, FALLOCATE, RENAME2 = 42, 43, 45
BIG_WRITES, FLOCK_LOCKS = 1 << 5, 1 << 10
DIRECT_IO = 1
SET_MODE, SET_SIZE, SET_ATIME, SET_MTIME, SET_ATIME_NOW, SET_MTIME_NOW = 1, 8, 16, 32, 128, 256
NO_REPLY = {FORGET, BATCH_FORGET, INTERRUPT}
IN, OUT = struct.Struct("=IIQQIIIHH"), struct.Struct("=IiQ")
WRITE_HEADER = 40
ROOT = 1
HOUR = 3600
PR_SET_PDEATHSIG = 1
FAULTS = frozenset(os.environ.get("FUSE_FAULTS", "").split())
libc = ctypes.CDLL(None, use_errno=True)


class Server:
    """Answers one mount's requests, one after the other."""

    def __init__(self, fuse: int, source: str, evicted: str) -> None:
        self.fuse = fuse
        self.evicted = Path(evicted) if evicted else None
        self.nodes = {ROOT: os.open(source, os.O_PATH | os.O_DIRECTORY)}
        self.listings: dict[int, list[tuple[str, int, int]]] = {}
        self.valid = HOUR if "stale" in FAULTS else 0
        self.shift = 0
        self.own: set[tuple[int, str]] = set()
        self.answers = {
            INIT: self.init,
            LOOKUP: lambda node, body: self.entry(node, text(body)),
            GETATTR: lambda node, _: struct.pack("=QII", self.valid, 0, 0) + self.attributes(node),
            SETATTR: self.set_attributes,
            MKDIR: self.make_directory,
            UNLINK: lambda node, body: nothing(os.unlink(text(body), dir_fd=self.nodes[node])),
            RMDIR: lambda node, body: nothing(os.rmdir(text(body), dir_fd=self.nodes[node])),
            RENAME: lambda node, body: self.rename(node, body, 8),
            RENAME2: lambda node, body: self.rename(node, body, 16),
            LINK: self.link,
            OPEN: self.open,
            CREATE: self.create,
            READ: self.read,
            WRITE: self.write,
            STATFS: self.statfs,
            RELEASE: self.release,
            FLUSH: lambda _node, _body: b"",
            FSYNC: lambda _, body: nothing(os.fsync(number(body))),
            OPENDIR: self.open_directory,
            READDIR: self.read_directory,
            RELEASEDIR: lambda _, body: nothing(os.close(number(body))),
            FSYNCDIR: lambda _, body: nothing(os.fsync(number(body))),
            SETLK: self.lock,
            SETLKW: self.lock,
            FALLOCATE: self.allocate,
        }

    def serve(self) -> None:
        while True:
            try:
                request = os.read(self.fuse, 1 << 20)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return  # Unmounted.
                continue  # The request was interrupted before it was read.
            _, code, unique, node, *_ = IN.unpack_from(request)
            if code not in NO_REPLY:
                self.reply(unique, code, node, request[IN.size :])

    def reply(self, unique: int, code: int, node: int, body: bytes) -> None:
        trouble, answer = errno.ENOSYS, b""
        if self.evicted and self.evicted.exists():
            trouble = errno.ESHUTDOWN
        elif code in self.answers:
            try:
                trouble, answer = 0, self.answers[code](node, body)
            except OSError as error:
                trouble = error.errno or errno.EIO
        try:
            os.write(self.fuse, OUT.pack(OUT.size + len(answer), -trouble, unique) + answer)
        except FileNotFoundError:
            return  # Nobody waits for it any more.

    def init(self, _: int, body: bytes) -> bytes:
        _, minor, ahead, offered = struct.unpack_from("=4I", body)
        flags = offered & (BIG_WRITES | (0 if "local-locks" in FAULTS else FLOCK_LOCKS))
        return struct.pack("=4I2H2I2H32x", 7, min(minor, 31), ahead, flags, 16, 12, 1 << 17, 1, 32, 0)

    def attributes(self, node: int) -> bytes:
        state = os.fstat(self.nodes[node])
        times = (state.st_atime_ns, state.st_mtime_ns, state.st_ctime_ns)
        return struct.pack(
            "=6Q10I",
            *(state.st_ino + self.shift, state.st_size, state.st_blocks),
            *(moment // 10**9 for moment in times),
            *(moment % 10**9 for moment in times),
            *(state.st_mode, max(state.st_nlink, "undead" in FAULTS), state.st_uid, state.st_gid, 0, 4096, 0),
        )

    def entry(self, node: int, name: str) -> bytes:
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=self.nodes[node])
        except FileNotFoundError:
            if not self.valid:
                raise
            return struct.pack("=4Q2I88x", 0, 0, self.valid, 0, 0, 0)
        if "unseen" in FAULTS and stat.S_ISREG(os.fstat(fd).st_mode) and (node, name) not in self.own:
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, name)
        # A file keeps its number while its descriptor is open, which it stays.
        found = os.fstat(fd).st_ino + self.shift
        if found in self.nodes:
            os.close(fd)
        else:
            self.nodes[found] = fd
        return struct.pack("=4Q2I", found, 0, self.valid, self.valid, 0, 0) + self.attributes(found)

    def set_attributes(self, node: int, body: bytes) -> bytes:
        wanted, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode = struct.unpack_from(
            "=I4xQQQQQQ3II", body
        )
        path = f"/proc/self/fd/{self.nodes[node]}"
        if wanted & SET_MODE:
            Path(path).chmod(stat.S_IMODE(mode))
        if wanted & SET_SIZE:
            os.truncate(path, size)
        if wanted & (SET_ATIME_NOW | SET_MTIME_NOW):
            os.utime(path)
        elif wanted & (SET_ATIME | SET_MTIME):
            os.utime(path, ns=(atime * 10**9 + atime_ns, mtime * 10**9 + mtime_ns))
        return struct.pack("=QII", self.valid, 0, 0) + self.attributes(node)

    def make_directory(self, node: int, body: bytes) -> bytes:
        (mode,) = struct.unpack_from("=I", body)
        name = text(body[8:])
        os.mkdir(name, stat.S_IMODE(mode), dir_fd=self.nodes[node])
        return self.entry(node, name)

    def rename(self, node: int, body: bytes, header: int) -> bytes:
        target, flags = struct.unpack_from("=QI", body)
        old, new = (os.fsdecode(each) for each in body[header:].split(b"\0")[:2])
        here, there = self.nodes[node], self.nodes[target]
        self.own.add((target, new))
        if header == 16 and flags and "no-noreplace" in FAULTS:
            raise OSError(errno.EINVAL, "RENAME_NOREPLACE")
        if "moving-inodes" in FAULTS:
            self.shift += 1 << 40
        if header == 16 and flags and "replacing" not in FAULTS:
            if libc.renameat2(here, os.fsencode(old), there, os.fsencode(new), flags):
                raise OSError(ctypes.get_errno(), "renameat2")
        else:
            os.rename(old, new, src_dir_fd=here, dst_dir_fd=there)
        return b""

    def link(self, node: int, body: bytes) -> bytes:
        name = text(body[8:])
        there = f"/proc/self/fd/{self.nodes[number(body)]}"
        os.link(there, name, dst_dir_fd=self.nodes[node], follow_symlinks=True)
        return self.entry(node, name)

    def open(self, node: int, body: bytes) -> bytes:
        (flags,) = struct.unpack_from("=I", body)
        fd = os.open(f"/proc/self/fd/{self.nodes[node]}", passed(flags) & ~(os.O_NOFOLLOW | os.O_EXCL))
        return struct.pack("=QII", fd, DIRECT_IO, 0)

    def create(self, node: int, body: bytes) -> bytes:
        flags, mode = struct.unpack_from("=II", body)
        name = text(body[16:])
        self.own.add((node, name))
        if "not-exclusive" in FAULTS:
            flags &= ~os.O_EXCL
        fd = os.open(name, passed(flags) | os.O_CREAT, stat.S_IMODE(mode), dir_fd=self.nodes[node])
        return self.entry(node, name) + struct.pack("=QII", fd, DIRECT_IO, 0)

    def read(self, _: int, body: bytes) -> bytes:
        fd, offset, size = struct.unpack_from("=QQI", body)
        return os.pread(fd, size, offset)

    def write(self, _: int, body: bytes) -> bytes:
        fd, offset, size = struct.unpack_from("=QQI", body)
        # On a descriptor with O_APPEND, pwrite(2) appends.
        return struct.pack("=II", os.pwrite(fd, body[WRITE_HEADER : WRITE_HEADER + size], offset), 0)

    def statfs(self, _: int, __: bytes) -> bytes:
        state = os.statvfs(f"/proc/self/fd/{self.nodes[ROOT]}")
        free = (state.f_blocks, state.f_bfree, state.f_bavail, state.f_files, state.f_ffree)
        return struct.pack("=5Q10I", *free, state.f_bsize, state.f_namemax, state.f_frsize, *[0] * 7)

    def release(self, _: int, body: bytes) -> bytes:
        if "kept-locks" not in FAULTS:
            os.close(number(body))
        return b""

    def open_directory(self, node: int, _: bytes) -> bytes:
        fd = os.open(f"/proc/self/fd/{self.nodes[node]}", os.O_RDONLY | os.O_DIRECTORY)
        return struct.pack("=QII", fd, 0, 0)

    def read_directory(self, _: int, body: bytes) -> bytes:
        fd, offset, size = struct.unpack_from("=QQI", body)
        if offset == 0:
            with os.scandir(fd) as entries:
                kinds = [(each.name, each.inode(), each.is_dir()) for each in entries]
            self.listings[fd] = [(name, ino, (0o100, 0o040)[is_dir]) for name, ino, is_dir in kinds]
        answer = b""
        for place, (name, ino, kind) in enumerate(self.listings[fd][offset:], offset + 1):
            encoded = os.fsencode(name.lower() if "odd-names" in FAULTS else name)
            line = struct.pack("=QQII", ino, place, len(encoded), kind >> 3) + encoded
            line += bytes(-len(line) % 8)
            if len(answer) + len(line) > size:
                break
            answer += line
        return answer

    def lock(self, _: int, body: bytes) -> bytes:
        fd, _, _, _, kind = struct.unpack_from("=4QI", body)
        # F_RDLCK, F_WRLCK, F_UNLCK; a client that waits is not known here.
        fcntl.flock(fd, {0: fcntl.LOCK_SH, 1: fcntl.LOCK_EX, 2: fcntl.LOCK_UN}[kind] | fcntl.LOCK_NB)
        return b""

    def allocate(self, _: int, body: bytes) -> bytes:
        fd, offset, length, mode = struct.unpack_from("=3QI", body)
        if libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
            raise OSError(ctypes.get_errno(), "fallocate")
        return b""


def passed(flags: int) -> int:
    return flags & ~os.O_APPEND if "blind-append" in FAULTS else flags


def text(body: bytes) -> str:
    return os.fsdecode(body.partition(b"\0")[0])


def number(body: bytes) -> int:
    (value,) = struct.unpack_from("=Q", body)
    return int(value)


def nothing(_: None) -> bytes:
    return b""


def mount(kind: str, source: str, place: str, evicted: str) -> None:
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    owner = Path(source).stat()
    options = f"fd={fuse},rootmode=40000,user_id={owner.st_uid},group_id={owner.st_gid}"
    if libc.mount(b"test", place.encode(), kind.encode(), 0, options.encode()) != 0:
        sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
    if os.fork() == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.umask(0)
        Server(fuse, source, evicted).serve()
        os._exit(0)
    os.close(fuse)


def main() -> None:
    kind, source, one, other, *command = sys.argv[1:]
    mount(kind, source, one, os.environ.get("FUSE_EVICTED", ""))
    mount(kind, source, other, "")
    os.execvp(command[0], command)


main()
