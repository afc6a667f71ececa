"""`mailer log`: search, print and follow the ledger."""

import contextlib
import heapq
import shlex
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NoReturn

import click

from mailer.cli import synonyms
from mailer.cli.arguments import MessageId
from mailer.cli.exits import Exit, Failure
from mailer.cli.neighbours import all_spools
from mailer.cli.options import DURATION, DURATION_IS, config_option, examples, json_of
from mailer.cli.output import end_with_the_pipe
from mailer.cli.setup import command_context
from mailer.cli.synonyms import Word
from mailer.mail.duration import duration
from mailer.mail.patterns import is_part_of
from mailer.mail.reply import printable, printable_json
from mailer.maillog.ledger import EVENTS, Line, OpenDirectory, losing_since
from mailer.maillog.lines import decode, whole
from mailer.maillog.search import Found, Query, find, lines_of
from mailer.maillog.tail import Tail
from mailer.send.hop_names import named
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.ids import earliest, is_prefix
from mailer.spool.layout import LOG

if TYPE_CHECKING:
    from mailer.cli.log_summary import LogSummary

_POLL_INTERVAL = 0.25
"""Seconds between two polls of the ledger with --follow; a poll makes three system calls."""
_FOLLOWED_LINES = 10
"""The number of lines to print before new ones, as tail(1) does."""


def _moment(text: str) -> float:
    """Parse a time (UTC if it has no zone), a date, `today`, `yesterday`, or a duration (`2d`, `2d ago`)."""
    now = time.time()
    midnight = now - now % 86_400
    if text in {"today", "yesterday"}:
        return midnight if text == "today" else midnight - 86_400
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return now - _ago(text.removesuffix("ago").rstrip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _ago(text: str) -> float:
    try:
        return float(DURATION(text))
    except click.BadParameter:
        raise click.BadParameter(
            'a time is "2026-11-22", "2026-11-22 21:45" (UTC), "today", "yesterday", or how long ago: '
            + DURATION_IS
        ) from None


MOMENT = click.types.FuncParamType(_moment)


@click.command(
    epilog=examples(
        "mailer log --id 01JD0M3Q",
        "mailer log --to bob@example.net --since 2d",
        "mailer log --status bounced --status expired --since yesterday --json",
        'mailer log --subject "your order" --since today',
        "mailer log --follow --from app@",
        "mailer log -n 50",
    )
)
@click.option("-f", "--follow", is_flag=True, help="Keep running, and print new lines as they are written.")
@click.option("--id", "message_id", type=MessageId(delivered=True), metavar="ID", help="Of this message.")
@click.option("--to", metavar="TEXT", help="With a recipient whose address contains this.")
@click.option("--from", "sender", metavar="TEXT", help="Whose sender contains this; '<>' is the null sender.")
@click.option("--subject", metavar="TEXT", help="Whose subject contains this (accepted and refused mail).")
@click.option("--message-id", "msgid", metavar="TEXT", help="Whose Message-ID contains this.")
@click.option(
    "--status",
    "events",
    multiple=True,
    type=Word(EVENTS, synonyms.EVENTS),
    help="Of this kind; may be repeated.",
)
@click.option(
    "--since",
    type=MOMENT,
    metavar="TIME",
    help='Not before: "30m", "12h", "1w" ago, "today", "yesterday", "2026-11-22", "2026-11-22 21:45".',
)
@click.option("--until", type=MOMENT, metavar="TIME", help="Before; as --since.")
@click.option("-n", "--lines", type=click.IntRange(min=0), metavar="N", help="No more than the last N.")
@json_of("the lines of the ledger, whose fields spool/README.md lists")
@config_option
@click.argument("mistaken", nargs=-1, metavar="")
def log(  # noqa: PLR0913 - one parameter for each option
    *,
    mistaken: tuple[str, ...],
    follow: bool,
    message_id: str | None,
    to: str | None,
    sender: str | None,
    subject: str | None,
    msgid: str | None,
    events: tuple[str, ...],
    since: float | None,
    until: float | None,
    lines: int | None,
    as_json: bool,
) -> Exit:
    """Print what happened to mail, from the ledger; the earliest first, times in UTC.

    --follow begins with the last 10 lines, unless --since or -n selects others. The exit code is 66 when the
    ledger has no line about the message that --id names. A search for a recipient, a sender or a subject ends
    with a summary on standard error: the state of the last messages found, and what to do first.
    `mailer spool why ID` explains in words everything that happened to one message. With several hosts
    (mailer hosts), each line begins with the host in whose ledger it is; in JSON that is its first field.
    """
    if mistaken:
        _name_the_option(mistaken[0])
    end_with_the_pipe()
    query = Query(
        id=message_id or "",
        to=to,
        sender="" if sender == "<>" else sender,
        subject=subject,
        message_id=msgid,
        events=frozenset(events),
        since=since,
        until=until,
        nothing_before=earliest(message_id) if message_id else None,
    )
    if lines is None and follow and since is None and not message_id:
        lines = _FOLLOWED_LINES
    after = _summary_for(query) if not as_json and not events else None
    with command_context() as context, all_spools(context) as hosts:
        searches = {each.host: _Search(partial(each.spool.directory, LOG), query) for each in hosts}
        known = False
        name = partial(named, context.config)
        for host, found in _merged(searches, lines):
            known = True
            if after:
                after.note(found.line)
            _print(found, name, to or "", host, as_json=as_json)
        if follow:
            _follow(searches, name, as_json=as_json)
        said = [line for each in hosts for line in _losses(each.spool)]
        said += after.lines(context.config, [each.spool for each in hosts]) if after else []
    if message_id and not known:
        raise Failure(Exit.NO_INPUT, f"{message_id}: the ledger has no line about such a message")
    if not known and not as_json and lines != 0:
        # People would wonder whether the search ran at all; a program counts the lines.
        sys.stderr.write("nothing found\n")
    sys.stdout.flush()
    sys.stderr.writelines(f"{line}\n" for line in said)
    return Exit.OK


def _losses(spool: Spool) -> Iterator[str]:
    """Yield a warning if lines cannot be written now: without it "nothing found" would deny mail."""
    with contextlib.suppress(OSError), spool.directory(LOG) as directory:
        if since := losing_since(directory):
            yield (
                f"lines since {since} could not be written: make room in {spool.path / LOG}, or see who may "
                "write there; no mail depends on it, and `mailer spool ls` and journalctl show what happens"
            )


def _summary_for(query: Query) -> "LogSummary | None":
    """Make the summary for a search; None if it names no recipient, sender, subject or Message-ID."""
    if all(wanted is None for wanted in (query.to, query.sender, query.subject, query.message_id)):
        return None
    from mailer.cli.log_summary import LogSummary  # noqa: PLC0415 - its imports are needed for searches only

    return LogSummary(query)


def _name_the_option(text: str) -> NoReturn:
    """Reject a stray argument, and name the option for it: people type an address or an id."""
    option = "--id" if is_prefix(text.upper()) else "--to"
    wanted = shlex.quote(printable(text, 320))
    raise click.UsageError(f"say what {printable(text, 80)} is, with an option: mailer log {option} {wanted}")


class _Search:
    """A search of the existing lines, then of lines added later, without a gap between the two."""

    def __init__(self, directory: OpenDirectory, query: Query) -> None:
        self._directory = directory
        self._query = query
        self.asked = query.to or ""
        """The recipient that was searched for."""
        self._tail = Tail(directory)
        self._tail.skip()

    def lines(self, last: int | None) -> Iterator[Found]:
        """Stream the existing lines that match, or the last ones of them."""
        ends = {day: position.offset for day, position in self._tail.positions.items()}
        if self._query.id:
            found = lines_of(self._directory, self._query, ends=ends)
            return found if last is None else iter(deque(found, last))
        now = time.time()
        if last is None:
            return find(self._directory, self._query, ends=ends, now=now)
        newest = find(self._directory, self._query, newest_first=True, ends=ends, now=now)
        return reversed(list(islice(newest, last)))

    def added(self) -> Iterator[Found]:
        """Yield the lines that were added since, also past midnight and when the directory is replaced."""
        # A directory that is missing may come back.
        with contextlib.suppress(OSError):
            for block in self._tail.blocks():
                for raw in block.split(b"\n"):
                    if (line := decode(raw)) and self._query.matches(line):
                        yield Found(line, whole(raw))


def _merged(searches: Mapping[str, _Search], last: int | None) -> Iterator[tuple[str, Found]]:
    """Stream the existing lines of all hosts by time, each with its host, or the last ones of them."""

    def of(host: str) -> Iterator[tuple[str, Found]]:
        return ((host, found) for found in searches[host].lines(last))

    merged = heapq.merge(*map(of, searches), key=lambda each: each[1].line.at)
    return merged if last is None or len(searches) == 1 else iter(deque(merged, last))


def _follow(searches: Mapping[str, _Search], name: Callable[[str], str], *, as_json: bool) -> NoReturn:
    """Print the lines that are added, until Ctrl-C."""
    while True:
        for host, search in searches.items():
            for found in search.added():
                _print(found, name, search.asked, host, as_json=as_json)
        sys.stdout.flush()
        time.sleep(_POLL_INTERVAL)


def _print(found: Found, name: Callable[[str], str], asked: str, host: str, *, as_json: bool) -> None:
    """Args: host: in whose ledger the line is; empty: there is only one."""
    if as_json:
        raw = printable_json(found.raw.decode(errors="backslashreplace"))
        text = f'{{"host":"{host}",{raw[1:]}' if host else raw
    else:
        text = f"{f'{host}  ' if host else ''}{_in_words(found.line, name, asked)}"
    sys.stdout.write(f"{text}\n")


_NAMED_RECIPIENTS = 3
"""The most recipients to name in a line; the others are only counted."""
_PROVIDER_STATES = {"closed": "in use", "open": "paused", "half-open": "on trial"}
_ID = 26
_EVENT = 12
"""The widths of these columns, in characters."""


def _in_words(line: Line, name: Callable[[str], str] = str, asked: str = "") -> str:
    """Return one line that says when it happened, what, to which recipients, and the server's reply.

    Args:
        line: the line of the ledger.
        name: maps a hop to the name that the operator gave it.
        asked: a part of the recipients' addresses that are named first, because they were searched for.
    """
    said = " ".join([*_who(line, asked), *_where(line, name)])
    words_of_others = line.reply or line.reason
    if words_of_others:
        said = f"{said}: {words_of_others}" if said else words_of_others
    if line.next:
        said += f"; next attempt {words.tried_at(line.next)}"
    return printable(
        f"{words.moment_of(line.at)}  {line.id or '-':{_ID}}  {line.event:{_EVENT}} {said}".rstrip(), 4000
    )


def _who(line: Line, asked: str) -> list[str]:
    said = []
    if line.sender is not None and line.event in {"accepted", "rejected", "limited"}:
        said.append(f"from {words.address(line.sender)}")
    if line.to:
        said.append(f"to {_named(line.to, asked)}")
    if line.redirected:
        said.append(f"instead of {_named(line.redirected, asked)}")
    if line.subject:
        said.append(f'"{line.subject}"')
    if line.message_id:
        said.append(line.message_id)
    if line.size is not None:
        said.append(f"({words.size(line.size)})")
    if line.user or line.peer:
        whose = f"by {line.user}" if line.user else "without a login"
        said.append(f"{whose} at {line.peer}" if line.peer else whose)
    if line.by:
        said.append(f"by {line.by}")
    return said


def _named(addresses: Sequence[str], asked: str) -> str:
    more = len(addresses) - _NAMED_RECIPIENTS
    if more > 0 and asked:
        addresses = sorted(addresses, key=lambda address: not is_part_of(asked, address))
    return ", ".join(map(words.address, addresses[:_NAMED_RECIPIENTS])) + (
        f" and {more} more" if more > 0 else ""
    )


def _where(line: Line, name: Callable[[str], str]) -> list[str]:
    said = []
    if line.name:
        said.append(f"{line.name} is {_PROVIDER_STATES.get(line.state, line.state)}")
    if line.relay:
        said.append(f"at {name(line.relay)}")
    if line.attempt > 1:
        said.append(f"attempt {line.attempt}")
    if line.since:
        said.append(f"lines since {words.moment_of(line.since)}")
    if line.delay is not None:
        said.append(f"after {duration(line.delay)}" if line.delay >= 10 else f"after {line.delay:.1f}s")
    return said
