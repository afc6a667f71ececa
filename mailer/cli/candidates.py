"""What a shell offers for a value at Tab: message ids, providers, users, and the senders of a user.

It only reads, ends within a moment however much is queued, and is silent about trouble: a prompt is not the
place for it, and the command itself will say what is wrong.
"""

import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice, takewhile

import click

from mailer.cli.setup import configuration
from mailer.config.hops import by_name
from mailer.config.model import Config
from mailer.spool.layout import LOG, Place, Spool
from mailer.spool.scan import QUEUE, spots

_PATIENCE = 0.5
"""Seconds in which ids are looked for; some 500,000 files."""
_MOST = 200
"""Values offered at once: more is not a choice."""
_RECENT = 500
"""Lines of the ledger in which ids of delivered mail are looked for."""


def message_ids(
    context: click.Context, incomplete: str, places: Iterable[Place] = QUEUE, *, delivered: bool = False
) -> list[str]:
    """Offer the ids of queued messages, the newest first; with `delivered` recent ones of the ledger, too."""
    prefix, found = incomplete.upper(), set[str]()
    with suppress(Exception), Spool.look(_config(context).spool_dir) as spool:
        end = time.monotonic() + _PATIENCE
        for spot in spots(spool, places):
            if spot.name.startswith(prefix):
                found.add(spot.name)
            if time.monotonic() > end:
                break
        if delivered:
            found.update(one for one in _recent(spool) if one.startswith(prefix))
    ids = sorted(found, reverse=True)
    # A shell completes what all have in common: of a sorted list that is what the first and the last have.
    return ids if len(ids) <= _MOST else [*ids[: _MOST - 1], ids[-1]]


def _recent(spool: Spool) -> Iterator[str]:
    from mailer.maillog.search import Query, find  # noqa: PLC0415 - only where delivered mail is offered

    lines = find(partial(spool.directory, LOG), Query(), newest_first=True, now=time.time())
    return (found.line.id for found in islice(lines, _RECENT) if found.line.id)


def providers(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Offer the configured providers by name, switched on or not."""
    return _beginning(incomplete, lambda: by_name(_config(context).every_provider))


def suppressed(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Offer what the suppression list has."""
    from mailer.spool.state.suppression import entries  # noqa: PLC0415 - only here

    def listed() -> Iterator[str]:
        end = time.monotonic() + _PATIENCE
        with Spool.look(_config(context).spool_dir) as spool:
            yield from takewhile(lambda _: time.monotonic() < end, (one.address for one in entries(spool)))

    return _beginning(incomplete, listed)


def users(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Offer the names in the users file."""
    return _beginning(incomplete, lambda: _users(context))


def senders(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Offer what the user whose name was typed may send as."""
    return _beginning(incomplete, lambda: _users(context)[context.params["name"]])


def _users(context: click.Context) -> Mapping[str, tuple[str, ...]]:
    from mailer.config.trust import owners_of  # noqa: PLC0415 - only when a user is completed
    from mailer.config.users import read_users  # noqa: PLC0415 - the same

    config = _config(context)
    return {
        name: user.allowed_senders
        for name, user in read_users(config.users_file, owners_of(config.spool_dir)).items()
    }


def _config(context: click.Context) -> Config:
    with context.scope(cleanup=False):  # of the command line so far, which may have --config
        return configuration().config


def _beginning(incomplete: str, offered: Callable[[], Iterable[str]]) -> list[str]:
    with suppress(Exception):
        return [_quoted(value) for value in offered() if value.startswith(incomplete)][:_MOST]
    return []


def _quoted(value: str) -> str:
    """Quote a value for bash, which takes it as it stands; zsh and fish quote what they insert.

    Within quotes that were typed already it is bash that closes them.
    """
    typed = os.environ.get("COMP_WORDS", "")
    bash = os.environ.get("_MAILER_COMPLETE", "").startswith("bash")
    return shlex.quote(value) if bash and not {"'", '"'} & set(typed) else value
