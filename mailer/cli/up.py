"""`mailer up`: run receiver, runner and monitor in the foreground, as three processes that Ctrl-C ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import click

from mailer.cli.exits import Exit
from mailer.cli.options import config_option, examples, log_format_option
from mailer.cli.owner import acting_as_owner
from mailer.cli.service import activation
from mailer.cli.service.children import child_argv
from mailer.cli.service.hangup import Terminal, postpone
from mailer.cli.service.manager import ServiceManager
from mailer.cli.service.notify_relay import NotifyRelay
from mailer.cli.setup import configuration, program_spool
from mailer.config import checks
from mailer.config.problem import ConfigError
from mailer.maillog import outlet

_ENDING = {signal.SIGINT, signal.SIGTERM}
_SIGNALS = {*_ENDING, signal.SIGCHLD, signal.SIGHUP, signal.SIGIO}
_KILL_MARGIN = 10.0
"""Seconds after `sending.shutdownGrace` until a child that has not ended is killed."""


class _Child(subprocess.Popen[bytes]):
    """A running child process."""

    def __init__(
        self,
        program: str,
        argv: Sequence[str],
        environ: Mapping[str, str],
        *,
        needed: bool = True,
        sockets: int = 0,
    ) -> None:
        """Start the program.

        Args:
            program: its name for the operator.
            argv: its command line.
            environ: variables added to this process's environment.
            needed: whether mail does not flow without it.
            sockets: how many of the service manager's sockets it gets.
        """
        # In a separate process group, so that Ctrl-C reaches only `mailer up`, which signals each child once.
        super().__init__(
            argv,
            stdin=subprocess.DEVNULL,
            process_group=0,
            env={**os.environ, **environ},
            pass_fds=range(activation.FIRST, activation.FIRST + sockets),
        )
        self.program = program
        self.needed = needed

    @property
    def code(self) -> int:
        """The exit code, once the program has ended; being killed by a signal counts as a defect."""
        return self.returncode if self.returncode >= 0 else Exit.SOFTWARE


@click.command(
    epilog=examples(
        "mailer up --config config.json",
    )
)
@log_format_option
@config_option
def up() -> int:
    """Receive and send in the foreground, until Ctrl-C.

    This starts `mailer serve`, `mailer-send --watch` and, unless `enableHealthCheck` is false, `mailer
    monitor`. When one of the first two ends by itself, the others are ended too, and the exit code is that of
    the first to end. Mail flows without the monitor; if that ends, for example because its port is in use, a
    line on standard error reports it. SIGHUP, or `mailer reload`, makes all of them reload the configuration.
    They end when their terminal is closed, unless they were started by nohup(1).
    """
    outlet.install()
    # The children inherit the blocked signal: each handles a SIGHUP that arrived while it was starting.
    postpone()
    manager, sockets = ServiceManager.of(os.environ), activation.passed_on(os.environ, os.getpid())
    loaded = configuration()
    if problems := checks.refuse_to_serve(loaded):
        raise ConfigError(problems)
    # Create the spool before several children try at the same time; the monitor does not create one.
    with acting_as_owner(loaded.config.spool_dir):
        program_spool(loaded.config).close()
    told: list[int] = []
    terminal = Terminal()
    for number in _ENDING:
        signal.signal(number, lambda number, _: told.append(number))
    reports = NotifyRelay(manager)
    children = [
        _Child(
            "mailer serve",
            child_argv("mailer", "serve", config=loaded.path),
            reports.environ,
            sockets=sockets,
        ),
        _Child("mailer-send", child_argv("mailer.cli.send", "--watch", config=loaded.path), reports.environ),
    ]
    if loaded.config.enable_health_check:
        argv = child_argv("mailer", "monitor", config=loaded.path)
        children.append(_Child("mailer monitor", argv, reports.environ, needed=False))
    for child in children:
        reports.expect(child.pid, child.program, needed=child.needed)
    # sigwait does not return ignored signals, so SIGHUP needs a handler. It is set only now because children
    # of a `nohup mailer up` must inherit that SIGHUP is ignored.
    signal.signal(signal.SIGHUP, lambda *_: None)
    # From here on, signals are received by sigwait. The children were started before, since they would
    # inherit the mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    code = Exit.OK if told else _wait_for_an_end(children, terminal, reports)
    manager.stopping()
    _end(children, patience=loaded.config.sending.shutdown_grace + _KILL_MARGIN)
    # A child that got SIGTERM before it had installed its handler has not failed.
    return code or max(0 if child.returncode == -signal.SIGTERM else child.code for child in children)


def _wait_for_an_end(children: list[_Child], terminal: Terminal, reports: NotifyRelay) -> int:
    """Wait until a signal arrives or a needed child ends by itself; return that child's exit code, or 0.

    Other children that end are reported and removed from the list. SIGHUP is passed on to the children, which
    reload the configuration.
    """
    while True:
        for child in [child for child in children if child.poll() is not None]:
            code = _report_end(child)
            if child.needed:
                return code
            children.remove(child)
            reports.forget(child.pid)
        reports.read()
        match signal.sigwait(_SIGNALS):
            case signal.SIGHUP if not terminal.gone:
                reports.reload()
                for child in children:
                    child.send_signal(signal.SIGHUP)
            case signal.SIGCHLD | signal.SIGIO:
                pass
            case _:
                return Exit.OK


def _report_end(child: _Child) -> int:
    status = child.returncode
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"
    then = "everything ends" if child.needed else "mail goes on without it"
    sys.stderr.write(f"mailer up: {child.program} {how}; {then}\n")
    return child.code or Exit.SOFTWARE


def _end(children: Sequence[_Child], patience: float) -> None:
    """Let the children finish messages in flight; kill them after `patience` seconds or a second signal."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + patience
    while any(child.poll() is None for child in children):
        received = signal.sigtimedwait(_SIGNALS, max(0.0, deadline - time.monotonic()))
        if received is None or received.si_signo in _ENDING:
            break
    for child in children:
        child.kill()
        child.wait()
