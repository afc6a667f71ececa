"""Deliver a test mail within this command: by one route, or with the dialogue shown.

The mail is in a temporary spool, so that no other runner claims it, and this one claims no other mail; the
ledger is the usual one. The provider's state is not recorded: a test neither opens a circuit breaker nor
closes one.
"""

import asyncio
import math
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from msgspec.structs import replace

from mailer.cli.clocks import clocks
from mailer.cli.exits import Exit, Failure
from mailer.cli.outlook import outlook
from mailer.cli.owner import become_owner
from mailer.cli.setup import open_log, operator_name
from mailer.cli.trial import Order, mail
from mailer.config.checks import refuse_to_send
from mailer.config.hops import Provider, by_name, find_providers
from mailer.config.load import Loaded
from mailer.config.model import BOUNCE_OFF, Config
from mailer.config.own_name import own_name
from mailer.config.problem import ConfigError
from mailer.mail.envelope import Envelope, Recipient
from mailer.maillog.events import Level, MailLog
from mailer.monitor import message_story
from mailer.monitor.message_story import Story
from mailer.send.routes.directions import keeps_mail
from mailer.send.run import open_runner
from mailer.spool.changes import make_durable
from mailer.spool.directory import Spool
from mailer.spool.incoming import Incoming
from mailer.spool.layout import Place
from mailer.spool.preparation import NotMade

_PEER = "mailer test"


def deliver(loaded: Loaded, order: Order, sender: str) -> Story:
    """Try one mail once, and return its story.

    Raises:
        ConfigError: `mailer-send` would not start with this configuration.
        Failure: the provider is unknown or ambiguous, or there is no next hop.
    """
    if problems := refuse_to_send(loaded):
        raise ConfigError(problems)
    config = _restricted(loaded.config, order)
    if keeps_mail(config):
        raise Failure(
            Exit.CONFIG,
            "there is no next hop: set forwardSMTP and a provider (forwardProviders), or directDelivery; the "
            "local Maildir is tested by mailer test without --dialogue",
        )
    operator = operator_name(os.environ)
    become_owner(config.spool_dir)
    with ExitStack() as stack:
        # Use a directory that the spool's owner can write to: root's TMPDIR may be closed to that user.
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="mailer-test-", dir=_temporary()))
        spool = stack.enter_context(Spool.open(Path(place) / "spool", create=True))
        log = _log(config, stack)
        message_id = _queue(spool, log, order.to, sender)
        asyncio.run(_run(config, spool, log, order.say if order.dialogue else None))
        told = message_story.tell(spool, message_id, outlook(config, spool, time.time()))
        if told.seen is not None and told.seen.spot.place is not Place.SENT:
            log.message("removed", id=message_id, by=operator, reason="mailer test tries a mail once")
    # Remove the times of next attempts: the temporary spool is gone, so there will be none.
    steps = tuple(replace(step, next="") for step in told.steps)
    return replace(told, steps=steps)


def _temporary() -> str | None:
    directory = os.environ.get("TMPDIR", "")
    return directory if directory and os.access(directory, os.W_OK | os.X_OK) else None


def _restricted(config: Config, order: Order) -> Config:
    """Return the configuration with only the routes that are asked for.

    No bounce is sent, since no sender waits for one. A sent mail is kept in the temporary spool's `sent/`, so
    that its story can be read.
    """
    kept = replace(config.security, log_all_emails=True)
    config = replace(config, bounce=BOUNCE_OFF, security=kept)
    if order.direct or order.provider:
        config = replace(config, routes=())
    direct = config.direct_delivery
    if order.direct:
        on = replace(direct, enabled=True)
        return replace(config, direct_delivery=on, forward_smtp=False)
    if order.provider:
        off = replace(direct, enabled=False)
        chosen = _provider(config, order.provider)
        return replace(config, direct_delivery=off, forward_smtp=True, forward_providers=(chosen,))
    return config


def _provider(config: Config, name: str) -> Provider:
    known = config.every_provider
    found = find_providers(known, name)
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise Failure(Exit.USAGE, f"{name} is the address of several providers: {', '.join(found)}")
    names = ", ".join(by_name(known)) or "none is configured (forwardProviders)"
    raise Failure(Exit.USAGE, f"there is no provider {name}; there are: {names}")


def _log(config: Config, stack: ExitStack) -> MailLog:
    """Open the mail log of the real spool, or one without a ledger if there is no spool yet."""
    try:
        real = stack.enter_context(Spool.open(config.spool_dir))
    except NotMade:
        return MailLog(time.time, lambda *_: None, None, shown=Level.ERROR)
    return open_log(real, Level.ERROR, keep=math.inf)


def _queue(spool: Spool, log: MailLog, to: str, sender: str) -> str:
    now = time.time()
    envelope = Envelope(sender, (Recipient(to),), smtputf8=not (sender + to).isascii())
    incoming = Incoming.create(spool, received=now, user="", peer=_PEER, envelope=envelope)
    incoming.write(mail.text(sender, to, now))
    incoming.seal(now)
    make_durable(spool, incoming)
    incoming.release()
    log.accepted(id=incoming.id, envelope=envelope, size=incoming.size, user="", peer=_PEER)
    return incoming.id


async def _run(config: Config, spool: Spool, log: MailLog, show: Callable[[str], None] | None) -> None:
    hostname = own_name(config)
    say = (lambda line: show(f"  {line}")) if show else None
    async with open_runner(config, spool, log, clocks(), hostname=hostname, limit=1, say=say) as runner:
        await runner.once(asyncio.Event(), float(config.sending.shutdown_grace))
