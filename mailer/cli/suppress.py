"""`mailer suppress`: manage the list of addresses and domains that get no mail from this host."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import click
import msgspec

from mailer.cli import arguments
from mailer.cli.exits import Exit, Failure
from mailer.cli.lazy import LazyGroup
from mailer.cli.options import DURATION, config_option, examples, json_of
from mailer.cli.output import end_with_the_pipe, json_line, tell
from mailer.cli.setup import command_context
from mailer.mail import clock
from mailer.mail.reply import printable
from mailer.spool import words
from mailer.spool.state import suppression
from mailer.spool.state.suppression import Entry

_PLACE = "mailer.cli.suppress"
_reason_option = click.option("--reason", default="", metavar="TEXT", help="Senders are told.")
_for_option = click.option("--for", "lasting", type=DURATION, metavar="TIME", help="End after 90d, 12h, 1w.")


@click.group(
    epilog=examples(
        'mailer suppress add bob@example.net --reason "unsubscribed"',
        "mailer suppress add example.org --for 30d          a whole domain, for a month",
        "mailer suppress ls                                 which, since when, by whom, why",
        "mailer suppress rm bob@example.net",
        "mailer suppress import unsubscribed.txt",
    ),
    cls=LazyGroup,
    commands_in={
        "add": f"{_PLACE}:add",
        "ls": f"{_PLACE}:ls",
        "rm": f"{_PLACE}:rm",
        "import": f"{_PLACE}:import_list",
    },
)
@config_option
def suppress() -> None:
    """Manage the suppression list: addresses and domains that get no mail from any sender.

    Mail for them is accepted but not sent: such recipients bounce with 550 5.7.1 when a runner tries the
    message, the sender is notified as for any bounce, and the other recipients get the mail. Notifications
    by mailer itself, and postmaster at this host's own name, are exempt. A change takes effect with the next
    attempt.
    """


@click.command(epilog=examples('mailer suppress add bob@example.net --reason "unsubscribed"'))
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
@_reason_option
@_for_option
@json_of("address, action (added, replaced)")
@config_option
def add(addresses: tuple[str, ...], reason: str, lasting: float | None, *, as_json: bool) -> None:
    """Add addresses, or domains, without their subdomains; upper and lower case are the same."""
    keys = [_key(each) for each in addresses]
    _add(({"address": each} for each in keys), reason, lasting, as_json=as_json)


@click.command(
    "import",
    epilog=examples(
        "mailer suppress import list.txt", "mailer suppress ls --json | ssh HOST mailer suppress import -"
    ),
)
@click.argument("file", type=click.File("rb"))
@_reason_option
@_for_option
@json_of("added, replaced, refused")
@config_option
def import_list(file: BinaryIO, reason: str, lasting: float | None, *, as_json: bool) -> Exit:
    """Add the entries of a file, one per line: an address, a domain, or what `ls --json` prints.

    Empty lines and lines that begin with # are skipped. An invalid line is reported on standard error, and
    the others are added. The exit code is 0, or 65 when there was an invalid line.
    """
    refused = 0

    def rows() -> Iterator[dict[str, str]]:
        nonlocal refused
        for number, line in enumerate(file, start=1):
            try:
                if row := _row(line):
                    yield row
            except (ValueError, msgspec.MsgspecError) as error:
                refused += 1
                tell(sys.stderr, printable(f"line {number}: {error}", 500) + "\n")

    added, replaced = _add(rows(), reason, lasting, quiet=True)
    if as_json:
        tell(sys.stdout, json_line({"added": added, "replaced": replaced, "refused": refused}))
    else:
        tell(sys.stdout, f"{added:,} added, {replaced:,} replaced, {refused:,} lines refused\n")
    return Exit.DATA if refused else Exit.OK


@click.command(
    epilog=examples("mailer suppress ls", "mailer suppress ls example.net", "mailer suppress ls --json")
)
@click.argument("part", default="", metavar="[TEXT]")
@json_of("address, at, by, reason, until, awaits (a second refusal, from then on; empty: in effect)")
@config_option
def ls(part: str, *, as_json: bool) -> None:
    """List the entries whose address contains TEXT: since when, by whom, why, and until when.

    With `suppressUnknown`, refusals by servers add entries; an entry marked "not yet" takes effect once a
    server refuses the address again.
    """
    end_with_the_pipe()
    with command_context() as context:
        found = [entry for entry in suppression.entries(context.spool) if part.lower() in entry.address]
    for entry in sorted(found, key=lambda entry: entry.address):
        if as_json:
            sys.stdout.write(json_line(entry))
            continue
        if entry.awaits:
            sys.stdout.write(printable(suspicion(entry), 2000) + "\n")
            continue
        until = f", until {words.moment_of(entry.until)}" if entry.until else ""
        reason = f": {entry.reason}" if entry.reason else ""
        line = f"{entry.address}  since {words.moment_of(entry.at)} by {entry.by}{until}{reason}"
        sys.stdout.write(printable(line, 2000) + "\n")


@click.command(epilog=examples("mailer suppress rm bob@example.net"))
@click.argument(
    "addresses", nargs=-1, required=True, metavar="ADDRESS...", shell_complete=arguments.suppressed
)
@json_of("address, action (removed)")
@config_option
def rm(addresses: tuple[str, ...], *, as_json: bool) -> None:
    """Remove entries. Mail that has bounced is not tried again, unless you type `mailer spool retry ID`.

    The exit code is 66 when an address is not on the list; the others are removed.
    """
    keys = [_key(each) for each in addresses]
    with command_context() as context:
        gone = suppression.remove(context.spool, keys)
    for each in gone:
        told = {"address": each, "action": "removed"}
        tell(sys.stdout, json_line(told) if as_json else printable(f"removed {each}") + "\n")
    if missing := sorted(set(keys) - set(gone)):
        raise Failure(Exit.NO_INPUT, printable(f"not on the list: {', '.join(missing)}", 2000))


def _add(
    rows: Iterable[dict[str, str]],
    reason: str,
    lasting: float | None,
    *,
    as_json: bool = False,
    quiet: bool = False,
) -> tuple[int, int]:
    """Add entries, print the result for each, and return how many are new, and how many were replaced."""
    now = time.time()
    usual: dict[str, Any] = {"at": clock.rfc3339(now), "reason": reason}
    if lasting is not None:
        usual["until"] = clock.rfc3339(now + lasting)
    with command_context() as context:
        usual["by"] = context.operator
        entries = {row["address"]: Entry(**usual | row) for row in rows}
        fresh = {entry.address for entry in suppression.add(context.spool, entries.values())}
    for each in () if quiet else entries:
        action = "added" if each in fresh else "replaced"
        told = {"address": each, "action": action}
        tell(sys.stdout, json_line(told) if as_json else printable(f"{action} {each}") + "\n")
    return len(fresh), len(entries) - len(fresh)


def _row(line: bytes) -> dict[str, str]:
    """Parse a line of a list; empty for an empty line or a comment. Raises ValueError, MsgspecError."""
    text = line.decode().strip()
    if not text or text.startswith("#"):
        return {}
    if not text.startswith("{"):
        return {"address": suppression.key(text)}
    entry = msgspec.json.decode(text, type=Entry)
    row = {
        name: value for name in ("at", "by", "reason", "until", "awaits") if (value := getattr(entry, name))
    }
    for moment in (row[name] for name in ("at", "until", "awaits") if name in row):
        clock.seconds(moment)
    return row | {"address": suppression.key(entry.address)}


def suspicion(entry: Entry) -> str:
    """Explain why an entry does not take effect yet."""
    told = f"{entry.address}  not yet: refused at {words.moment_of(entry.at)} by {entry.by}: {entry.reason}"
    return f"{told}; it takes effect if that happens again after {words.moment_of(entry.awaits)}"


def _key(text: str) -> str:
    try:
        return suppression.key(text)
    except ValueError as error:
        raise Failure(
            Exit.USAGE, printable(f"{text} is neither an address nor a domain: {error}", 500)
        ) from None
