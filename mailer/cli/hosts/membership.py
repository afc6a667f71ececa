"""`mailer hosts join` and `leave`: this host begins to use its spool, or gives it up."""

import os
import sys
import time
from contextlib import suppress

import click

from mailer.cli.exits import Exit, Failure
from mailer.cli.hosts import opened, shared
from mailer.cli.hosts.adopt import OFF, quiet
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.output import json_line, tell
from mailer.cli.owner import acting_as_owner
from mailer.cli.setup import configuration, make_spool, operator_name
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.hosts.adoption import claim, mail_in, release
from mailer.spool.hosts.epochs import Grounds, Hosts, Machine
from mailer.spool.hosts.lease import set_draining
from mailer.spool.mark import Standing, standing
from mailer.spool.preparation import SpoolError, check_filesystem
from mailer.spool.state.programs import running


@click.command(
    epilog=examples(
        "mailer hosts join",
        "mailer hosts join --off     this machine replaces another one of the same name, which is off",
    )
)
@click.option(
    "--off", is_flag=True, help="The machine that was this host before is off, or cut off from the spool."
)
@json_of("host, epoch, spool")
@config_option
def join(*, off: bool, as_json: bool) -> None:
    """Begin to use the spool of this host, once for each host.

    Makes `.hosts` in `spoolDir`, if this host is the first, and the spool of this host, as the user who owns
    `spoolDir`. The filesystem that is shared must be mounted.
    """
    config = shared(configuration().config)
    assert config.shared_dir is not None
    if not config.shared_dir.is_dir():
        raise Failure(
            Exit.UNAVAILABLE, f"{config.shared_dir} does not exist: mount the filesystem, or make it"
        )
    grounds = Grounds(operator_name(os.environ), OFF if off else "")
    with Spool.open_unchecked(config.shared_dir) as before_hosts:
        if standing(before_hosts.root) is Standing.OURS:
            raise Failure(
                Exit.CONFIG,
                f"{config.shared_dir} is the spool of one host, whose mail no program would send any more: "
                "set spoolDir to a directory beside it, join there, and then move the mail (mailer guide "
                "several-hosts)",
            )
        check_filesystem(config.shared_dir, before_hosts.root, of_hosts=True)
    with acting_as_owner(config.shared_dir), opened(config, create=True) as (hosts, machine):
        before = hosts.last_user(machine.host)
        epoch = claim(hosts, machine.host, machine, grounds, time.time(), again=True)
        # A run that began before another machine left may still use its lease. An adopter has ended its own.
        if before and before.owner_host == machine.host and not before.is_of(machine):
            with Spool.open(config.spool_dir) as spool:
                quiet(spool, machine.host)
        with make_spool(config.spool_dir) as spool:
            set_draining(spool, wanted=False)
    if as_json:
        tell(
            sys.stdout, json_line({"host": epoch.host, "epoch": epoch.number, "spool": str(config.spool_dir)})
        )
    else:
        tell(sys.stdout, f"this is host {epoch.host}, and its spool is {config.spool_dir}\n")


@click.command(epilog=examples("mailer hosts drain", "mailer hosts drain --undo    accept mail again"))
@click.option("--undo", is_flag=True, help="Accept new mail again.")
@json_of("draining, changed (false if it was so already)")
@config_option
def drain(*, undo: bool, as_json: bool) -> None:
    """Refuse new mail on this host, with 451 within five seconds, while what is in its spool is sent.

    Applications that know a second relay use that one. For load balancers, /readyz of the monitor is 503.
    """
    config = shared(configuration().config)
    with acting_as_owner(config.spool_dir), Spool.open(config.spool_dir) as spool:
        changed = set_draining(spool, wanted=not undo)
    if as_json:
        tell(sys.stdout, json_line({"draining": not undo, "changed": changed}))
    else:
        tell(
            sys.stdout,
            "new mail is accepted\n" if undo else "new mail is refused; `mailer hosts` shows what is left\n",
        )


@click.command(epilog=examples("mailer hosts leave"))
@json_of("host, epoch, messages (that are left in its spool)")
@config_option
def leave(*, as_json: bool) -> None:
    """Give up the spool of this host, so that another host may take over its mail.

    Its programs must have been stopped. To begin again, type `mailer hosts join`.
    """
    config = shared(configuration().config)
    with acting_as_owner(config.spool_dir), opened(config) as (hosts, machine):
        epoch = hosts.latest(machine.host)
        if epoch is None or not epoch.is_of(machine):
            raise Failure(
                Exit.DATA, f"this machine does not own the spool of {machine.host}: see `mailer hosts`"
            )
        if adopted := [name for name in hosts.names() if name != machine.host and _has(hosts, name, machine)]:
            raise Failure(
                Exit.TEMPORARY,
                f"this host is taking over mail: finish first: mailer hosts adopt {adopted[0]}",
            )
        with Spool.open(config.spool_dir) as spool:
            if programs := {each.name for each in running(spool)}:
                stop = (
                    "systemctl stop mailer.socket mailer-submit.socket mailer.service mailer-send.timer "
                    "mailer-send.path mailer-send.service mailer-monitor.service"
                )
                raise Failure(
                    Exit.TEMPORARY, f"{' and '.join(sorted(programs))} is running: stop it first ({stop})"
                )
            epoch = release(hosts, epoch, operator_name(os.environ), time.time())
            messages = None
            with suppress(OSError):
                messages = mail_in(spool)
    if as_json:
        tell(sys.stdout, json_line({"host": epoch.host, "epoch": epoch.number, "messages": messages}))
        return
    tell(sys.stdout, f"host {epoch.host} has left\n")
    if messages:
        left = words.count(messages, "message")
        tell(
            sys.stdout, f"{left} left in its spool: on another host, type: mailer hosts adopt {epoch.host}\n"
        )


def _has(hosts: Hosts, name: str, machine: Machine) -> bool:
    """Return whether a machine owns the spool of a host; a damaged epoch counts as no owner."""
    with suppress(SpoolError):
        return (epoch := hosts.latest(name)) is not None and epoch.is_of(machine)
    return False
