"""`mailer spool move`: hand messages over to another spool, on this host or by ssh on another."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mailer.cli.exits import Exit, Failure
from mailer.cli.options import examples
from mailer.cli.output import json_line, tell
from mailer.cli.program import system_words
from mailer.cli.setup import CommandContext, changing_context, command_context, configuration
from mailer.cli.spool.other_spool import place_of, started_by_caller, started_here
from mailer.cli.spool.selection import Filter, locate_here
from mailer.cli.spool.verbs import Order, bulk
from mailer.spool import words
from mailer.spool.entry import Corrupt
from mailer.spool.handover.alone import Occupied, alone
from mailer.spool.handover.leaving import MOVABLE
from mailer.spool.handover.mover import Mover, Outcome, Result
from mailer.spool.handover.parking import RESTING
from mailer.spool.handover.wire import Broken, Greeting, Pipe
from mailer.spool.journal import Kind
from mailer.spool.layout import Spot
from mailer.spool.locked_message import Missed, Unsafe
from mailer.spool.run.operate import Operator, Refused
from mailer.spool.view.inspect import listing, recipients_of

if TYPE_CHECKING:
    from subprocess import Popen

_CODES = {
    Result.BUSY: Exit.TEMPORARY,
    Result.GONE: Exit.TEMPORARY,
    Result.FAILED: Exit.TEMPORARY,
    Result.WAITING: Exit.TEMPORARY,
    Result.REFUSED: Exit.DATA,
}


@click.command(
    epilog=examples(
        "mailer spool move --all --to-spool /mnt/new/spool      the disk is to be replaced",
        "mailer spool move --all --via 'ssh relay2'             this host is to be taken down",
        "mailer spool move --via 'ssh relay2' --recipient @example.net --dry-run",
        "mailer spool move --resume --via 'ssh relay2'          finish after an interruption",
    )
)
@bulk(*MOVABLE)
@click.option(
    "--via",
    metavar="COMMAND",
    help="Move to the spool that `COMMAND mailer spool receive-moved` writes to, such as that of a host by "
    "`ssh HOST`. No shell is involved.",
)
@click.option(
    "--to-spool",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Move to a spool on this host; it is created in a directory that is empty or does not exist.",
)
@click.option("--resume", is_flag=True, help="Finish moves that were interrupted.")
@click.option(
    "--take",
    is_flag=True,
    help="Send messages from here whose move was interrupted, because the other spool is lost. If "
    "it is not, they may be sent twice.",
)
def move(  # noqa: PLR0913 - one for each option
    *,
    via: str | None,
    directory: Path | None,
    resume: bool,
    take: bool,
    ids: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    as_json: bool,
    **asked: Any,  # noqa: ANN401 - click converts them as `bulk` declares
) -> Exit:
    """Move messages to another spool, on this host or another, with their history.

    A message keeps its id, its age, its attempts and its state, and is sent from exactly one of the spools
    whatever crashes. Runners and receivers may be at work on both; a message that a runner has claimed stays.
    What an interruption leaves between the spools is sent by neither until --resume, which goes to the same
    spool; `ls` and `why` show it.

    The exit code is 75 when a message could not be moved for now, or is between the spools (with --json its
    result is waiting); the others are still moved.
    """
    if take and (via or directory or resume or not ids):
        raise click.UsageError("--take needs IDs, and goes without --via, --to-spool and --resume.")
    if not take and (via is None) == (directory is None):
        raise click.UsageError("Say where to: either --via COMMAND or --to-spool DIR.")
    wanted = Filter(**asked)
    if resume and wanted:
        raise click.UsageError("--resume goes with IDs, or finishes everything; filters do not apply.")
    order = Order(ids, everything or (resume and not ids), dry_run, as_json, wanted)
    order.check()
    loaded = configuration()
    opened = command_context if dry_run else changing_context
    with started_by_caller(via, dry_run=dry_run) as child, opened(loaded) as context:
        moves = Moves(context, order, resumes=resume)
        event = "taken" if take else "moved"
        if dry_run:
            return moves.report((Outcome(spot, Result.DONE) for spot in moves.spots()), event)
        if take:
            return moves.report(map(moves.take, list(moves.spots())), event)
        if child is not None:
            return moves.over(child)
        assert directory is not None
        with started_here(loaded, directory, context.spool) as local:
            return moves.over(local)


class Moves:
    """One order to move messages, at work."""

    def __init__(self, context: CommandContext, order: Order, *, resumes: bool) -> None:
        self._context = context
        self._order = order
        self._resumes = resumes

    def spots(self) -> Iterator[Spot]:
        """Yield the messages to move."""
        context, order = self._context, self._order
        if order.ids:
            yield from dict.fromkeys([locate_here(context, prefix) for prefix in order.ids])
            return
        now = time.time()
        if not self._resumes:
            yield from (seen.spot for seen in order.wanted.select(context.spool, MOVABLE, now))
            return
        for seen in listing(context.spool, now, MOVABLE):
            if seen.entry is None:
                if seen.spot.place in RESTING:
                    yield seen.spot  # It may be one of them, and will be refused with the reason.
            elif (begun := seen.entry.state.move) and begun.event != Kind.ARRIVING:
                yield seen.spot

    def over(self, child: "Popen[bytes]") -> Exit:
        """Move them to the spool at the other end of a child's pipes."""
        assert child.stdin
        assert child.stdout
        pipe = Pipe(child.stdout.fileno(), child.stdin.fileno())
        spool = self._context.spool
        try:
            where = pipe.greet(Greeting(place_of(spool), ""))
        except Broken as broken:
            child.stdin.close()
            code = child.wait()
            raise Failure(
                Exit.UNAVAILABLE, f"the other spool does not answer ({broken}; exit code {code})"
            ) from broken
        mover = Mover(spool, pipe, self._context.operator, time.time, where)
        try:
            with alone(spool):
                moved = mover.move(self.spots(), resumes=self._resumes)
                return self.report(moved, "moved", f"to {where.place}")
        except Occupied as error:
            raise Failure(
                Exit.TEMPORARY,
                f"another move is under way in {spool.path}, or {where.place} is this same spool",
            ) from error
        except Broken as broken:
            tell(sys.stderr, f"the connection to {where.place} was lost: {broken}\n")
            return Exit.TEMPORARY
        finally:
            child.stdin.close()
            child.wait()

    def take(self, spot: Spot) -> Outcome:
        """Send a message from here, on the operator's word."""
        to = recipients_of(self._context.spool, spot)
        try:
            Operator(self._context.spool, self._context.operator).taking(spot, time.time()).complete()
        except (Refused, Unsafe, Corrupt) as error:
            return Outcome(spot, Result.REFUSED, str(error))
        except Missed:
            return Outcome(spot, Result.BUSY, "another program has it")
        except OSError as error:
            return Outcome(spot, Result.FAILED, system_words(error))
        return Outcome(spot, Result.DONE, to=to)

    def report(self, outcomes: Iterator[Outcome], event: str, reason: str = "") -> Exit:
        """Print and log each outcome; return the exit code."""
        results: Counter[Result] = Counter()
        would = "would be " if self._order.dry_run else ""
        try:
            for outcome in outcomes:
                results[outcome.result] += 1
                self._tell(outcome, f"{would}{event}")
                if outcome.result is Result.DONE and not self._order.dry_run:
                    self._context.log.message(
                        event, id=outcome.spot.name, to=outcome.to, by=self._context.operator, reason=reason
                    )
        finally:
            parts = [f"{words.count(results[Result.DONE], 'message')} {would}{event}"]
            parts += [f"{results[result]} {result}" for result in _CODES if results[result]]
            tell(sys.stderr, ", ".join(parts) + "\n")
            if results[Result.WAITING]:
                tell(
                    sys.stderr,
                    "those that are waiting are sent by neither spool: repeat this with --resume\n",
                )
        return max((_CODES[result] for result in results if result in _CODES), default=Exit.OK)

    def _tell(self, outcome: Outcome, done: str) -> None:
        spot = outcome.spot
        if self._order.as_json:
            record = {
                "id": spot.name,
                "action": "move",
                "state": spot.place.value,
                "result": outcome.result.value,
                "reason": outcome.reason,
                "dryRun": self._order.dry_run,
            }
            tell(sys.stdout, json_line(record))
        elif outcome.result is Result.DONE:
            tell(sys.stdout, f"{spot.name} {done} (was in {spot.place}/)\n")
        else:
            tell(sys.stdout, f"{spot.name} {outcome.result}: {outcome.reason}\n")
