"""`mailer reload`: make each running program reload its configuration, and print each result."""

import os
import signal
import sys
import time
from collections.abc import Iterator

import click

from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_option, examples, json_option
from mailer.cli.output import json_line, tell
from mailer.cli.setup import command_context, configuration
from mailer.config import checks
from mailer.config.problem import ConfigError
from mailer.mail.reply import printable
from mailer.spool.directory import Spool
from mailer.spool.state.programs import Program, running

_TIMEOUT = 60.0
"""Seconds to wait for the programs to reload; a secret's command may take 30."""
_POLL_INTERVAL = 0.05
"""Seconds between two checks whether they have reloaded."""


@click.command(
    epilog=examples(
        "mailer reload",
        "mailer reload --json | jq 'select(.reloaded | not)'",
    )
)
@json_option
@config_option
def reload(*, as_json: bool) -> Exit:
    """Have `serve`, `mailer-send --watch`, `monitor` and `up` read their configuration again.

    A configuration that cannot be used changes nothing, and the exit code is 78. No connection is dropped,
    and no mail is sent twice. The result is printed for each program, with the keys that take effect only
    after a restart; the exit code is 1 when a program did not reload, 69 when none is running. SIGHUP does
    the same to a single program.

    `mailer-send --once` needs no reload: each run reads the configuration. Providers that are paused are
    tried with the next message; `mailer spool retry --all` has waiting mail tried immediately.

    JSON is one object a line: program, pid, reloaded (true or false), said, restart [keys that take effect
    only after a restart].
    """
    loaded = configuration()
    if problems := checks.refuse_to_serve(loaded):
        raise ConfigError(problems)
    with command_context(loaded) as context:
        before = running(context.spool)
        if not before:
            raise Failure(
                Exit.UNAVAILABLE,
                f"no long-running program uses {context.spool.path}: there is nothing to reload",
            )
        code = Exit.OK
        for program, words, good in _signalled(context.spool, before):
            code = code if good else Exit.FINDINGS
            if as_json:
                tell(sys.stdout, json_line(_record(program, words, reloaded=good)))
            else:
                tell(sys.stdout, printable(f"{program.name} (pid {program.pid}): {words}", 2000) + "\n")
        return code


def _record(program: Program, words: str, *, reloaded: bool) -> dict[str, object]:
    return {
        "program": program.name,
        "pid": program.pid,
        "reloaded": reloaded,
        "said": words,
        "restart": program.restart if reloaded else (),
    }


def _signalled(spool: Spool, programs: list[Program]) -> Iterator[tuple[Program, str, bool]]:
    """Send SIGHUP to all programs; yield each one's result in words, and whether it has reloaded."""
    asked = []
    for program in programs:
        if not program.reachable:
            yield program, "runs in another container: type mailer reload there", False
            continue
        try:
            os.kill(program.pid, signal.SIGHUP)
        except ProcessLookupError:
            continue  # The program has just ended.
        except PermissionError:
            yield program, "belongs to another user: type this as root", False
        else:
            asked.append(program)
    deadline = time.monotonic() + _TIMEOUT
    while asked and time.monotonic() < deadline:
        known = {program.pid: program for program in running(spool)}
        for program in list(asked):
            now = known.get(program.pid)
            if now is None or now.reads > program.reads:
                asked.remove(program)
                yield (now or program), *_outcome(now)
        time.sleep(_POLL_INTERVAL)
    for program in asked:
        yield program, f"has not answered for {_TIMEOUT:.0f} s; see its log", False


def _outcome(now: Program | None) -> tuple[str, bool]:
    if now is None:
        return "has ended", False
    if now.trouble:
        return f"keeps its old configuration: {now.trouble}", False
    after = f"; restart it for {', '.join(now.restart)}" if now.restart else ""
    return f"read {now.config} again{after}", True
