"""Pick up mail from the spool's `drop/`: in the receiver while it runs, and in each run of `mailer-send`."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from mailer.cli.clocks import clocks
from mailer.config.load import Loaded
from mailer.config.model import Config
from mailer.maillog.events import MailLog
from mailer.spool import drop
from mailer.spool.directory import Spool
from mailer.spool.due import any_drop
from mailer.spool.layout import DROP

if TYPE_CHECKING:
    from mailer.receive.context import ReceiverContext
    from mailer.receive.drop_limits import Refusals
    from mailer.receive.pickup import Pickup
    from mailer.spool.committer import Committer

_SCAN_INTERVAL = 10.0
"""Seconds between the scans of `drop/` by a `mailer-send --watch`."""
_MAX_SECONDS = 60.0
"""The most seconds that `mailer-send` picks up mail before it delivers."""


class Drops:
    """The receiver's side: prepare the drop directory, and pick up the mail in it."""

    def __init__(self, spool: Spool, log: MailLog) -> None:
        self._spool = spool
        self._log = log
        self._pickup: asyncio.Task[None] | None = None
        self._end: Callable[[], None] = lambda: None

    def open(self, config: Config) -> None:
        """Let users leave mail in `drop/` if `localUsers` says whose mail it is; otherwise forbid it."""
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
        """Start the pickup task."""
        self._end = pickup.end
        self._pickup = asyncio.create_task(pickup.stay())

    async def end(self) -> None:
        """Stop the pickup, and wait for the message that it is working on."""
        self._end()
        if self._pickup is not None:
            await self._pickup


def prepare(path: Path) -> None:
    """Import what a pickup needs while still root: the spool's owner may be unable to read the modules."""
    if any_drop(path):
        import mailer.cli.receiving.receiver  # noqa: PLC0415 - imports aiosmtpd, which few runs need
        import mailer.receive.pickup  # noqa: F401, PLC0415 - as above


async def take_in(
    loaded: Loaded,
    spool: Spool,
    log: MailLog,
    stop: asyncio.Event,
    within: float = _MAX_SECONDS,
    refusals: "Refusals | None" = None,
) -> int:
    """Pick up the mail in `drop/`, if there is any; log what fails.

    Args:
        loaded: the configuration.
        spool: the spool that `drop/` is in.
        log: the program's log.
        stop: no message is begun once it is set.
        within: the seconds after which no further message is begun; at most a minute.
        refusals: remembers refusals between calls, for a program that calls this repeatedly.

    Returns:
        How many drops were removed from `drop/`; there may be more.
    """
    if stop.is_set() or not any_drop(spool.path):
        return 0
    from mailer.receive.pickup import Pickup  # noqa: PLC0415 - imports aiosmtpd, which few runs need
    from mailer.spool.committer import Committer  # noqa: PLC0415 - as above

    committer = Committer(spool).start()
    try:
        context = lambda: context_for(loaded, spool, committer, log)  # noqa: E731 - called at most once
        pickup = Pickup(spool, log, clocks().wall, context, refusals)
        ending = asyncio.create_task(_end(pickup, stop, min(_MAX_SECONDS, within)))
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
    """Pick up mail until `stop` is set, each time with the current configuration and log."""
    from mailer.receive.drop_limits import Refusals  # noqa: PLC0415 - only for `mailer-send --watch`

    refusals = Refusals(clocks().wall)
    while not stop.is_set():
        if await take_in(loaded(), spool, log(), stop, refusals=refusals):
            continue
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _SCAN_INTERVAL)


def context_for(
    loaded: Loaded, spool: Spool, committer: "Committer", log: MailLog, *, logins: bool = True
) -> "ReceiverContext":
    """Make the context of sessions that run outside of the receiver.

    Args:
        loaded: the configuration.
        spool: where messages go.
        committer: of that spool.
        log: of the program.
        logins: False if no client logs in. Then `defaultPassword` is not read, which may be a credential that
            the service manager gives to the receiver alone.

    Raises:
        ConfigError: a receiver would not start with this configuration.
        SecretError, OSError: as `receiver.context`.
    """
    from mailer.cli.receiving import receiver  # noqa: PLC0415 - as above
    from mailer.config import checks  # noqa: PLC0415 - as above
    from mailer.config.problem import ConfigError  # noqa: PLC0415 - as above
    from mailer.receive.upload import Store  # noqa: PLC0415 - as above

    if problems := (checks.refuse_to_serve if logins else checks.refuse_to_send)(loaded):
        raise ConfigError(problems)
    host = clocks()
    store = Store(spool, committer, log, host.wall, boot=host.boot, uptime=host.uptime)
    settings = receiver.settings(loaded.config, None)
    if not logins:
        loaded = replace(loaded, config=replace(loaded.config, default_username=""))
    return receiver.context(loaded, settings, store, None)
