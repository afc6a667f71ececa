"""Three hosts under load, fault after fault, and the books at the end. A seed replays the choices."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from testbed.ports import free_port
from testbed.process import ServerProcess
from testbed.waiting import until

from hosts_lab.ground import Ground
from hosts_lab.host import CONCURRENCY, SESSIONS, Host
from hosts_lab.judge import FENCED_AFTER, Fault, Verdict, judge
from hosts_lab.load import Client, Flow, read, uptime
from mailer.cli.exits import Exit

_TESTS = Path(__file__).parents[1]
NAMES = ("a", "b", "c")
_BACKLOG = 400
_DRAINED_WITHIN = 300.0
_NOTICED_WITHIN = 2.0
"""Seconds until we have seen that an epoch began."""
_ADOPTED_AFTER = 3
"""Times that `adopt` is typed until all mail of a dead host must be moved."""


class Session:
    """Hosts on one ground, from an empty directory on."""

    def __init__(
        self,
        directory: Path,
        ground: Ground,
        seed: int,
        say: Callable[[str], object],
        *,
        pause: float = 0.0,
        reply_after: float = 0.005,
    ) -> None:
        """
        Args:
            directory: a new one, on a local disk, for configurations and logs.
            ground: where the spools are.
            seed: of the choices, and part of each message's mark.
            say: told of each round, in a line.
            pause: seconds that a client rests after each message.
            reply_after: seconds that the next hop takes for each message, so that some are at their final dot
                at any moment.
        """
        directory.mkdir(parents=True)
        self._chance = random.Random(seed)
        self._ground, self._say, self._seed = ground, say, seed
        self._dots = directory / "dots"
        self._dots.touch()
        self._pause, self._reply_after = pause, reply_after
        self._port = free_port()
        self._directory = directory
        ground.path(NAMES[0]).mkdir(exist_ok=True)
        self.hosts = [Host(directory / name, name, ground.path(name), self._port) for name in NAMES]
        self.flow = Flow(self._dots, _BACKLOG)
        self.faults: list[Fault] = []
        self.wrong: list[str] = []

    @contextmanager
    def running(self, clients: int) -> Iterator[None]:
        """Run the hosts, the next hop and some clients at each host; when the block ends well, drain."""
        with ExitStack() as ending:
            how = (str(self._dots), str(self._reply_after), str(self._port))
            argv = [sys.executable, "-m", "hosts_lab.sink", *how]
            env = os.environ | {"PYTHONPATH": str(_TESTS)}
            sink = ending.enter_context(ServerProcess(argv, self._directory / "sink.log", env=env))
            sink.await_port(self._port)
            ending.callback(self._kill)
            for host in self.hosts:
                self._join(host)
                host.start()
            logs = [self._directory / f"acknowledged-{host.name}" for host in self.hosts]
            threads = [
                Client(
                    host.name, host.port, f"s{self._seed}-{host.name}{number}", log, self.flow, self._pause
                )
                for host, log in zip(self.hosts, logs, strict=True)
                for number in range(clients)
            ]
            ending.callback(self.flow.stop.set)
            for thread in threads:
                thread.start()
            yield
            self.flow.stop.set()
            for thread in threads:
                thread.join()
            self._drain()
            for host in self.hosts:
                if any(codes := host.end()):
                    self.wrong.append(f"the programs of {host.name} ended with {codes}")

    def verdict(self) -> Verdict:
        """Judge what clients and the next hop have seen."""
        acknowledged = [moment for name in NAMES for moment in read(self._directory / f"acknowledged-{name}")]
        left = [f"{row['id']} of {row.get('host')}" for row in self.hosts[0].listed()]
        found = judge(acknowledged, read(self._dots), self.faults, left)
        found.wrong += self.wrong
        return found

    def work(self, seconds: float) -> None:
        """Let the hosts work for a time that is part of the story."""
        until_then = uptime() + seconds
        while (left := until_then - uptime()) > 0:
            self.flow.look()
            time.sleep(min(left, 0.05))

    def round(self, kind: str = "") -> None:
        """Have something happen to a host, another one adopt its mail, and the host come back.

        Args:
            kind: what happens; empty: one of those that are possible, at random.
        """
        kind = kind or self._chance.choice(self._ground.kinds)
        victim, adopter = self._chance.sample(self.hosts, 2)
        self.work(self._chance.uniform(2, 6))
        before = self.flow.look()
        fault = self._harm(kind, victim, adopter)
        self.faults.append(fault)
        times = self._adopt(fault, victim, adopter)
        if any(row["host"] == victim.name for row in adopter.listed()):
            self.wrong.append(f"mail is left in the spool of {victim.name} after {fault}")
        seconds = uptime() - fault.at
        self._bring_back(fault, victim)
        self._say(
            f"{len(self.faults):4}  {kind:<9} of {victim.name}, adopted by {adopter.name}: {seconds:.0f} s, "
            f"{times} x adopt, {self.flow.look() - before} delivered meanwhile, "
            f"{self.flow.acknowledged} acknowledged so far"
        )

    def _harm(self, kind: str, victim: Host, adopter: Host) -> Fault:
        doubts = SESSIONS if self._ground.keeps_what_was_written else CONCURRENCY
        fault = Fault(kind, victim.name, adopter.name, uptime(), doubts=0 if kind == "wrong" else doubts)
        fault.loses_a_second = not self._ground.keeps_what_was_written
        if kind in {"kill", "stop"}:
            victim.signal(signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
        self._ground.fault(kind, victim)
        return fault

    def _adopt(self, fault: Fault, victim: Host, adopter: Host) -> int:
        """Adopt until all mail is moved; return how often that was typed."""
        for times in range(1, _ADOPTED_AFTER + 1):
            with adopter.adopting(
                victim.name, *(self._ground.proof(fault.kind) if times == 1 else ())
            ) as run:
                assert run.stderr
                said = []
                for line in run.stderr:
                    said.append(line)
                    self.flow.look()
                    if line.startswith("waiting") and times == 1:
                        fault.epoch = uptime()
            if times == 1:
                if uptime() < fault.epoch + FENCED_AFTER - _NOTICED_WITHIN:
                    self.wrong.append(
                        f"adopt did not wait until the programs must have stopped, after {fault}"
                    )
                self._awake(fault, victim)
            if run.returncode == 0:
                return times
            if run.returncode != Exit.TEMPORARY:
                break
        self.wrong.append(f"adopt ended with {run.returncode} after {fault}: {''.join(said)}")
        return times

    def _awake(self, fault: Fault, victim: Host) -> None:
        """Let a host that only seemed dead go on, and see that it ends or does no harm."""
        self._ground.heal(fault.kind, victim)
        victim.signal(signal.SIGCONT)
        if fault.kind == "wrong" or (fault.kind != "kill" and self._ground.keeps_what_was_written):
            codes = [program.wait() for program in victim.programs]
            if any(code != Exit.TEMPORARY for code in codes):
                self.wrong.append(f"programs ended with {codes} after {fault}")
        elif fault.kind != "kill":
            # Evicted, they cannot read the epoch: they stay, and must do nothing.
            self.work(self._chance.uniform(2, 8))

    def _bring_back(self, fault: Fault, victim: Host) -> None:
        victim.signal(signal.SIGKILL)
        if fault.kind != "wrong":
            # First: programs that wait for their mount end with it.
            self._ground.renew(victim.name)
        victim.kill()
        fault.back = uptime()
        self._join(victim)
        victim.start()

    def _join(self, host: Host) -> None:
        done = host.mailer("hosts", "join", under=host.here)
        assert done.returncode == 0, done.stderr

    def _drain(self) -> None:
        def drained() -> bool:
            left = [row["host"] for row in self.hosts[0].listed()]
            for host in self.hosts:
                if host.name in left:
                    # What was in doubt waits for its time: the operator wants it tried now.
                    host.mailer("spool", "retry", "--all", under=host.here)
            self.flow.look()
            return not left

        until(drained, "the spools to be empty", _DRAINED_WITHIN)

    def _kill(self) -> None:
        for host in self.hosts:
            host.signal(signal.SIGKILL)
