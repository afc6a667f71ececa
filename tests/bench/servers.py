"""Ours and Postfix as contestants, and what every contestant can be asked to do.

Each works in a fresh directory, with the least that it needs, none with a sync switched off. `accepting`
means the same for all: mail is taken and kept and nothing is sent yet, so that taking is measured alone.
Postfix's way to do so is its `hold` queue, which costs it less than to defer.
"""

import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.opendkim import OpenDkim
from testbed.ports import LOOPBACK
from testbed.postfix import Postfix
from testbed.process import ServerProcess
from testbed.relay import PASSWORD, USERNAME, Relay
from testbed.tools import postfix_environment, program

from bench.costs import processor_seconds, reaped_seconds
from bench.load import Load, Login, Sink

LOGIN = Login(USERNAME, PASSWORD)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs."""

    port: int
    pid: int
    """Of the process whose descendants do the work."""
    beside: tuple[int, ...] = ()
    """Processes that do a part of it and are none of these."""

    @property
    def processor(self) -> float:
        """Seconds of processor time that it has used so far."""
        return sum(map(processor_seconds, (self.pid, *self.beside)))


@dataclass(frozen=True, slots=True)
class Took:
    """What a piece of work took, in seconds."""

    seconds: float
    """By the clock."""
    processor: float
    """Of all its processes."""


class Contestant:
    """One program in one directory, for one measurement."""

    name = ""
    traceable = True
    """By strace and as one tree of processes."""
    most = 1_000_000
    """Messages that it is given to send, at most; it is slower with more, or takes all of the machine."""

    def __init__(self, directory: Path, *, login: bool = False, sign: bool = False, onward: int = 0) -> None:
        """
        Args:
            directory: a fresh one.
            login: demand one.
            sign: with DKIM, RSA-2048.
            onward: the port on loopback that takes the mail.
        """
        self.directory, self.login, self.sign, self.onward = directory, login, sign, onward


class Accepting(Contestant, ABC):
    """One that takes mail by SMTP."""

    @abstractmethod
    def accepting(self, under: Sequence[str] = ()) -> AbstractContextManager[Running]:
        """Take mail and keep it while a block runs.

        Args:
            under: a command that runs the server.
        """

    @abstractmethod
    def relaying(self) -> AbstractContextManager[Running]:
        """Take mail and pass it on while a block runs."""


class Sending(Contestant, ABC):
    """One whose queue can be filled first and sent afterwards."""

    @abstractmethod
    def fill(self, messages: int) -> None:
        """Put messages into the queue."""

    @abstractmethod
    def deliver(self, sink: Sink, messages: int, runners: int = 1) -> Took:
        """Send a queue that `fill` made; what it took from the command to the last arrival."""


class Queueing(Accepting, Sending):
    """One that does both, and whose queue can be looked at."""

    def fill(self, messages: int) -> None:
        """Put messages into the queue, by submission."""
        with self.accepting() as running:
            Load(messages, reuse=True, login=LOGIN if self.login else None).submit(running.port)

    @abstractmethod
    def list_into(self, file: Path) -> Took:
        """List the queue into a file."""

    @abstractmethod
    def queued(self) -> int:
        """How many messages lie in the queue, counted as files."""


class Mailer(Queueing):
    name = "mailer"
    python = sys.executable
    """Of the environment whose programs run."""

    def __init__(self, directory: Path, *, login: bool = False, sign: bool = False, onward: int = 0) -> None:
        super().__init__(directory, login=login, sign=sign, onward=onward)
        settings: dict[str, Any] = {"security": {"requireAuth": login}}
        if not login:
            settings |= {"defaultUsername": "", "defaultPassword": ""}
        if onward:
            settings |= {"forwardSMTP": True, "forwardProviders": [{"host": LOOPBACK, "port": onward}]}
        self.relay = Relay(directory, settings, python=self.python)
        if sign:
            self.relay.mailer("dkim", "keygen", "--domain", "example.com").check_returncode()
            self.relay.configure({"dkim": {"enabled": True, "domain": "example.com"}})

    @contextmanager
    def accepting(self, under: Sequence[str] = ()) -> Iterator[Running]:
        with self.relay.serve(under=under) as process:
            yield Running(self.relay.port, process.pid)

    @contextmanager
    def relaying(self) -> Iterator[Running]:
        # One process above both, for the sum of what they use.
        with self.relay.up() as process:
            yield Running(self.relay.port, process.pid)

    def deliver(self, sink: Sink, messages: int, runners: int = 1) -> Took:
        began, before = time.perf_counter(), reaped_seconds()
        with ExitStack() as running:
            processes = [running.enter_context(self.run(number)) for number in range(runners)]
            sink.await_taken(messages)
            took = time.perf_counter() - began
            for process in processes:
                assert process.wait() == 0, process.output()
        assert self.queued() == 0
        return Took(took, reaped_seconds() - before)

    def run(self, number: int = 0) -> ServerProcess:
        """Start `mailer-send --once`."""
        argv = [*self.relay.mailer_send_command, "--once", "--config", str(self.relay.config)]
        return ServerProcess(argv, self.directory / f"run-{number}.log")

    def list_into(self, file: Path) -> Took:
        argv = [self.python, "-m", "mailer", "spool", "ls", "--config", str(self.relay.config)]
        return _timed(argv, file)

    def queued(self) -> int:
        places = (self.relay.spool / place for place in ("new", "cur", "failed", "hold", "corrupt"))
        return sum(1 for place in places for _ in place.glob("*"))


class Again(Mailer):
    """The same once more: how far two figures of one program lie apart in this run."""

    name = "mailer again"


_POSTFIX_SERVICES = """\
smtp       unix       - - n - - smtp
scache     unix       - - n - 1 scache
pickup     unix       n - n 60 1 pickup
showq      unix       n - n - - showq
"""


class OfPostfix(Queueing):
    name = "Postfix"

    def __init__(self, directory: Path, *, login: bool = False, sign: bool = False, onward: int = 0) -> None:
        super().__init__(directory, login=login, sign=sign, onward=onward)
        self.postfix: Postfix | None = None
        self._beside: tuple[int, ...] = ()
        self._until_delivered = ExitStack()

    @contextmanager
    def _running(self, settings: Mapping[str, str], under: Sequence[str] = ()) -> Iterator[Postfix]:
        everything = {
            "virtual_mailbox_domains": "",
            "relayhost": f"[{LOOPBACK}]:{self.onward}",
            # As on a server that has been busy for a while: no slow start.
            "initial_destination_concurrency": "20",
            **settings,
        }
        login = {"username": LOGIN.username, "password": LOGIN.password} if self.login else {}
        with ExitStack() as beside:
            if self.sign:
                milter = beside.enter_context(OpenDkim(self.directory, "example.com"))
                everything |= {"smtpd_milters": f"inet:{LOOPBACK}:{milter.port}"}
                self._beside = (milter.pid,)
            with Postfix(everything, services=_POSTFIX_SERVICES, under=under, **login) as postfix:
                self.postfix = postfix
                yield postfix

    @contextmanager
    def accepting(self, under: Sequence[str] = ()) -> Iterator[Running]:
        hold = {"smtpd_recipient_restrictions": "check_client_access static:HOLD"}
        with self._running(hold, under) as postfix:
            yield self._now(postfix)

    @contextmanager
    def relaying(self) -> Iterator[Running]:
        with self._running({}) as postfix:
            yield self._now(postfix)

    def _now(self, postfix: Postfix) -> Running:
        return Running(postfix.port, postfix.pid, self._beside)

    def fill(self, messages: int) -> None:
        """Put messages into its hold queue; it runs until `deliver` has sent them."""
        running = self._until_delivered.enter_context(self.accepting())
        Load(messages, reuse=True, login=LOGIN if self.login else None).submit(running.port)

    def deliver(self, sink: Sink, messages: int, runners: int = 1) -> Took:
        assert runners == 1, "it has one queue manager"
        assert self.postfix is not None
        with self._until_delivered:
            self.control("postsuper", "-H", "ALL")
            running = self._now(self.postfix)
            began, before = time.perf_counter(), running.processor
            self.control("postqueue", "-f")
            sink.await_taken(messages)
            return Took(time.perf_counter() - began, running.processor - before)

    def control(self, name: str, *arguments: str) -> None:
        """Run one of Postfix's commands on this Postfix."""
        argv = self._command(name, *arguments)
        ran = subprocess.run(argv, env=postfix_environment(), capture_output=True, text=True, check=False)
        if ran.returncode:
            raise RuntimeError(f"{name}: {ran.stderr}")

    def _command(self, name: str, *arguments: str) -> list[str]:
        assert self.postfix is not None
        return [program(name), "-c", str(self.postfix.configuration), *arguments]

    def list_into(self, file: Path) -> Took:
        assert self.postfix is not None
        running = self._now(self.postfix)
        before = running.processor
        took = _timed(self._command("postqueue", "-p"), file, env=postfix_environment())
        # Its showq, which reads the queue, is a process of the running Postfix.
        return Took(took.seconds, took.processor + running.processor - before)

    def queued(self) -> int:
        assert self.postfix is not None
        places = ("hold", "incoming", "active", "deferred")
        return sum(file.is_file() for place in places for file in (self.postfix.queue / place).rglob("*"))


def _timed(argv: Sequence[str], output: Path, env: Mapping[str, str] | None = None) -> Took:
    with output.open("wb") as file:
        began, before = time.perf_counter(), reaped_seconds()
        subprocess.run(argv, stdout=file, env=env, check=True)
        return Took(time.perf_counter() - began, reaped_seconds() - before)
