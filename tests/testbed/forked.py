"""The product's programs as forks of a process that has imported all of it, so that a run costs no start-up.

A program is its own process, with its own standard streams and environment; it begins when the gate is
opened, so that strace sees it from its first step.
"""

import errno
import multiprocessing
import os
import resource
import signal
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.waiting import until

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["testbed.all_loaded"])
_PATIENCE = 120.0


def have_all_loaded(env: Mapping[str, str] | None = None) -> None:
    """Start the process that programs are forked from, if it does not run yet.

    Args:
        env: its environment and theirs, beside ours; a library that is preloaded there is theirs, too.
    """
    before = dict(os.environ)
    # It ignores our sys.path, and says nothing when it does not find what it is to load.
    os.environ.update({"PYTHONPATH": os.pathsep.join(sys.path), **(env or {})})
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def helpers() -> set[int]:
    """Return the process that programs are forked from and the one that it needs, if they run."""
    server, tracker = forkserver._forkserver, resource_tracker._resource_tracker
    return {server._forkserver_pid, tracker._pid} - {None}  # type: ignore[attr-defined]


def end_helpers() -> None:
    """End those two, and wait for it; all programs must have ended, because each keeps them alive."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Spec:
    """What to run, and how.

    Attributes:
        argv: `mailer`, `mailer-send` or `mailer-sendmail`, and arguments.
        output: the file that gets what it prints.
        gate: a FIFO; the program begins when somebody has opened it to write.
        given: a file with its standard input.
        answers: what gets its standard output alone; None: `output` gets that, too.
        uid: the user who runs it; ours if None.
        short: the number of the write to a file of which only the first half is written; 0: none.
        descriptors: how many it may have; 0: as many as we.
    """

    argv: Sequence[str]
    directory: Path
    output: Path
    env: Mapping[str, str] = field(default_factory=dict)
    gate: Path | None = None
    given: Path = Path(os.devnull)
    answers: Path | None = None
    uid: int | None = None
    short: int = 0
    descriptors: int = 0


class Program:
    """A running one."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        if spec.gate:
            os.mkfifo(spec.gate)
        have_all_loaded()
        self._process = _context.Process(target=_run, args=(spec,))
        self._process.start()
        self._waited = False

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.exitcode is None

    def await_gate(self) -> None:
        """Return when it stands at the gate: all that it does from now on is the program's doing."""
        assert self.spec.gate
        until(_ready(self.spec.gate).exists, "a program to stand at its gate")

    def begin(self) -> None:
        """Open the gate; a fault may have ended the program there."""
        assert self.spec.gate
        gate = self.spec.gate
        until(lambda: open_gate(gate) or not self.running, "a program to pass its gate")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens if it has already ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> int:
        """Return its exit status, negative if a signal ended it.

        Raises:
            AssertionError: it has not ended in two minutes, and is killed.
        """
        self._process.join(_PATIENCE)
        status = self._process.exitcode
        if status is None:
            self._process.kill()
            self._process.join()
            raise AssertionError(f"{' '.join(self.spec.argv)} does not end")
        self._process.close()
        self._waited = True
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it with SIGTERM, unless it was waited for."""
        if not self._waited:
            self.signal(signal.SIGTERM)
            self.wait()

    @property
    def said(self) -> str:
        return self.spec.output.read_text(errors="replace") if self.spec.output.exists() else ""


def open_gate(gate: Path) -> bool:
    """Open a FIFO at which a program waits to go on; return whether one waited there."""
    try:
        os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False
    return True


def _ready(gate: Path) -> Path:
    return gate.with_suffix(".ready")


def _run(spec: Spec) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(spec.directory)
    os.environ.update(spec.env)
    _stream(0, os.open(spec.given, os.O_RDONLY))
    _stream(1, os.open(spec.output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666))
    os.dup2(1, 2)
    if spec.answers:
        _stream(1, os.open(spec.answers, os.O_WRONLY))
    sys.stdin, sys.stdout, sys.stderr = (open(fd, mode, closefd=False) for fd, mode in enumerate("rww"))  # noqa: SIM115
    if spec.gate:
        # While we may write there.
        _ready(spec.gate).touch()
    if spec.uid is not None:
        os.setgroups([])
        os.setresgid(spec.uid, spec.uid, spec.uid)
        os.setresuid(spec.uid, spec.uid, spec.uid)
    if spec.short:
        _shorten(spec.short)
    name, *arguments = spec.argv
    sys.argv = [name, *arguments]
    if spec.gate:
        os.close(os.open(spec.gate, os.O_RDONLY))
    if spec.descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (spec.descriptors, spec.descriptors))
    sys.exit(_main_of(name)())


def _stream(number: int, fd: int) -> None:
    if fd != number:
        os.dup2(fd, number)
        os.close(fd)


def _shorten(number: int) -> None:
    """Have the kernel get only the first half of one write to a file, as after a signal or on a full disk."""
    write, count = os.write, 0

    def halved(fd: int, data: bytes) -> int:
        nonlocal count
        count += stat.S_ISREG(os.fstat(fd).st_mode)
        return write(fd, bytes(data)[: max(1, len(data) // 2)] if count == number else data)

    os.write = halved  # type: ignore[assignment]


def _main_of(name: str) -> Callable[[], object]:
    if name == "mailer-send":
        from mailer.cli.send import main as send  # noqa: PLC0415 - loaded by the fork server

        return send
    if name == "mailer-sendmail":
        from mailer.sendmail.main import main as sendmail  # noqa: PLC0415 - as above

        return sendmail
    # Its module's function has the name of a module beside it, which is loaded here.
    from mailer.cli.main import arguments_of_today, cli  # noqa: PLC0415 - as above
    from mailer.cli.program import run  # noqa: PLC0415 - as above

    return lambda: run(cli, "mailer", arguments_of_today(sys.argv[1:]))
