"""What is known of a recording from outside of its disk: who promised and did what, and when.

One JSON line an event, with the time on CLOCK_MONOTONIC, which the disk's log has too.
"""

import json
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SUBJECT = re.compile(rb"^Subject: (\S+)\r?$", re.MULTILINE)
_FAILED = re.compile(rb"^Final-Recipient: [a-z0-9-]+; *(\S+)\r?$", re.MULTILINE)
SENDER = "app@one.test"
_PATIENCE = 60.0


@dataclass(frozen=True)
class Event:
    """One line.

    Attributes:
        kind: "accepted" (the client has its 250), "delivered" (the destination gives its 250; or the file is
            in the local Maildir), "told" (the same of a bounce), "asked" and "done" (an operator's command
            begins, and has ended with 0), "late" (the machine stood still, or was busy), "end".
        at: on CLOCK_MONOTONIC.
        token: the message's subject; of a bounce that of the mail that it is about.
        to: the recipients; of a bounce those that it says have failed.
        what: of a command its verb, of a message its queue id.
        seconds: for how long the machine stood still, or programs may have waited for a processor.
    """

    kind: str
    at: float
    token: str = ""
    to: tuple[str, ...] = ()
    what: str = ""
    seconds: float = 0.0


@dataclass
class Books:
    """Collects events; with a file also on its disk, at once."""

    file: Path | None = None
    events: list[Event] = field(default_factory=list)
    _noted: threading.Condition = field(default_factory=threading.Condition)

    def note(
        self, kind: str, token: str = "", to: Sequence[str] = (), what: str = "", seconds: float = 0.0
    ) -> None:
        event = Event(kind, time.monotonic(), token, tuple(to), what, seconds)
        with self._noted:
            self.events.append(event)
            if self.file:
                with self.file.open("a") as file:
                    file.write(json.dumps(vars(event)) + "\n")
            self._noted.notify_all()

    def wait_for(self, kind: str, token: str) -> None:
        """Wait until such an event has been noted; raises TimeoutError after a minute."""

        def noted() -> bool:
            return any((event.kind, event.token) == (kind, token) for event in self.events)

        with self._noted:
            if not self._noted.wait_for(noted, _PATIENCE):
                raise TimeoutError(f"nothing was {kind} of {token}")

    def note_arrival(self, sender: str, to: Sequence[str], message: bytes) -> None:
        """A destination has taken a message; of a bounce those that it is about are noted."""
        if sender:
            self.note("delivered", token_of(message), to)
        else:
            self.note("told", token_of(message), failed_in(message))


def read_books(file: Path) -> list[Event]:
    events = []
    for line in file.read_text().splitlines():
        fields: dict[str, Any] = json.loads(line)
        events.append(Event(**{**fields, "to": tuple(fields["to"])}))
    return sorted(events, key=lambda event: event.at)


def failed_in(report: bytes) -> list[str]:
    """The recipients that a bounce says have failed."""
    return [name.decode() for name in _FAILED.findall(report)]


def token_of(message: bytes) -> str:
    """The last subject in it: a bounce has one of its own, above that of the mail that it is about."""
    *_, token = _SUBJECT.findall(message)
    return bytes(token).decode()
