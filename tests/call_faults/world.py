"""A spool, a next hop, a configuration; one program of them meets a fault, and others come after it.

What is checked knows the clients' acknowledgements, what the next hop took, and the documented format of the
spool: no line of the product's code.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outbound.hostile import Server, Session
from spools.strace import attach
from spools.walk import QUEUE, Found, walk
from testbed.forked import Program, Spec
from testbed.relay import Relay

from call_faults.faults import DELAY, KILL, SHORT, TRACED, Point

SENDER = "app@example.com"
_DEFECT = ("Traceback (most recent call last)", "a defect in mailer")
_FINAL = re.compile(rb"^Final-Recipient: [a-z0-9-]+; *(\S+)\r?$", re.MULTILINE)
_ROUNDS = 3
HARMLESS = ("EINTR", SHORT, DELAY)
"""After these all is as without them."""
_FATES = {b"<never": "550 5.1.1 no such user", b"<later": "451 4.7.1 greylisted"}


@dataclass
class Mail:
    """What a client knows of one message."""

    to: tuple[str, ...]
    message: bytes = b""
    acknowledged: bool = False
    refused: bool = False
    gone: bool = False
    """An operator has removed it, or has told so."""
    held: bool = False


@dataclass
class World:
    """One directory with all of it; `point` is what goes wrong, None: nothing."""

    directory: Path
    hop: Server
    settings: dict[str, Any]
    point: Point | None = None
    env: dict[str, str] = field(default_factory=dict)
    mails: list[Mail] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    doubts: Counter[str] = field(default_factory=Counter)
    """Who may get a second copy: a spool file says that the reply to the first was lost."""
    status: int | None = None
    """Of the program that met the fault."""
    ran: int = 0
    """Programs so far."""
    claimed: int = 1
    """Files that a program which dies may leave in `tmp/`."""

    def __post_init__(self) -> None:
        self.relay = Relay(self.directory, self.settings)
        self.spool = self.relay.spool
        self.spools = {self.spool: self.relay.config}
        """Every spool that mail may be in, with the configuration of its programs."""

    @property
    def trace(self) -> Path:
        return self.directory / "trace"

    @property
    def harmless(self) -> bool:
        return self.point is None or self.point.fault in HARMLESS

    def program(self, *argv: str, gate: bool = False, short: int = 0, **more: Any) -> Program:
        self.ran += 1
        at = self.directory / f"{self.ran}-{argv[0]}"
        env = {"MAILER_CONFIG": str(self.relay.config), **self.env, **more.pop("env", {})}
        opened = at.with_suffix(".gate") if gate else None
        return Program(Spec(argv, self.directory, at.with_suffix(".log"), env, opened, short=short, **more))

    def run(self, *argv: str, **more: Any) -> int:
        """Run a program that meets no fault; it must end without a defect."""
        program = self.program(*argv, **more)
        return self.end(program)

    def end(self, program: Program) -> int:
        """Wait for a program that meets no fault."""
        status = program.wait()
        self._look_at(program, status, ())
        return status

    def run_on(self, spool: Path, *argv: str) -> int:
        """Run a program on one of the spools, as `run` does."""
        return self.run(*argv, env={"MAILER_CONFIG": str(self.spools[spool])})

    def gated(self, *argv: str, **more: Any) -> Program:
        """Start the program that is to meet the fault; it waits before its first step."""
        short = self.point.number if self.point and self.point.fault == SHORT else 0
        program = self.program(*argv, gate=True, short=short, **more)
        program.await_gate()
        return program

    def faulted(self, *argv: str, **more: Any) -> int:
        """Run the program that meets the fault, from its first step."""
        program = self.gated(*argv, **more)
        with self.watched(program):
            program.begin()
            self.ended(program)
        return self.status or 0

    def ended(self, program: Program) -> None:
        """Wait for the program that met the fault."""
        self.status = program.wait()
        fine = (-9,) if self.point and self.point.fault == KILL else ()
        self._look_at(program, self.status, fine)

    @contextmanager
    def watched(self, program: Program) -> Iterator[None]:
        """Put the fault before a running program."""
        inject = self.point.injection if self.point else ()
        trace = TRACED if not inject else self.point.call if self.point else ""
        watcher = attach(program.pid, self.trace, inject=inject, trace=trace)
        try:
            yield
        finally:
            watcher.communicate()

    def _look_at(self, program: Program, status: int, fine: Sequence[int]) -> None:
        said = program.said
        if (status < 0 and status not in fine) or status in {1, os.EX_SOFTWARE}:
            self.wrong.append(f"{' '.join(program.spec.argv)} ended with {status}: {said[-1500:]}")
        elif any(words in said for words in _DEFECT):
            self.wrong.append(f"{' '.join(program.spec.argv)} printed: {said[-1500:]}")

    def look_for_doubts(self) -> None:
        """Read in the files what the program that died or failed had in hand."""
        for found in self.files(("new", "cur", "retry", "hold", "failed")):
            for to, status in found.statuses.items():
                if status == "uncertain":
                    self.doubts[to if found.sender else f"bounce {to}"] += 1

    def recover(self) -> None:
        """Run as cron does, with what was deferred made due, until the queue is empty."""
        self.look_for_doubts()
        self.hop.script["rcpt"] = _refuse_never
        for _ in range(_ROUNDS):
            for spool in self.spools:
                self.run_on(spool, "mailer", "spool", "retry", "--state", "retry")
                if status := self.run_on(spool, "mailer-send", "--once"):
                    self.wrong.append(f"mailer-send ended with {status} when the fault was over")
            if not self.files(("new", "cur", "retry")):
                break
        else:
            left = self.files(("new", "cur", "retry"))
            self.wrong.append(f"not drained: {[(each.place, each.kinds) for each in left]}")

    def files(self, places: tuple[str, ...] = QUEUE) -> list[Found]:
        """Return every file of some places of all spools."""
        return [found for spool in self.spools for found in walk(spool, places).values()]

    def copies(self) -> Counter[str]:
        return Counter(to for m in self.hop.messages if m.accepted and m.sender for to in m.recipients)

    def bounces(self) -> Counter[str]:
        """How often each recipient was reported as failed to the sender."""
        return Counter(
            name.decode()
            for message in self.hop.messages
            if message.accepted and not message.sender
            for name in _FINAL.findall(message.body)
        )

    def judge(self) -> Iterator[str]:
        """Every promise about mail that is broken, a sentence each."""
        yield from self.wrong
        copies, bounces = self.copies(), self.bounces()
        known = {to for mail in self.mails for to in mail.to}
        if strangers := (copies.keys() | bounces.keys()) - known:
            yield f"nobody submitted mail to {strangers}"
        for mail in self.mails:
            for to in mail.to:
                yield from self._of(mail, to, copies[to], bounces[to])
        for found in self.files():
            failed = found.place == "failed" and any(to.startswith("never") for to in found.recipients)
            held = found.place == "hold" and any(
                m.held and set(m.to) & set(found.recipients) for m in self.mails
            )
            if not failed and not held:
                yield f"left in {found.place}: {found.kinds} to {found.recipients}"
        leftovers = [each.name for spool in self.spools for each in (spool / "tmp").iterdir()]
        if len(leftovers) > (self.claimed if self.point else 0):
            yield f"left in tmp: {leftovers}"

    def _of(self, mail: Mail, to: str, copies: int, bounces: int) -> Iterator[str]:
        wanted, other = (bounces, copies) if to.startswith("never") else (copies, bounces)
        doubts = self.doubts[to] + self.doubts[f"bounce {SENDER}"] * to.startswith("never")
        what = f"{to} was {'bounced' if to.startswith('never') else 'delivered'} {wanted} times"
        if mail.acknowledged and not mail.gone and not mail.held and not wanted:
            yield f"lost: {what}, and its client was told that the mail is safe"
        if mail.refused and wanted:
            yield f"{what}, and its client was told that the mail is refused"
        if wanted > 1 + doubts:
            yield f"{what}, with {doubts} replies in doubt"
        if other:
            yield f"{to} got {copies} copies and {bounces} bounces"


def _refuse_never(_session: Session, line: bytes) -> str | None:
    return _FATES[b"<never"] if b"<never" in line else None


def moody(_session: Session, line: bytes) -> str | None:
    """RCPT as next hops answer it: `never...` is refused, `later...` is deferred."""
    return next((reply for name, reply in _FATES.items() if name in line), None)


def due(spool: Path, name: str, to: str) -> None:
    """Have a message in `new/` be one that was deferred, and is due, as the format has it."""
    bucket = spool / "retry" / "20260101T0001Z"
    bucket.mkdir(parents=True, exist_ok=True, mode=0o700)
    line = (
        '{"at":"2026-01-01T00:00:00.000000Z","event":"deferred","to":["%s"],"hop":"mx.example:25",'
        '"reply":"451 4.7.1 later","scope":"recipient","attempt":1,"next":"2026-01-01T00:00:30.000000Z"}\r\n'
    )
    with (spool / "new" / name).open("a", newline="") as file:
        file.write(line % to)
    (spool / "new" / name).rename(bucket / name)
