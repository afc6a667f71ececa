"""Queues that are directories with files for each message: their base class, the Go relay's and nullmailer's.

Such a directory may belong to a user whom the operator, perhaps root, does not trust. So each directory is
opened once, and symbolic links are not followed: by replacing files meanwhile, that user can at worst
substitute files of their own.
"""

import os
import stat
from pathlib import Path

import msgspec

from mailer.imports.queue import MAX_FILE, Queue, Queued, Unreadable, with_crlf

IMPORTED = "imported"
"""The name of the directory within the queue that keeps the files of imported messages."""
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class DirectoryQueue(Queue):
    """Accesses files by bare names, relative to descriptors of their directories."""

    def __init__(self, path: Path, *places: str) -> None:
        """Open the directory.

        Args:
            path: the directory of the queue; not a symbolic link.
            places: its subdirectories with messages, which may be missing; `.` is the directory itself.

        Raises:
            OSError: a directory cannot be opened.
        """
        self._root = os.open(path, _DIRECTORY)
        self.identity = os.fsdecode(os.path.realpath(path))
        self._places: dict[str, int] = {}
        for place in places:
            try:
                self._places[place] = os.open(place, _DIRECTORY, dir_fd=self._root)
            except FileNotFoundError:
                continue
        self._imported = -1

    def files(self) -> list[str]:
        """Return the regular files as PLACE/NAME, ordered by place and name; raises OSError."""
        found = []
        for place, directory in self._places.items():
            with os.scandir(directory) as entries:
                names = sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
            found += [f"{place}/{name}" for name in names]
        return found

    def content(self, path: str) -> bytes:
        """Return the content of a file; raises Unreadable, OSError."""
        place, name = path.rsplit("/", 1)
        directory = self._places[place]
        fd = os.open(name, _FLAGS, dir_fd=directory)
        with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor
            state = os.fstat(fd)
            if not stat.S_ISREG(state.st_mode):
                raise Unreadable("it is not a file")
            if state.st_nlink != 1 or state.st_uid not in {0, os.fstat(directory).st_uid}:
                # The directory's owner may have linked to a file that they have no right to read.
                raise Unreadable("it has another name as well, or belongs to another user than its directory")
            if state.st_size > MAX_FILE:
                raise Unreadable(f"it has more than {MAX_FILE} octets")
            return file.read(MAX_FILE + 1)

    def prepare(self) -> None:
        """Open the directory `imported`, or create it; only this process's user may be able to change it.

        Raises:
            OSError: that name is not a directory, or another user can change it.
        """
        try:
            os.mkdir(IMPORTED, 0o700, dir_fd=self._root)
        except FileExistsError:
            pass
        else:
            os.fsync(self._root)
        self._imported = os.open(IMPORTED, _DIRECTORY, dir_fd=self._root)
        state = os.fstat(self._imported)
        if state.st_uid != os.geteuid() or state.st_mode & 0o022:
            os.close(self._imported)
            raise PermissionError(f"another user can change {self.identity}/{IMPORTED}: move it away")

    def put_by(self, *paths: str) -> None:
        """Move files to `imported` durably, after `prepare`; raises OSError.

        The last path must be the file by which the message is found in the queue.
        """
        for path in paths:
            place, name = path.rsplit("/", 1)
            directory = self._places[place]
            os.rename(name, self._free(name), src_dir_fd=directory, dst_dir_fd=self._imported)
            os.fsync(self._imported)
            os.fsync(directory)

    def _free(self, name: str) -> str:
        """Return an unused name in `imported`, where no other program creates files."""
        with os.scandir(self._imported) as entries:
            taken, number = {entry.name for entry in entries}, 1
        while name in taken:
            number += 1
            name = f"{name.removesuffix(f'.{number - 1}')}.{number}"
        return name


class _Record(msgspec.Struct, frozen=True):
    """The JSON of one file; fields are named as its keys."""

    From: str
    To: list[str]
    Data: bytes


class GoRelay(DirectoryQueue):
    """That of the Go relay which mailer replaces: `.json` files in `emails/` and `emails/failed/`."""

    def __init__(self, path: Path) -> None:
        """Open the directory, or the `emails` in it; raises OSError."""
        inner = path / "emails"
        super().__init__(inner if inner.is_dir() else path, "failed", ".")

    def names(self) -> list[str]:
        return [name for name in self.files() if name.endswith(".json")]

    def look(self, name: str) -> Queued:
        try:
            record = msgspec.json.decode(self.content(name), type=_Record)
        except msgspec.MsgspecError as error:
            raise Unreadable(f"it is not a message of the Go relay: {error}") from None
        return Queued(record.From, tuple(record.To), with_crlf(record.Data))

    def remove(self, name: str) -> None:
        self.put_by(name)


class Nullmailer(DirectoryQueue):
    """nullmailer's, such as /var/spool/nullmailer; mail in `failed/` is not imported.

    A file of `queue/` has the sender, each recipient on a line, an empty line, and the message
    (nullmailer-queue(8)).
    """

    def __init__(self, path: Path) -> None:
        """Open the directory; raises OSError."""
        super().__init__(path, "queue")

    def names(self) -> list[str]:
        return self.files()

    def look(self, name: str) -> Queued:
        head, separator, message = self.content(name).partition(b"\n\n")
        sender, *recipients = head.decode("utf-8", "surrogateescape").split("\n")
        if not separator or not recipients:
            raise Unreadable("it is not a message of nullmailer: sender, recipients, an empty line")
        return Queued(sender, tuple(recipients), with_crlf(message))

    def remove(self, name: str) -> None:
        self.put_by(name)
