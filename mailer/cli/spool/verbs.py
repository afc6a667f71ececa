"""`mailer spool retry`, `hold`, `release` and `rm`: operate on single messages, and on many."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import click
import msgspec

from mailer.cli.arguments import MessageId
from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.output import json_line, tell
from mailer.cli.program import system_words
from mailer.cli.setup import CommandContext, changing_context, command_context
from mailer.cli.spool.selection import Filter, filters, locate, locate_here
from mailer.mail.reply import printable
from mailer.spool import words
from mailer.spool.entry import Corrupt
from mailer.spool.layout import Place, Spot, is_scheduled
from mailer.spool.locked_message import Busy, Gone, Unsafe
from mailer.spool.run.operate import Begun, Operator, Refused, complete_together
from mailer.spool.scan import QUEUE
from mailer.spool.state import provider_state
from mailer.spool.view.inspect import recipients_of

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Begin = Callable[[Operator, Spot, float], Begun | None]

_BATCH = 200
"""The most messages to make durable together: each is an open file until then."""

_MAX_SEARCHES = 10
"""The most searches for a message named by its id that is moved each time before the operation."""


class Result(StrEnum):
    """The result of an operation on one message."""

    DONE = "done"
    BUSY = "busy"
    REFUSED = "refused"
    GONE = "gone"
    FAILED = "failed"
    """The system returned an error; the other messages are still tried."""


_CODES = {
    Result.BUSY: Exit.TEMPORARY,
    Result.GONE: Exit.TEMPORARY,
    Result.FAILED: Exit.TEMPORARY,
    Result.REFUSED: Exit.DATA,
}


class Verb(msgspec.Struct, frozen=True):
    """An operation that the operator can apply to messages."""

    name: str
    event: str
    """The event in the ledger, which is also printed."""
    begin: _Begin
    places: tuple[Place, ...]
    """Where --all, and filters without --state, look for messages."""
    reason: str = ""
    """The reason to record in the ledger."""
    now: bool = False
    """Whether the messages are to be tried now, so that paused providers are also tried."""


class Order(msgspec.Struct, frozen=True):
    """The arguments and options of the command line."""

    ids: tuple[str, ...]
    everything: bool
    dry_run: bool
    as_json: bool
    wanted: Filter

    def check(self) -> None:
        """Reject an ambiguous order before anything is touched; raises click.UsageError."""
        if self.ids and (self.everything or self.wanted):
            raise click.UsageError(
                "Name messages by their IDs, or choose them with filters or --all, not both."
            )
        if not self.ids and not self.everything and not self.wanted:
            raise click.UsageError("Name messages by their IDs, or choose them with a filter, or use --all.")


def bulk(*states: Place) -> Callable[[_Function], _Function]:
    """Add ids, filters and the options of a bulk operation to a command."""

    def decorate(function: _Function) -> _Function:
        for option in (
            config_option,
            json_of(
                "id, action, state (where it was), result (done busy refused gone failed), reason, dryRun"
            ),
            click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
            click.option(
                "--all", "everything", is_flag=True, help="All messages that the command applies to."
            ),
            filters(*states),
            click.argument("ids", nargs=-1, metavar="[ID]...", type=MessageId(*states)),
        ):
            function = option(function)
        return function

    return decorate


@click.command(
    epilog=examples(
        "mailer spool retry 01JD0M3Q",
        "mailer spool retry --recipient @example.net --dry-run",
        "mailer spool retry --state failed --older 1d",
    )
)
@bulk(*(place for place in QUEUE if place is not Place.CORRUPT))
def retry(**asked: Any) -> Exit:  # noqa: ANN401 - click converts them as `bulk` declares
    """Try messages at the next run: deferred and failed ones, and held ones that are named.

    Recipients that were sent are not tried again. Recipients that were refused are tried again if the message
    is named by its ID, or has failed; --all and filters do not retry them in a message that waits for others.

    --all and filters select deferred and failed messages; held ones only with --state hold. A message that
    its sender has scheduled for later is sent now only when it is named by its ID. The exit code is 75 when a
    runner has claimed one of the messages, or an error occurred; the others are still retried.
    """
    begin = Operator.retrying if asked["ids"] else Operator.hastening
    return _run(Verb("retry", "requeued", begin, (Place.RETRY, Place.FAILED), now=True), **asked)


@click.command(
    epilog=examples(
        'mailer spool hold 01JD0M3Q --reason "asked the customer first"',
        "mailer spool hold --sender newsletter@",
    )
)
@bulk(*(place for place in QUEUE if place not in {Place.HOLD, Place.CORRUPT}))
@click.option("--reason", default="", metavar="TEXT", help="Recorded in the journal, and shown by `why`.")
def hold(*, reason: str, **asked: Any) -> Exit:  # noqa: ANN401 - as above
    """Keep messages from being sent until they are released or retried.

    --all and filters select messages that wait to be sent; failed ones only with --state failed.
    """
    reason = printable(reason)

    def begin(operator: Operator, spot: Spot, now: float) -> Begun:
        return operator.holding(spot, now, reason)

    return _run(Verb("hold", "held", begin, (Place.NEW, Place.CUR, Place.RETRY), reason), **asked)


@click.command(
    epilog=examples(
        "mailer spool release 01JD0M3Q",
        "mailer spool release --all",
    )
)
@bulk(Place.HOLD)
def release(**asked: Any) -> Exit:  # noqa: ANN401 - as above
    """Return held messages to the state that they were in."""
    return _run(Verb("release", "released", Operator.releasing, (Place.HOLD,)), **asked)


@click.command(
    epilog=examples(
        "mailer spool rm 01JD0M3Q",
        "mailer spool rm --state corrupt --dry-run",
    )
)
@bulk(*QUEUE)
def rm(**asked: Any) -> Exit:  # noqa: ANN401 - as above
    """Delete messages permanently; senders are not notified."""

    def begin(operator: Operator, spot: Spot, _: float) -> Begun | None:
        return operator.removing(spot)

    return _run(Verb("rm", "removed", begin, QUEUE), **asked)


def _run(
    verb: Verb,
    *,
    ids: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    as_json: bool,
    **asked: Any,  # noqa: ANN401 - as above
) -> Exit:
    order = Order(ids, everything, dry_run, as_json, Filter(**asked))
    order.check()
    results: Counter[Result] = Counter()
    with command_context() if dry_run else changing_context() as context:
        # Resolve all ids before touching the first message: a mistyped id must not leave half the work done.
        targets = [locate_here(context, prefix) for prefix in order.ids]
        chosen = iter(dict.fromkeys(targets)) if targets else _chosen(context, order.wanted, verb.places)
        if verb.now and not targets:
            chosen = (spot for spot in chosen if not is_scheduled(spot.bucket))
        if verb.now and not dry_run:
            _end_pauses(context)
        do = _do_nothing if dry_run else partial(_do, verb, context, named=bool(targets))
        while some := list(islice(chosen, _BATCH)):
            for spot, (result, reason) in do(some):
                results[result] += 1
                _report(verb, order, spot, result, reason)
    _summarise(verb, results, dry_run=dry_run)
    return max((_CODES[result] for result in results if result in _CODES), default=Exit.OK)


def _end_pauses(context: CommandContext) -> None:
    try:
        provider_state.end_pauses(context.spool, datetime.now(UTC))
    except OSError as error:
        context.log.warning(
            "state/providers.json cannot be written; paused providers stay paused", error=error.strerror
        )


def _chosen(context: CommandContext, wanted: Filter, places: tuple[Place, ...]) -> Iterator[Spot]:
    return (seen.spot for seen in wanted.select(context.spool, places, time.time()))


_Done = tuple[Result, str]


def _do_nothing(spots: Sequence[Spot]) -> Iterator[tuple[Spot, _Done]]:
    return ((spot, (Result.DONE, "")) for spot in spots)


def _do(
    verb: Verb, context: CommandContext, spots: Sequence[Spot], *, named: bool
) -> Iterator[tuple[Spot, _Done]]:
    """Begin the operation on each message, make all of them durable together, and yield each result."""
    hastened = verb.begin is Operator.hastening
    whom = [recipients_of(context.spool, spot, waiting=hastened) for spot in spots]
    begun = [_begin(verb, context, spot, named=named) for spot in spots]
    finished = iter(complete_together(context.spool, [one for one in begun if isinstance(one, Begun)]))
    for spot, to, one in zip(spots, whom, begun, strict=True):
        error = next(finished) if isinstance(one, Begun) else None
        if isinstance(one, tuple):
            yield spot, one
        elif error:
            yield spot, (Result.FAILED, system_words(error))
        else:
            context.log.message(verb.event, id=spot.name, to=to, by=context.operator, reason=verb.reason)
            yield spot, (Result.DONE, "")


def _begin(verb: Verb, context: CommandContext, spot: Spot, *, named: bool) -> Begun | _Done | None:
    try:
        return _try(verb, context, spot, named=named)
    except OSError as error:
        return Result.FAILED, system_words(error)


def _try(verb: Verb, context: CommandContext, spot: Spot, *, named: bool) -> Begun | _Done | None:
    operator = Operator(context.spool, context.operator)
    for _ in range(_MAX_SEARCHES):
        try:
            return verb.begin(operator, spot, time.time())
        except Gone:
            if not named:
                break
            try:
                spot = locate(context.spool, spot.name)
            except Failure:
                break
        except Busy:
            return Result.BUSY, "a runner has claimed it"
        except (Refused, Unsafe, Corrupt) as error:
            return Result.REFUSED, str(error)
    return Result.GONE, "it was moved or removed"


def _report(verb: Verb, order: Order, spot: Spot, result: Result, reason: str) -> None:
    if order.as_json:
        record = {
            "id": spot.name,
            "action": verb.name,
            "state": spot.place.value,
            "result": result.value,
            "reason": reason,
            "dryRun": order.dry_run,
        }
        tell(sys.stdout, json_line(record))
    elif result is not Result.DONE:
        tell(sys.stdout, f"{spot.name} {result}: {reason}\n")
    else:
        would = "would be " if order.dry_run else ""
        tell(sys.stdout, f"{spot.name} {would}{verb.event} (was in {spot.place}/)\n")


def _summarise(verb: Verb, results: Counter[Result], *, dry_run: bool) -> None:
    """Print the counts on standard error, so that standard output has only one line per message."""
    would = "would be " if dry_run else ""
    parts = [f"{words.count(results[Result.DONE], 'message')} {would}{verb.event}"]
    parts += [f"{results[result]} {result}" for result in _CODES if results[result]]
    tell(sys.stderr, ", ".join(parts) + "\n")
