"""Runs of the sender over one spool, as cron starts them: in this process, at times of the test's choosing.

Each is a run of its own, which knows of the others only what is in the spool.
"""

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from spools import walk as spool_walk

from mailer.config.load import load
from mailer.mail.clock import Clocks
from mailer.maillog.events import Level, MailLog
from mailer.maillog.ledger import Ledger
from mailer.send.run import open_runner
from mailer.spool.directory import Spool
from mailer.spool.layout import LOG
from mailer.spool.state import provider_state
from mailer.spool.state.provider_state import ProviderState
from outbound.sending import MESSAGE, PLACES, queue

HOUR = 3600.0


class Cron:
    """One configuration, one spool, and a clock that goes on when the test says so."""

    def __init__(self, directory: Path, settings: Mapping[str, Any]) -> None:
        """Args: directory: empty; settings: configuration keys."""
        self.spool = directory / "spool"
        self.now = self._began = time.time()
        self._directory = directory
        self.logged: list[str] = []
        """What the programs say on standard error."""
        self.configure(settings)

    def configure(self, settings: Mapping[str, Any]) -> None:
        whole = {"spoolDir": "spool", "defaultPassword": "x", "bounce": "off", "hostname": "me.example"}
        file = self._directory / "config.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(whole | settings))
        self._config = load(file, {}).config

    def queue(self, sender: str, to: Iterable[str], message: bytes = MESSAGE) -> str:
        """Put one message into the spool, and return its id."""
        return queue(self.spool, [*to], message, sender=sender, received=self.now)

    def run(self, *, after: float = 0.0) -> None:
        """Run once, so many seconds after the run before."""
        self.now += after
        asyncio.run(self._run())

    def run_for(self, seconds: float) -> None:
        """Run whenever something is due, as a run each minute would, for so long."""
        end = self.now + seconds
        while (due := self._next_due()) is not None and due <= end:
            self.run(after=max(60.0, due - self.now + 1))
        self.now = max(self.now, end)

    def found(self) -> dict[str, spool_walk.Found]:
        """What is in the spool, by id: everything that was not delivered to all."""
        return dict(spool_walk.walk(self.spool, PLACES))

    def statuses(self) -> dict[str, set[str]]:
        """How the recipients of each message that is still there stand."""
        return {name: {*map(str, message.statuses.values())} for name, message in self.found().items()}

    def states(self) -> list[ProviderState]:
        """What is known of the providers, in their order."""
        with Spool.open(self.spool) as spool:
            known = provider_state.read(spool)
        return [known.get(provider.account, ProviderState()) for provider in self._config.providers]

    def health(self) -> list[str]:
        """How the providers do now."""
        return [provider_state.health(state, self._moment()).value for state in self.states()]

    def _clocks(self) -> Clocks:
        return Clocks(lambda: self.now, lambda: self.now - self._began, "boot-1")

    def _moment(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)

    def _next_due(self) -> float | None:
        buckets = sorted(path.name for path in (self.spool / "retry").glob("*") if any(path.iterdir()))
        if not buckets:
            return None
        return datetime.strptime(buckets[0], "%Y%m%dT%H%MZ").replace(tzinfo=UTC).timestamp()

    async def _run(self) -> None:
        def tell(_level: Level, text: str, fields: Mapping[str, Any]) -> None:
            self.logged.append(f"{text} {dict(fields)}")

        with (
            Spool.open(self.spool, create=True) as spool,
            closing(Ledger(partial(spool.directory, LOG), lambda _error: None)) as ledger,
        ):
            log = MailLog(lambda: self.now, tell, ledger)
            async with open_runner(self._config, spool, log, self._clocks(), hostname="me.example") as runner:
                await runner.once(asyncio.Event(), 60.0)
