"""A disk in memory, with what would be left of it if its power failed now.

Each file and each directory has two faces: what programs see (the page cache), and what is durable. Between
them stands what is pending: writes of a file, changes of entries. A sync moves what it covers
from one to the other. A power cut takes a subset of the rest, by the rules of a `Profile` (after "All File
Systems Are Not Created Equal", OSDI 2014): a file's sectors and its size, and the entries of directories,
reach the disk in any order that the profile admits.
"""

import errno
import os
import stat
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

SECTOR = 512
BLOCK = 64
"""What the disk allocates at once: small, so that a full disk is felt within one line of a journal."""


def trouble(code: int, name: str = "") -> OSError:
    """Make the error that a system call returns, of the class that Python has for it."""
    return OSError(code, os.strerror(code), name or None)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a filesystem promises beyond POSIX."""

    name: str
    kind: str
    """As statfs(2) and /proc/self/mountinfo have it."""
    in_order: bool
    """Changes of names reach the disk in their order, and any fsync brings all that came before."""
    whole_renames: bool
    """No power cut takes a renamed file's old name without having kept its new one."""
    size_after_data: bool
    """A file never has octets that nobody wrote."""


PROFILES = (
    Profile("journal", "xfs", in_order=True, whole_renames=True, size_after_data=True),
    Profile("any-order", "btrfs", in_order=False, whole_renames=True, size_after_data=True),
    Profile("no-journal", "ext2", in_order=False, whole_renames=False, size_after_data=False),
)


class Write(NamedTuple):
    """Bytes that were written; without data, the file was cut to the offset."""

    offset: int
    data: bytes | None


class Change(NamedTuple):
    """An entry of a directory was set, or removed."""

    operation: int
    """A rename makes two changes with one number."""
    directory: int
    name: str
    inode: int | None


class Inode:
    """A file or a directory, as programs see it, and as it is durable."""

    __slots__ = (
        "allocated",
        "ctime",
        "data",
        "durable",
        "durable_entries",
        "entries",
        "errors",
        "links",
        "lock",
        "mode",
        "mtime",
        "number",
        "owner",
        "writes",
    )

    def __init__(self, number: int, mode: int, *, directory: bool, owner: int = -1) -> None:
        self.number = number
        self.owner = owner
        """The user id; -1: ours."""
        self.errors = 0
        """How often a write of it was refused: each open file hears of that once, from its next sync."""
        self.mode = mode
        self.entries: dict[str, int] | None = {} if directory else None
        self.durable_entries: dict[str, int] = {}
        self.data = b""
        self.durable = b""
        self.writes: list[Write] = []
        self.links = 2 if directory else 0
        self.mtime = self.ctime = 0.0
        self.allocated = 0
        self.lock: object = None


def put(data: bytes, write: Write) -> bytes:
    """Apply one write to a file's octets."""
    offset, new = write
    if new is None:
        return data[:offset].ljust(offset, b"\0")
    if offset == len(data):
        return data + new
    return data[:offset].ljust(offset, b"\0") + new + data[offset + len(new) :]


class Disk:
    """Inodes by number; 1 is the root directory."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.inodes = {1: Inode(1, 0o40700, directory=True)}
        self.changes: list[Change] = []
        self.full = False
        self.aborted = False
        """Its journal could not be written: it takes no change any more, and later fsyncs say that all is
        well."""
        self.version = 0
        """Goes up with whatever a power cut could tell."""
        self._next = 2
        self._operations = 0

    # What programs do.

    def make(self, parent: Inode, name: str, mode: int, *, directory: bool = False, owner: int = -1) -> Inode:
        """Make a file or a directory; a mode that has a type makes something else, such as a link."""
        if self.full:
            raise trouble(errno.ENOSPC, name)
        kind = stat.S_IFMT(mode) or (stat.S_IFDIR if directory else stat.S_IFREG)
        node = Inode(self._next, kind | stat.S_IMODE(mode), directory=directory, owner=owner)
        self._next += 1
        self.inodes[node.number] = node
        self._set([(parent, name, node)])
        return node

    def link(self, node: Inode, parent: Inode, name: str) -> None:
        if self.full:
            raise trouble(errno.ENOSPC, name)
        self._set([(parent, name, node)])

    def unlink(self, parent: Inode, name: str) -> None:
        self._set([(parent, name, None)])

    def rename(self, old: Inode, source: str, new: Inode, target: str) -> None:
        assert old.entries is not None
        node = self.inodes[old.entries[source]]
        self._set([(new, target, node), (old, source, None)])

    def _set(self, entries: list[tuple[Inode, str, Inode | None]]) -> None:
        self._check()
        self.version += 1
        self._operations += 1
        for parent, name, node in entries:
            assert parent.entries is not None
            before = parent.entries.pop(name, None)
            if before is not None:
                self.inodes[before].links -= 1
            if node is not None:
                parent.entries[name] = node.number
                node.links += 1
            self.changes.append(
                Change(self._operations, parent.number, name, None if node is None else node.number)
            )

    def _check(self) -> None:
        if self.aborted:
            raise trouble(errno.EROFS)

    def write(self, node: Inode, offset: int, data: bytes) -> int:
        """Write what there is room for, and return how much; raises ENOSPC when that is nothing."""
        end = offset + len(data)
        if end > node.allocated:
            if self.full:
                data = data[: max(0, node.allocated - offset)]
                if not data:
                    raise trouble(errno.ENOSPC)
                end = offset + len(data)
            else:
                node.allocated = -(-end // BLOCK) * BLOCK
        self.change_data(node, Write(offset, data))
        return len(data)

    def reserve(self, node: Inode, end: int) -> None:
        if end > node.allocated:
            if self.full:
                raise trouble(errno.ENOSPC)
            node.allocated = -(-end // BLOCK) * BLOCK

    def change_data(self, node: Inode, write: Write) -> None:
        self._check()
        self.version += 1
        node.data = put(node.data, write)
        node.writes.append(write)

    # What syncs do.

    def sync(self, node: Inode) -> None:
        """Make a file's content durable, or a directory's entries."""
        if self.aborted:
            return
        self.version += 1
        if self.profile.in_order:
            self._keep(self.changes)
        elif node.entries is not None:
            self._keep(self._with_partners([c for c in self.changes if c.directory == node.number]))
        for write in node.writes:
            node.durable = put(node.durable, write)
        node.writes.clear()

    def sync_all(self) -> None:
        for node in self.inodes.values():
            self.sync(node)

    def lose(self, node: Inode) -> None:
        """A sync that fails drops what it should have written: the next one has nothing to say of it."""
        self.version += 1
        node.errors += 1
        node.writes.clear()

    def plant(self, path: str, data: bytes, mode: int = 0o600, owner: int = -1) -> Inode:
        """Put a file where a hand made it, durably; directories on its way, too."""
        *way, name = path.strip("/").split("/")
        parent = self.inodes[1]
        for part in way:
            there = (parent.entries or {}).get(part)
            parent = self.inodes[there] if there else self._plant(parent, part, stat.S_IFDIR | 0o700, -1)
        node = self._plant(parent, name, mode, owner)
        node.data = node.durable = data
        return node

    def _plant(self, parent: Inode, name: str, mode: int, owner: int) -> Inode:
        node = self.make(parent, name, mode, directory=stat.S_ISDIR(mode), owner=owner)
        parent.durable_entries[name] = node.number
        self.changes.pop()
        return node

    def _with_partners(self, changes: list[Change]) -> list[Change]:
        """Where renames are whole, what removes an old name brings the new one with it.

        And what names a file in a new directory brings that directory, and the removal of a directory what
        was moved out of it: no transaction comes before its past.
        """
        if not self.profile.whole_renames or not changes:
            return changes
        removed = {self._named_before(change) for change in changes if change.inode is None}
        wanted = {*changes, *(c for c in self.changes if c.directory in removed)}
        operations = {change.operation for change in wanted if change.inode is None}
        wanted.update(c for c in self.changes if c.operation in operations and c.inode is not None)
        directories = {change.directory for change in wanted if change.inode is not None}
        wanted.update(c for c in self.changes if c.inode in directories)
        return [change for change in self.changes if change in wanted]

    def _named_before(self, change: Change) -> int | None:
        """Return the inode whose name a change removes."""
        found = self.inodes[change.directory].durable_entries.get(change.name)
        for other in self.changes:
            if other is change:
                break
            if (other.directory, other.name) == (change.directory, change.name):
                found = other.inode
        return found

    def _keep(self, changes: list[Change]) -> None:
        for change in changes:
            _apply(self.inodes[change.directory].durable_entries, change)
        kept = set(changes)
        # Of one name the last word counts: what came before it can have no effect any more.
        last = {(c.directory, c.name): at for at, c in enumerate(self.changes) if c in kept}
        self.changes = [
            change
            for at, change in enumerate(self.changes)
            if change not in kept and at > last.get((change.directory, change.name), -1)
        ]

    # What a fault leaves.

    def as_seen(self) -> "Disk":
        """What all programs' death leaves: the page cache goes to the disk in time."""
        disk = self._bare()
        for number, node in self.inodes.items():
            if node.links > 0:
                copy = self._copy(node)
                if node.entries is not None:
                    copy.entries, copy.durable_entries = dict(node.entries), dict(node.entries)
                copy.data = copy.durable = node.data
                copy.links = node.links
                disk.inodes[number] = copy
        return disk

    def after_power_cut(self, random: Random | None, only: str = "") -> "Disk":
        """What a power cut leaves.

        Args:
            random: chooses what is kept of what was not synced; None: nothing is.
            only: the directory in the root that this happens to, as if it were another machine's; all others
                are left as they are seen. Empty: it happens to all.
        """
        spared = self._outside(only) if only else set()
        entries = self._entries_left(random)
        entries |= {number: dict(self.inodes[number].entries or {}) for number in spared}
        disk = self._bare()
        reached = [1]
        while reached:
            number = reached.pop()
            if number in disk.inodes:
                if disk.inodes[number].entries is None:
                    disk.inodes[number].links += 1
                continue
            node = self.inodes[number]
            copy = self._copy(node)
            disk.inodes[number] = copy
            if node.entries is not None:
                copy.entries = entries[number]
                copy.durable_entries = dict(entries[number])
                copy.links = 2
                reached.extend(entries[number].values())
            else:
                copy.links = 1
                copy.data = copy.durable = node.data if number in spared else self._data_left(node, random)
                copy.allocated = -(-len(copy.data) // BLOCK) * BLOCK
        return disk

    def _outside(self, name: str) -> set[int]:
        """Return the inodes that programs see elsewhere than in one directory of the root."""
        found: set[int] = set()
        todo = [1]
        while todo:
            number = todo.pop()
            found.add(number)
            entries = self.inodes[number].entries or {}
            todo += [inode for entry, inode in entries.items() if number != 1 or entry != name]
        return found

    def _bare(self) -> "Disk":
        disk = Disk(self.profile)
        disk.inodes = {}
        disk._next, disk._operations = self._next, self._operations
        return disk

    @staticmethod
    def _copy(node: Inode) -> Inode:
        copy = Inode(node.number, node.mode, directory=node.entries is not None, owner=node.owner)
        copy.mtime, copy.ctime, copy.allocated = node.mtime, node.ctime, node.allocated
        return copy

    def _entries_left(self, random: Random | None) -> dict[int, dict[str, int]]:
        left = {n: dict(node.durable_entries) for n, node in self.inodes.items() if node.entries is not None}
        if random is not None:
            for change in self._changes_left(random):
                _apply(left[change.directory], change)
        return left

    def _changes_left(self, random: Random) -> list[Change]:
        if not self.changes:
            return []
        if self.profile.in_order:
            last = random.randint(self.changes[0].operation - 1, self.changes[-1].operation)
            return [change for change in self.changes if change.operation <= last]
        share = random.choice((0.1, 0.5, 0.9))
        chosen = {change for change in self.changes if random.random() < share}
        return self._with_partners([change for change in self.changes if change in chosen])

    def _data_left(self, node: Inode, random: Random | None) -> bytes:
        if random is None or not node.writes:
            return node.durable
        whole = random.randint(0, len(node.writes))
        data = node.durable
        for write in node.writes[:whole]:
            data = put(data, write)
        if whole < len(node.writes) and (torn := node.writes[whole]).data and random.random() < 0.5:
            first = SECTOR - torn.offset % SECTOR
            cuts = range(first, len(torn.data), SECTOR)
            data = put(data, Write(torn.offset, torn.data[: random.choice(cuts) if cuts else 0]))
        if self.profile.size_after_data or random.random() < 0.5:
            return data
        return _with_holes(node.durable, data, random)

    def tree(self) -> dict[str, Inode]:
        """Return what programs see: every file by its path."""
        found: dict[str, Inode] = {}
        todo = [("", self.inodes[1])]
        while todo:
            path, node = todo.pop()
            for name, number in (node.entries or {}).items():
                child = self.inodes[number]
                if child.entries is None:
                    found[f"{path}/{name}"] = child
                else:
                    todo.append((f"{path}/{name}", child))
        return found

    def fingerprint(self) -> int:
        """Two disks with the same one hold the same, by the same names."""
        names: list[tuple[str, int, bytes | None]] = []
        todo = [("", self.inodes[1])]
        while todo:
            path, node = todo.pop()
            for name, number in (node.entries or {}).items():
                child = self.inodes[number]
                names.append((f"{path}/{name}", number, child.data if child.entries is None else None))
                if child.entries is not None:
                    todo.append((f"{path}/{name}", child))
        return hash(frozenset(names))


def _apply(entries: dict[str, int], change: Change) -> None:
    if change.inode is None:
        entries.pop(change.name, None)
    else:
        entries[change.name] = change.inode


def _with_holes(before: bytes, after: bytes, random: Random) -> bytes:
    """Give back sectors as they were before, or as zeros where nothing was: the size came first."""
    pieces = []
    for at in range(0, len(after), SECTOR):
        new = after[at : at + SECTOR]
        old = before[at : at + SECTOR].ljust(len(new), b"\0")[: len(new)]
        pieces.append(new if new == old or random.random() < 0.5 else old)
    return b"".join(pieces)
