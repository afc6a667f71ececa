"""`mailer spool show`: print one message from the spool."""

import sys
import time
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator

import click

from mailer.cli.arguments import MessageId
from mailer.cli.exits import Exit, Failure
from mailer.cli.neighbours import all_spools, first_that_knows
from mailer.cli.options import config_option, examples
from mailer.cli.output import json_line
from mailer.cli.setup import command_context
from mailer.cli.spool import records
from mailer.cli.spool.selection import locate
from mailer.mail.duration import duration
from mailer.mail.outcome import Status
from mailer.mail.reply import printable
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.entry import Corrupt, Entry
from mailer.spool.layout import Place, Spot
from mailer.spool.message_state import Standing
from mailer.spool.scan import QUEUE
from mailer.spool.view.inspect import Seen, View, look

_MAX_HEADER = 64 * 1024
"""The most bytes of the header to show; `--raw` writes all of it."""


@click.command(
    epilog=examples(
        "mailer spool show 01JD0M3Q",
        "mailer spool show --raw 01JD0M3Q | sha256sum",
    )
)
@click.argument("message_id", metavar="ID", type=MessageId(*QUEUE, Place.SENT))
@click.option(
    "--raw",
    is_flag=True,
    help="Write exactly the message's bytes, and nothing else; to a terminal with its controls escaped.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@config_option
def show(message_id: str, *, raw: bool, as_json: bool) -> Exit:
    """Show a message: its envelope, how each recipient stands, its header.

    With --raw, a damaged message is written unchanged, and the exit code is 65.
    """
    with command_context() as context, all_spools(context) as hosts:
        spool, spot = first_that_knows(
            hosts, lambda each: (each.spool, locate(each.spool, message_id, (*QUEUE, Place.SENT))), bool
        )
        if raw:
            return _write_raw(spool, spot)
        seen = look(spool, spot)
        if seen is None:
            raise Failure(Exit.TEMPORARY, f"{spot.name} was moved just now; try again")
        header = "" if seen.entry is None else _header(spool, spot, seen.entry)
        if as_json:
            sys.stdout.write(json_line(_record(seen, header)))
        else:
            sys.stdout.write(_text(seen, header, time.time()))
        return Exit.OK if seen.entry else Exit.DATA


def _write_raw(spool: Spool, spot: Spot) -> Exit:
    out = sys.stdout.buffer
    try:
        with View.open(spool, spot) as view:
            entry = view.entry()
            pieces = view.message(entry)
            out.writelines(_escaped(pieces) if sys.stdout.isatty() else pieces)
            out.flush()
            view.check(entry)
    except Corrupt as corrupt:
        raise Failure(Exit.DATA, f"{spot.path}: {corrupt}") from corrupt
    return Exit.OK


def _escaped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Escape what a terminal would obey: who writes a message must not write to the operator's terminal."""
    decoder = getincrementaldecoder("utf-8")("replace")
    for piece in pieces:
        lines = decoder.decode(piece).replace("\r", "").split("\n")
        yield "\n".join(printable(line.expandtabs(4), 10 * len(line) + 80) for line in lines).encode()


def _header(spool: Spool, spot: Spot, entry: Entry) -> str:
    try:
        with View.open(spool, spot) as view:
            start = next(view.message(entry), b"")[:_MAX_HEADER]
    except (FileNotFoundError, Corrupt):
        return ""
    return start.partition(b"\r\n\r\n")[0].decode("utf-8", "replace")


def _record(seen: Seen, header: str) -> records.Record:
    described = records.record(seen) | {"path": seen.spot.path}
    if entry := seen.entry:
        described["recipients"] = [records.recipient_detail(s) for s in entry.state.standings]
        described |= {
            "user": entry.block.user,
            "peer": entry.block.peer,
            "held": entry.state.held,
            "about": entry.state.about or None,
            "header": header,
        }
    return described


def _text(seen: Seen, header: str, now: float) -> str:
    entry = seen.entry
    fields = [("Id", seen.id), ("State", _state(seen))]
    if seen.reason:
        fields.append(("Reason", seen.reason))
    if entry is None:
        return _lines(fields)
    received = entry.block.received
    envelope = entry.envelope
    options = (
        envelope.body,
        "SMTPUTF8" if envelope.smtputf8 else "",
        envelope.ret and f"RET={envelope.ret}",
        envelope.envid and f"ENVID={envelope.envid}",
    )
    fields += [
        ("Held", entry.state.held),
        ("About", entry.state.about),
        ("Received", f"{words.moment(received)} ({duration(now - received)} ago)"),
        ("Peer", entry.block.peer),
        ("User", entry.block.user),
        ("Size", words.count(entry.length, "byte")),
        ("Options", " ".join(filter(None, options))),
        ("Attempts", str(entry.state.attempts)),
        ("Sender", words.address(envelope.sender)),
        *(("Recipient", _recipient(standing, now)) for standing in entry.state.standings),
    ]
    shown = "".join(f"  {printable(line.expandtabs(4), 1000)}\n" for line in header.split("\r\n"))
    return f"{_lines(fields)}Header:\n{shown}"


def _state(seen: Seen) -> str:
    text = f"{seen.spot.place} ({seen.spot.path})"
    if seen.spot.place is Place.CUR:
        text += ", claimed by a runner" if seen.claimed else ", its runner ended early"
    return text


def _recipient(standing: Standing, now: float) -> str:
    parts = [f"{words.address(standing.address)}: {standing.status}"]
    if standing.hop:
        parts.append(f"at {printable(standing.hop)}")
    if standing.reply:
        parts.append(f"({printable(standing.reply)})")
    if standing.status in {Status.DEFERRED, Status.UNCERTAIN} and standing.next is not None:
        parts.append(f"next {words.until(standing.next, now)}")
    if notice := standing.notice or standing.warned:
        parts.append(f"told in {notice}")
    return " ".join(parts)


def _lines(fields: list[tuple[str, str]]) -> str:
    return "".join(f"{name + ':':<11}{printable(text, 2000)}\n" for name, text in fields if text)
