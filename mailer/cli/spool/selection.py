"""Select the messages for a command: by ids, which may be shortened, or by filters."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import click
import msgspec

from mailer.cli.exits import Exit, Failure
from mailer.cli.neighbours import all_spools
from mailer.cli.options import DURATION
from mailer.cli.setup import CommandContext
from mailer.cli.synonyms import STATES, Word
from mailer.mail.patterns import is_part_of
from mailer.spool.directory import Spool
from mailer.spool.layout import Place, Spot
from mailer.spool.scan import QUEUE, find
from mailer.spool.view.inspect import EVERYTHING, Seen, Share, listing
from mailer.spool.view.summary import Summary, of_seen, summaries

_Function = TypeVar("_Function", bound=Callable[..., Any])

_MAX_SHOWN = 10
"""The most candidates to list when an id is ambiguous."""


def locate(spool: Spool, prefix: str, places: Iterable[Place] = QUEUE) -> Spot:
    """Find the one message whose id begins with a prefix.

    Raises:
        Failure: there is none, or more than one; if so, the failure lists them.
    """
    found = find(spool, prefix, places)
    if not found:
        raise Failure(
            Exit.NO_INPUT,
            f"{prefix}: no such message in the queue; "
            f"if it was delivered or removed, this explains it: mailer spool why {prefix}",
        )
    if len(found) > 1:
        raise ambiguous(prefix, sorted(spot.name for spot in found))
    return found[0]


def locate_here(context: CommandContext, prefix: str, places: Iterable[Place] = QUEUE) -> Spot:
    """Find the one message of this host whose id begins with a prefix, for a command that changes it.

    Raises:
        Failure: as `locate`; a message of another host is changed there.
    """
    try:
        return locate(context.spool, prefix, places)
    except Failure as failure:
        if failure.code is not Exit.NO_INPUT:
            raise
        with all_spools(context) as hosts:
            for each in hosts[1:]:
                if find(each.spool, prefix, places):
                    why = f"{prefix} is in the spool of host {each.host}: give the command on that host"
                    raise Failure(Exit.NO_INPUT, why) from None
        raise


def ambiguous(prefix: str, ids: list[str]) -> Failure:
    more = f" and {len(ids) - _MAX_SHOWN} more" if len(ids) > _MAX_SHOWN else ""
    return Failure(
        Exit.USAGE, f"{prefix}: {len(ids)} messages begin with this: {', '.join(ids[:_MAX_SHOWN])}{more}"
    )


class Filter(msgspec.Struct, frozen=True):
    """The values of `--state`, `--sender`, `--recipient` and `--older`; a message must match all of them."""

    states: tuple[Place, ...] = ()
    sender: str | None = None
    recipient: str | None = None
    older: float | None = None
    """The least age in seconds since the message was received."""

    def __bool__(self) -> bool:
        """Return whether there is any condition."""
        return bool(self.states) or self.asks_for_contents

    @property
    def asks_for_contents(self) -> bool:
        """Whether messages must be read to be matched."""
        return not (self.sender is None and self.recipient is None and self.older is None)

    def select(
        self, spool: Spool, places: tuple[Place, ...], now: float, mine: Share = EVERYTHING
    ) -> Iterator[Seen]:
        """Stream the messages that match, from `places` unless `--state` is given."""
        found = listing(spool, now, self.states or places, mine)
        return (seen for seen in found if self.matches(of_seen(seen), now))

    def summary(
        self, spool: Spool, places: tuple[Place, ...], now: float, mine: Share = EVERYTHING
    ) -> Iterator[Seen | Summary]:
        """Stream the same messages as `select`, with only the columns of a listing."""
        found = summaries(spool, now, self.states or places, mine)
        if not self.asks_for_contents:
            return found
        return (one for one in found if self.matches(of_seen(one), now))

    def matches(self, summary: Summary | None, now: float) -> bool:
        """Return whether a message matches; an unreadable one (None) can match only by its state."""
        if summary is None:
            return not self.asks_for_contents
        if self.older is not None and now - summary.received < self.older:
            return False
        if self.sender is not None and not _matches(self.sender, summary.sender):
            return False
        wanted = self.recipient
        return wanted is None or any(_matches(wanted, address) for address in summary.recipients)


def _matches(wanted: str, address: str) -> bool:
    if wanted in {"", "<>"}:
        return address == ""
    return is_part_of(wanted, address)


def filters(*states: Place) -> Callable[[_Function], _Function]:
    """Add the filter options to a command, as the parameters `states`, `sender`, `recipient` and `older`."""

    def decorate(function: _Function) -> _Function:
        for option in reversed(
            (
                click.option(
                    "--state",
                    "states",
                    multiple=True,
                    type=Word([place.value for place in states], STATES),
                    callback=lambda _, __, names: tuple(map(Place, names)),
                    help="Only messages in this state; may be repeated.",
                ),
                click.option(
                    "--sender", metavar="TEXT", help="Whose sender contains this; '<>' is the null sender."
                ),
                click.option(
                    "--recipient", metavar="TEXT", help="With a recipient whose address contains this."
                ),
                click.option(
                    "--older",
                    type=DURATION,
                    metavar="DURATION",
                    help="Received longer ago than this: 5m, 1h30m, 2d, 1w.",
                ),
            )
        ):
            function = option(function)
        return function

    return decorate
