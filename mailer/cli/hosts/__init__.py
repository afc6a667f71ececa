"""`mailer hosts`: the hosts that share `spoolDir`; `membership` and `adopt` change their owners."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
import msgspec

from mailer.cli.exits import Exit, Failure
from mailer.cli.lazy import LazyGroup
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.output import end_with_the_pipe, json_line, tell
from mailer.cli.owner import acting_as_owner
from mailer.cli.setup import configuration
from mailer.config.model import Config
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.hosts.adoption import mail_in
from mailer.spool.hosts.epochs import Epoch, Hosts, Machine, this_machine
from mailer.spool.hosts.lease import is_draining, renewed
from mailer.spool.preparation import SpoolError


@click.group(
    epilog=examples(
        "mailer hosts                            who uses which spool, and how much mail is in it",
        "mailer hosts join                       this host begins, as `host` names it",
        "mailer hosts adopt a --off              host a is off for certain: take its mail over",
        "mailer hosts adopt a --evict-with ceph  cut a off from CephFS, and take its mail over",
        "mailer hosts drain                      this host is to be taken down: refuse new mail",
        "mailer hosts leave                      it is: others may adopt what is left",
    ),
    cls=LazyGroup,
    commands_in={
        "join": "mailer.cli.hosts.membership:join",
        "drain": "mailer.cli.hosts.membership:drain",
        "leave": "mailer.cli.hosts.membership:leave",
        "adopt": "mailer.cli.hosts.adopt:adopt",
    },
    summaries={
        "join": "Begin to use the spool of this host, once for each host.",
        "drain": "Refuse new mail on this host, with 451 within five seconds, while what is...",
        "leave": "Give up the spool of this host, so that another host may take over its mail.",
        "adopt": "Take over the mail of a host that is dead or has left: move it into the...",
    },
    invoke_without_command=True,
)
@json_of(
    "host, state (in use, draining, adopted, left, damaged), owner, node, since, by, evidence, renewed, "
    "messages, here"
)
@config_option
@click.pass_context
def hosts(click_context: click.Context, *, as_json: bool) -> None:
    """Show the hosts that share `spoolDir`: which host uses the spool of each, and how much mail is in it.

    The programs of a host renew their lease every five seconds, which `renewed` shows, by the clock of that
    host. In use: its own programs use it. Draining: they refuse new mail. Adopted: another host is taking its
    mail over. Left: no host owns it, and programs there end until `mailer hosts join`.
    """
    if click_context.invoked_subcommand:
        if as_json:
            raise click.UsageError("--json is for the list alone")
        return
    end_with_the_pipe()
    config = shared(configuration().config)
    with acting_as_owner(config.spool_dir.parent), opened(config) as (known, machine):
        rows = [_row(config, known, machine, name) for name in known.names()]
    for row in rows:
        sys.stdout.write(json_line(row) if as_json else _text(row))


_OWN = {"in use", "draining"}
"""States in which a host's own programs use its spool."""


class _Row(msgspec.Struct, frozen=True, rename="camel"):
    host: str
    state: str
    owner: str
    """The host that uses the spool; empty: none."""
    node: str
    since: str
    by: str
    evidence: str
    renewed: str
    """When a program last renewed its lease; empty: never."""
    messages: int | None
    """What is in the spool; null if it cannot be read."""
    here: bool


def shared(config: Config) -> Config:
    """Return the configuration; raises Failure if no hosts share its spool."""
    if config.shared_dir is None:
        raise Failure(
            Exit.CONFIG,
            "no hosts share this spool: `host` is not set (mailer guide several-hosts)",
        )
    return config


@contextmanager
def opened(config: Config, *, create: bool = False) -> Iterator[tuple[Hosts, Machine]]:
    """Open the directory of the epochs, and name this machine; raises as `Hosts.open` and `this_machine`."""
    assert config.shared_dir is not None
    machine = this_machine(config.host)
    with Hosts.open(config.shared_dir, create=create) as known:
        yield known, machine


def _row(config: Config, known: Hosts, machine: Machine, name: str) -> _Row:
    last, messages = "", None
    try:
        epoch = known.latest(name)
    except SpoolError as error:
        tell(sys.stderr, f"{error.strerror}\n")
        epoch = None
    if epoch is None:
        return _Row(name, "damaged", "", "", "", "", "", last, messages, here=False)
    state = _state(epoch)
    try:
        with Spool.open_unchecked(known.shared / name) as spool:
            last = renewed(spool)
            messages = mail_in(spool)
            if state == "in use" and is_draining(spool):
                state = "draining"
    except OSError:
        pass
    return _Row(
        name,
        state,
        epoch.owner_host,
        epoch.node if epoch.owner else "",
        epoch.at,
        epoch.by,
        epoch.evidence,
        last,
        messages,
        name == config.host and epoch.is_of(machine),
    )


def _state(epoch: Epoch) -> str:
    if not epoch.owner:
        return "left"
    return "in use" if epoch.owner_host == epoch.host else "adopted"


def _text(row: _Row) -> str:
    match row.state:
        case "damaged":
            return f"{row.host}  its epoch is damaged: no host may use its spool\n"
        case "left":
            state = f"left since {words.moment_of(row.since)}"
        case "adopted":
            state = f"adopted by {row.owner} ({row.node}) since {words.moment_of(row.since)}"
        case _:
            state = f"{row.state}, by {row.node}{', this host' if row.here else ''}"
    mail = "cannot be read" if row.messages is None else words.count(row.messages, "message")
    when = f", renewed {words.moment_of(row.renewed)}" if row.renewed and row.state in _OWN else ""
    left = "" if row.state in _OWN or not row.messages else f": type `mailer hosts adopt {row.host}`"
    return f"{row.host}  {state}{when}; {mail}{left}\n"
