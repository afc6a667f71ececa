"""The spools of all hosts that share `spoolDir`, for commands that only read: they show them as one."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from mailer.cli.exits import Exit, Failure
from mailer.cli.output import tell
from mailer.cli.program import system_words
from mailer.cli.setup import CommandContext
from mailer.spool.directory import Spool
from mailer.spool.hosts.neighbour import Neighbour

T = TypeVar("T")


@contextmanager
def all_spools(context: CommandContext) -> Iterator[tuple[Neighbour, ...]]:
    """Open the spools of all hosts for reading, this host's first; report those that cannot be opened."""
    found = [Neighbour(context.config.host, context.spool)]
    with ExitStack() as opened:
        if context.config.shared_dir is not None:
            for name, spool in _others(context.spool):
                found.append(Neighbour(name, opened.enter_context(spool)))
        yield tuple(found)


def _others(own: Spool) -> Iterator[tuple[str, Spool]]:
    from mailer.spool.hosts.neighbours import names  # noqa: PLC0415 - most hosts share nothing

    try:
        found = names(own)
    except OSError as error:
        tell(sys.stderr, f"the other hosts are not shown: {system_words(error)}\n")
        return
    for name in found:
        try:
            yield name, Spool.open_unchecked(own.path.parent / name)
        except OSError as error:
            tell(sys.stderr, f"the spool of host {name} is not shown: {system_words(error)}\n")


def first_that_knows(
    neighbours: tuple[Neighbour, ...], ask: Callable[[Neighbour], T], has_it: Callable[[T], bool]
) -> T:
    """Ask for one message in the spool of each host; return the answer of the one that has it.

    Args:
        neighbours: the spools, at least one.
        ask: returns the answer, or raises Failure with `Exit.NO_INPUT` if the message is not known there.
        has_it: whether the message is there, and not just known to have been.

    Raises:
        Failure: no spool knows it, as the first one says; or `ask` failed otherwise.
    """
    known: list[T] = []
    unknown: list[Failure] = []
    for each in neighbours:
        try:
            answer = ask(each)
        except Failure as failure:
            if failure.code is not Exit.NO_INPUT:
                raise
            unknown.append(failure)
            continue
        if has_it(answer):
            return answer
        known.append(answer)
    if not known:
        raise unknown[0]
    return known[0]
