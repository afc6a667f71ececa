"""The mailer on a power-cut disk: its programs at work before the cut, and its programs again after it."""

import os
import subprocess
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from testbed.faketime import faketime
from testbed.forked import Program, Spec, have_all_loaded
from testbed.process import ServerProcess
from testbed.relay import Relay
from testbed.sendmail import write_sendmail

from power_cuts.books import SENDER, Books, Event
from power_cuts.image import Cut
from power_cuts.promises import KEYED, RATIONED, broken, listener, missing
from power_cuts.standing import Spool, Standing, Walk
from power_cuts.story import Finding, Story
from power_cuts.verdict import Aftermath, Judge, Run, look
from power_cuts.world import MaildirWatcher, destinations, kept

MINUTE_AT = 11.0
"""Seconds into a recording at which the programs' clock begins a minute: what was deferred is due then."""
_AHEAD = 600.0
"""Seconds by which the programs' clock is ahead when they drain: all that was deferred is due."""
_ALSO_RECEIVE = 8
"""After one cut of so many the receiver is started too, and takes one more message."""


def clock_ahead(seconds: float) -> tuple[str, ...]:
    """The command that runs another program with a clock that is so much ahead.

    Only the date is: a thread that waits for a time on the monotonic clock would wait so much longer, since
    libfaketime does not know sem_clockwait(3), and what is due within a second would not be done.
    """
    return ("env", "FAKETIME_DONT_FAKE_MONOTONIC=1", *faketime(f"+{seconds:.3f}"))


_TOO_LATE = (os.EX_NOINPUT, os.EX_DATAERR)
"""How a command ends about a message that is gone, or is where it means nothing."""
_PATIENCE = 30.0
"""Seconds for which a command is given again for a message that a runner has in hand: a runner that starts
beside five others on a slow machine takes several for its first messages."""


@dataclass
class Stage:
    """The programs on the recorded disk, and the clients and the operator who use them."""

    relay: Relay
    books: Books
    running: ExitStack
    clock: Sequence[str] = ()
    """The command that gives a program its clock."""
    began: float = field(default_factory=time.monotonic)
    programs: list[ServerProcess] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    _ids: dict[str, str] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)
    _ordered: dict[str, threading.Thread] = field(default_factory=dict)
    """The last order about each message."""

    def serve(self) -> None:
        self.programs.append(self.running.enter_context(self.relay.serve(under=self.clock)))

    def watch(self) -> None:
        self.programs.append(self.running.enter_context(self.relay.watch(under=self.clock)))

    def at(self, seconds: float) -> None:
        """Let time pass until so many seconds after the beginning: the cut may come at any of them."""
        time.sleep(max(0.0, self.began + seconds - time.monotonic()))

    def submit(self, token: str, *to: str, key: str = "") -> None:
        """Submit one message, and note its 250."""
        keyed = f"Idempotency-Key: {key}\r\n" if key else ""
        message = f"From: <{SENDER}>\r\n{keyed}Subject: {token}\r\n\r\n" + f"{token} says hello.\r\n" * 20
        with self.relay.connect() as client:
            client.mail(SENDER)
            for recipient in to:
                client.rcpt(recipient)
            code, reply = client.data(message.encode())
            assert code == 250, reply
            self._ids[token] = reply.split()[-1].decode()
            self.books.note("accepted", token, to, self._ids[token])

    def leave(self, token: str, to: str) -> None:
        """Have a user leave one message in `drop/`, and note that the program ended with 0."""
        sendmail = write_sendmail(
            self.relay.directory, self.relay.directory / "no.sock", uid=USER, drop=self.relay.spool / "drop"
        )
        text = f"From: <{SENDER}>\nSubject: {token}\n\n{token} says hello.\n"
        argv = [*self.clock, str(sendmail), "-f", SENDER, to]
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self.books.note("accepted", token, [to])

    def suppress(self, address: str) -> None:
        """Have the operator put an address on the suppression list."""
        self.books.note("asked", address, what="suppress")
        assert self.relay.mailer("suppress", "add", address, under=self.clock).returncode == 0
        self.books.note("done", address, what="suppress")

    def once(self) -> None:
        """Have a run begin, as cron does."""
        self._begin(partial(self._finish, self.relay.mailer_send, "--once"))

    def order(self, verb: str, token: str) -> None:
        """Have the operator give a command about one message."""
        before = self._ordered.get(token)
        self._ordered[token] = self._begin(partial(self._order, verb, token, before))

    def _order(self, verb: str, token: str, before: threading.Thread | None) -> None:
        if before:
            before.join()
        self.books.note("asked", token, what=verb)
        # A slow machine may come to it when the message has moved on: then nothing is promised of it.
        if self._finish(self.relay.mailer, "spool", verb, self._ids[token], fine=_TOO_LATE) == 0:
            self.books.note("done", token, what=verb)

    def _finish(
        self,
        command: Callable[..., subprocess.CompletedProcess[str]],
        *arguments: str,
        fine: Sequence[int] = (),
    ) -> int:
        until = time.monotonic() + _PATIENCE
        while (done := command(*arguments, under=self.clock)).returncode == os.EX_TEMPFAIL:
            # A runner has claimed it just now, and the operator gives the command again.
            if time.monotonic() > until:
                break
        said = f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}"
        assert done.returncode in {0, *fine}, f"{said}\n{self._printed()}"
        return done.returncode

    def _printed(self) -> str:
        """What the programs have printed so far, and when the machine stood still."""
        logs = [path.read_text() for path in sorted(self.relay.directory.glob("*.log"))]
        late = [f"stood still: {event}" for event in self.books.events if event.kind == "late"]
        return "\n".join([*logs, *late])

    def _begin(self, work: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except Exception:  # noqa: BLE001 - handed to the thread that waits in `end`
                self.trouble.append(traceback.format_exc())

        thread = threading.Thread(target=run)
        thread.start()
        self._threads.append(thread)
        return thread

    def end(self) -> None:
        """Wait for every command, then have the programs die."""
        for thread in self._threads:
            thread.join()
        assert not self.trouble, "\n".join(self.trouble)
        for process in self.programs:
            process.kill()


USER = 4711
"""Who leaves mail in `drop/`."""


@dataclass(frozen=True)
class MailScene:
    """A configuration, and what happens with it."""

    name: str
    settings: Mapping[str, Any]
    script: Callable[[Stage], None]
    seconds: float = 34.0
    """How long it is recorded: longer than any kernel's interval of writing back."""
    promises: bool = False
    """There are an allowance, events, keys and a suppression list; see `promises`."""

    @property
    def local(self) -> bool:
        """Everything is kept in the local Maildir."""
        return not self.settings.get("forwardSMTP") and "directDelivery" not in self.settings

    @property
    def archived(self) -> bool:
        return bool(self.settings.get("security", {}).get("logAllEmails"))

    def relay(self, directory: Path, mount: Path) -> Relay:
        """Its spool is on the disk; the configuration and what the programs print are not."""
        relay = Relay(directory, {**self.settings, "spoolDir": str(mount / "spool")})
        relay.spool = mount / "spool"
        return relay

    def play(self, mount: Path, directory: Path, books: Books) -> None:
        """Have it happen."""
        with destinations(books, willing=False), ExitStack() as running:
            relay = self.relay(directory, mount)
            if self.promises:
                relay.configure(running.enter_context(listener(books)))
            if self.local:
                watcher = MaildirWatcher(relay.spool / "local", books)
                running.callback(watcher.end)
                watcher.start()
            ahead = -(time.time() + MINUTE_AT) % 60
            stage = Stage(relay, books, running, clock_ahead(ahead))
            self.script(stage)
            stage.at(self.seconds)
            books.note("end")
            stage.end()

    def walk(self, mount: Path, cut: Cut, promised: Sequence[Event]) -> Standing:
        """Judge what is there before any program has run."""
        spool, story = Spool(mount / "spool", local=self.local), Story(cut, promised)
        standing = Walk(spool, story, archived=self.archived).standing()
        if self.promises:
            standing.findings += missing(spool, story)
        return standing

    def examine(
        self, mount: Path, directory: Path, cut: Cut, promised: Sequence[Event]
    ) -> tuple[list[Finding], str]:
        """Start the programs again until nothing is left to do, and judge.

        Returns:
            What is wrong, and what the programs printed.
        """
        relay = self.relay(directory, mount)
        relay.configure({"batchDelay": 0})
        books, clock = Books(), clock_ahead(_AHEAD)
        with destinations(books, willing=True), ExitStack() as beside:
            if self.promises:
                relay.configure(beside.enter_context(listener(books)))
            if cut.number % _ALSO_RECEIVE == 0:
                with ExitStack() as running:
                    stage = Stage(relay, books, running, clock)
                    stage.serve()
                    stage.submit("afterwards", "zoe@one.test")
                    for event in promised:
                        # A client that had no answer, or does not remember it, comes again.
                        if event.kind == "accepted" and event.token.startswith(KEYED):
                            stage.submit(event.token, *event.to, key=event.token)
            runs = list(_drain(relay))
        left = look(relay.spool)
        aftermath = Aftermath(cut, promised, books.events, runs, left, archived=self.archived)
        further = []
        if self.promises:
            aftermath.rationed = RATIONED
            further += broken(aftermath, relay.spool)
        if self.local:
            aftermath.maildir = Counter(kept(relay.spool / "local"))
        printed = "\n".join(f"mailer-send --once ended with {run.status}:\n{run.output}" for run in runs)
        return [*Judge(aftermath).findings(), *further], printed


def have_runs_loaded() -> None:
    """Start the process that runs on images are forked from: its clock is theirs."""
    have_all_loaded(dict(word.split("=", 1) for word in clock_ahead(_AHEAD) if "=" in word))


def _drain(relay: Relay) -> list[Run]:
    """Run once; and again, if anything is left, for that run says why."""
    runs: list[Run] = []
    while len(runs) < 2:
        output, env = relay.directory / f"run-{len(runs)}.log", {"MAILER_CONFIG": str(relay.config)}
        run = Program(Spec(("mailer-send", "--once"), relay.directory, output, env))
        try:
            status = run.wait()
        except AssertionError:
            return [*runs, Run(None, run.said)]
        runs.append(Run(status, run.said))
        if not any(file.place in {"new", "cur", "retry"} for file in look(relay.spool)):
            break
    return runs
