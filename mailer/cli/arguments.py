"""Argument values that a shell completes: message ids, providers, users, and the senders of a user.

Completion only reads, and its time is bounded however long the queue is. It hides errors: they would clutter
the prompt, and the command itself reports them when it is run.
"""

import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any

import click

from mailer.cli.setup import configuration
from mailer.config.hops import by_name
from mailer.config.model import Config
from mailer.mail.reply import printable
from mailer.spool.directory import Spool
from mailer.spool.ids import is_prefix
from mailer.spool.layout import LOG, Place
from mailer.spool.scan import QUEUE, spots

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_SEARCH_SECONDS = 0.5
"""Seconds to search for ids, which is enough for about 500,000 files."""
_MOST = 200
"""The most values to offer; a longer list is of no help to the user."""
_RECENT_LINES = 500
"""The number of ledger lines, from the end, to search for ids of delivered messages."""


class MessageId(click.ParamType[str]):
    """A message id or the beginning of one, with shell completion."""

    name = "id"

    def __init__(self, *places: Place, delivered: bool = False) -> None:
        """Complete ids from these places, by default the queue; with `delivered`, also from the ledger."""
        self._places = places
        self._delivered = delivered

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401, ARG002 - click's signature
        return _message_id(value)

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only for a Tab

        found = message_ids(ctx, incomplete, self._places or QUEUE, delivered=self._delivered)
        return list(map(CompletionItem, found))


def _message_id(text: str) -> str:
    """Parse an id or the beginning of one; reject anything else before the command touches the spool."""
    prefix = text.upper()
    if not is_prefix(prefix):
        said = f'"{printable(text, 80)}" is not a message id, nor the beginning of one'
        if "@" in text:
            said += f". The mail of an address: mailer log --to {shlex.quote(printable(text, 320))}"
        raise click.BadParameter(said)
    return prefix


def message_ids(
    context: click.Context, incomplete: str, places: Iterable[Place] = QUEUE, *, delivered: bool = False
) -> list[str]:
    """Offer ids of queued messages, the newest first; with `delivered`, also recent ids from the ledger."""
    prefix, found = incomplete.upper(), set[str]()
    with suppress(Exception), Spool.open_unchecked(_config(context).spool_dir) as spool:
        end = time.monotonic() + _SEARCH_SECONDS
        for spot in spots(spool, places):
            if spot.name.startswith(prefix):
                found.add(spot.name)
            if time.monotonic() > end:
                break
        if delivered:
            found.update(one for one in _recent(spool) if one.startswith(prefix))
    ids = sorted(found, reverse=True)
    # A shell completes the common prefix of all values: in a sorted list, that of the first and the last.
    return ids if len(ids) <= _MOST else [*ids[: _MOST - 1], ids[-1]]


def _recent(spool: Spool) -> Iterator[str]:
    from mailer.maillog.search import Query, find  # noqa: PLC0415 - only where delivered mail is offered

    lines = find(partial(spool.directory, LOG), Query(), newest_first=True, now=time.time())
    return (found.line.id for found in islice(lines, _RECENT_LINES) if found.line.id)


def providers(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Offer the names of all configured providers, enabled or not."""
    return _beginning(incomplete, lambda: by_name(_config(context).every_provider))


def suppressed(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Offer the addresses and domains on the suppression list."""
    from mailer.spool.state.suppression import entries  # noqa: PLC0415 - only here

    def listed() -> Iterator[str]:
        end = time.monotonic() + _SEARCH_SECONDS
        with Spool.open_unchecked(_config(context).spool_dir) as spool:
            yield from takewhile(lambda _: time.monotonic() < end, (one.address for one in entries(spool)))

    return _beginning(incomplete, listed)


def users(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Offer the names in the users file."""
    return _beginning(incomplete, lambda: _users(context))


def senders(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Offer the allowed senders of the user whose name was typed."""
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
    with context.scope(cleanup=False):  # The command line typed so far may have --config.
        return configuration().config


def _beginning(incomplete: str, offered: Callable[[], Iterable[str]]) -> list[str]:
    with suppress(Exception):
        return [_quoted(value) for value in offered() if value.startswith(incomplete)][:_MOST]
    return []


def _quoted(value: str) -> str:
    """Quote a value for bash, which inserts it unchanged; zsh and fish quote values themselves.

    If the user has already typed an opening quote, bash closes it, so the value is not quoted here.
    """
    typed = os.environ.get("COMP_WORDS", "")
    bash = os.environ.get("_MAILER_COMPLETE", "").startswith("bash")
    return shlex.quote(value) if bash and not {"'", '"'} & set(typed) else value
