"""A spool with a ledger, and a deliverer of its events at a time that the test sets."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mailer.config.calls import EventField, EventKind, OnEvent
from mailer.config.model import Config
from mailer.config.secrets import Secret
from mailer.events import store
from mailer.events.backlog import Choice
from mailer.events.deliverer import Deliverer
from mailer.mail import clock
from mailer.maillog.events import MailLog
from mailer.maillog.ledger import Line, encode
from mailer.spool.directory import Spool
from mailer.spool.layout import LOG
from outbound.event_hook import SECRET, Hook

DAY = 86_400.0
NOON = clock.seconds("2026-11-22T12:00:00Z")
ALL = Choice(frozenset(EventKind), tuple(EventField))
CONFIG = Config(on_event=OnEvent(command=("true",)))


class Delivery:
    """A spool with a ledger, and a deliverer at a time that the test sets."""

    def __init__(self, path: Path, on_event: OnEvent) -> None:
        self.spool = Spool.open(path, create=True)
        self.log = path / LOG
        self.now = NOON
        self.said: list[str] = []
        self.on_event = on_event
        self.restart()
        self.deliverer.begin()

    def restart(self) -> None:
        log = MailLog(lambda: self.now, lambda _level, *said: self.said.append(repr(said)))
        self.deliverer = Deliverer(self.on_event, self.spool, log, lambda: self.now, lambda: 0.0)

    def write(self, event: str, *to: str, id: str = "A", day: str = "", **fields: Any) -> None:
        """Append a line to the ledger, a second after the one before."""
        self.now += 1
        line = Line(at=clock.rfc3339(self.now), event=event, id=id, sender="app@example.com", to=to, **fields)
        self.append(encode(line), day)

    def append(self, data: bytes, day: str = "") -> None:
        name = day or time.strftime("%Y%m%d", time.gmtime(self.now))
        with (self.log / f"{name}.jsonl").open("ab") as file:
            file.write(data)

    def round(self) -> bool:
        return asyncio.run(self.deliverer.round())

    @property
    def progress(self) -> store.Progress:
        progress = store.read(self.spool)
        assert progress is not None
        return progress


def by_hook(made: Hook, **more: Any) -> OnEvent:
    return OnEvent(webhook=Secret(made.url), secret=Secret(SECRET), **more)


def names(events: Sequence[dict[str, Any]]) -> list[str]:
    return [f"{event['event']} {event.get('to', '')}" for event in events]
