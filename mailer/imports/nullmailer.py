"""nullmailer's queue. A file has the sender, each recipient on a line, an empty line, and the message.

See nullmailer-queue(8).
"""

from pathlib import Path

from mailer.imports.directory import DirectoryQueue
from mailer.imports.queue import Queued, Unreadable, with_crlf


class Nullmailer(DirectoryQueue):
    """A directory with `queue/` in it, such as /var/spool/nullmailer; mail in `failed/` is not imported."""

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
