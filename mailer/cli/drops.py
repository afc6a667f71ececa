"""Taking mail in from `drop/`: the receiver does so while it runs, and each run of the sender."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mailer.cli.clocks import clocks
from mailer.config.load import Loaded
from mailer.config.model import Config
from mailer.maillog.events import MailLog
from mailer.spool import drop
from mailer.spool.due import any_drop
from mailer.spool.layout import DROP, Spool

if TYPE_CHECKING:
    from mailer.receive.pickup import Pickup
    from mailer.receive.refusals import Refusals
    from mailer.receive.service import Service
    from mailer.spool.committer import Committer

_EVERY = 10.0
"""Seconds between the looks of a sender that stays."""
_LONGEST = 60.0
"""Seconds that a sender takes in before it delivers."""


class Drops:
    """The receiver's part: it opens the drop directory, and takes in what lies there."""

    def __init__(self, spool: Spool, log: MailLog) -> None:
        self._spool = spool
        self._log = log
        self._pickup: asyncio.Task[None] | None = None
        self._end: Callable[[], None] = lambda: None

    def open(self, config: Config) -> None:
        """Let users leave mail if `localUsers` says whose it is, and else let nobody."""
        try:
            drop.prepare(self._spool, wanted=bool(config.local_users))
        except OSError as error:
            path = self._spool.path / DROP
            todo = f"mkdir -m 3733 {path}; chmod 3733 {path}; chmod 0711 {self._spool.path}"
            self._log.warning(
                "users cannot leave mail while no receiver runs",
                error=str(error),
                todo=f"as its owner: {todo}",
            )

    def start(self, pickup: "Pickup") -> None:
        """Begin to take in."""
        self._end = pickup.end
        self._pickup = asyncio.create_task(pickup.stay())

    async def end(self) -> None:
        """Finish what is being taken in."""
        self._end()
        if self._pickup is not None:
            await self._pickup


def prepare(path: Path) -> None:
    """Import what taking in needs, before root becomes the spool's owner, who may not be able to."""
    if any_drop(path):
        import mailer.cli.receiver  # noqa: PLC0415 - aiosmtpd, for few runs
        import mailer.receive.pickup  # noqa: F401, PLC0415 - as above


async def take_in(
    loaded: Loaded,
    spool: Spool,
    log: MailLog,
    stop: asyncio.Event,
    within: float = _LONGEST,
    refusals: "Refusals | None" = None,
) -> int:
    """Take in what lies in `drop/`, if anything does; what cannot be done is logged.

    Args:
        loaded: the configuration.
        spool: whose.
        log: of the program.
        stop: nothing is begun once it is set.
        within: nor after so many seconds, or a minute.
        refusals: of a program that does this several times.

    Returns:
        How many drops went; there may be more.
    """
    if stop.is_set() or not any_drop(spool.path):
        return 0
    from mailer.receive.pickup import Pickup  # noqa: PLC0415 - aiosmtpd, for few runs
    from mailer.spool.committer import Committer  # noqa: PLC0415 - with it

    committer = Committer(spool).start()
    try:
        service = lambda: service_for(loaded, spool, committer, log)  # noqa: E731 - asked once, if at all
        pickup = Pickup(spool, log, clocks().wall, service, refusals)
        ending = asyncio.create_task(_end(pickup, stop, min(_LONGEST, within)))
        try:
            return await pickup.once()
        finally:
            ending.cancel()
    finally:
        committer.close()


async def _end(pickup: "Pickup", stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    pickup.end()


async def keep_taking_in(
    loaded: Callable[[], Loaded], spool: Spool, log: Callable[[], MailLog], stop: asyncio.Event
) -> None:
    """Do so until `stop`, with the configuration and the log of the time."""
    from mailer.receive.refusals import Refusals  # noqa: PLC0415 - only for a sender that stays

    refusals = Refusals(clocks().wall)
    while not stop.is_set():
        if await take_in(loaded(), spool, log(), stop, refusals=refusals):
            continue
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _EVERY)


def service_for(loaded: Loaded, spool: Spool, committer: "Committer", log: MailLog) -> "Service":
    """Make what a session works with that is not the receiver's own.

    Raises:
        ConfigError: a receiver would not start with this configuration.
        SecretError, OSError: as `receiver.service`.
    """
    from mailer.cli import receiver  # noqa: PLC0415 - as above
    from mailer.config import checks  # noqa: PLC0415 - as above
    from mailer.config.problem import ConfigError  # noqa: PLC0415 - as above
    from mailer.receive.upload import Store  # noqa: PLC0415 - as above

    if problems := checks.refuse_to_serve(loaded):
        raise ConfigError(problems)
    host = clocks()
    store = Store(spool, committer, log, host.wall, boot=host.boot, uptime=host.uptime)
    return receiver.service(loaded, receiver.settings(loaded.config, None), store, None)
