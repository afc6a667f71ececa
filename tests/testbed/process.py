"""A server in a process of its own: started, found ready by connecting, ended by its process id."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.ports import LOOPBACK, accepts
from testbed.waiting import until

# Seconds; a server that needs more than these to end is a finding, so `stop` reports it. Longer than our own
# `sending.shutdownGrace`, after which what still runs is cut off.
_GRACE = 45.0


class ServerProcess:
    """One running server.

    It leads its own session: Ctrl-C at the terminal reaches the tests, which then end their servers, and a
    server that signals its process group reaches its own children alone.
    """

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stderr: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start it at once.

        Args:
            argv: the program and its arguments.
            log: the file that collects what it prints on both streams.
            env: its whole environment; ours if None.
            cwd: where it runs; here if None.
            stderr: a descriptor for its standard error; the log if None.
            pass_fds: descriptors that it gets under the same numbers.
        """
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if stderr is None else stderr,
                env=env,
                cwd=cwd,
                start_new_session=True,
                pass_fds=pass_fds,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def await_port(self, port: int, host: str = LOOPBACK) -> None:
        """Return when it accepts connections there; it is stopped if this raises.

        Raises:
            AssertionError: it ended, or did not get there in time; the message holds what it printed.
        """

        def ready() -> bool:
            assert self.running, f"the server ended with {self._process.returncode}:\n{self.output()}"
            return accepts(port, host)

        try:
            until(ready, f"port {port} of {self._process.args!r} to accept connections")
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{error}\n{self.output()}") from error
        except BaseException:
            self.stop()
            raise

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens if it has already ended."""
        self._process.send_signal(number)

    def wait(self, patience: float = _GRACE) -> int:
        """Its exit status, once it has ended: negative if a signal ended it.

        Raises:
            subprocess.TimeoutExpired: it still runs after `patience` seconds.
        """
        return self._process.wait(patience)

    def kill(self) -> int:
        """End it as a power cut would, and return when it is gone."""
        self._process.kill()
        return self.wait()

    def stop(self, grace: float = _GRACE) -> int:
        """End it as an operator would, and return its exit status.

        Args:
            grace: seconds from SIGTERM to SIGKILL.

        Raises:
            AssertionError: SIGTERM did not end it, so its session was killed; what it printed is
                in the message.
        """
        self.signal(signal.SIGTERM)
        try:
            return self.wait(grace)
        except subprocess.TimeoutExpired as error:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()
            raise AssertionError(f"SIGTERM did not end {error.cmd!r}:\n{self.output()}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.signal(signal.SIGCONT)  # a test may have stopped it, and a stopped process does not hear SIGTERM
        try:
            self.stop()
        finally:
            # strace(1) runs its command as a child, which may not hear of its end.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
