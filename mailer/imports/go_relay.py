"""The queue of the Go relay that mailer replaces: `emails/failed/ID.json`, and files in `emails/` itself."""

from pathlib import Path

import msgspec

from mailer.imports.directory import DirectoryQueue
from mailer.imports.queue import Queued, Unreadable, with_crlf


class _Record(msgspec.Struct, frozen=True):
    """The JSON of one file; fields are named as its keys."""

    From: str
    To: list[str]
    Data: bytes


class GoRelay(DirectoryQueue):
    """A directory `emails`. Its `.json` files are messages; it retries those in `failed/` each hour."""

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
