"""Exim, OpenSMTPD, dma and nullmailer as contestants.

They look for their files at fixed places, and so run in mount namespaces, into which strace does not follow.
dma and nullmailer take no mail by SMTP: here they only send; `scripts/bench_injection` has them take mail.
"""

import os
import shutil
import subprocess
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from testbed.namespaced import Exim, OpenSmtpd
from testbed.ports import LOOPBACK
from testbed.process import ServerProcess
from testbed.sendmail import unpacked
from testbed.tools import program
from testbed.waiting import until

from bench.costs import processor_seconds, reaped_seconds
from bench.load import PATIENCE, RECIPIENT, SENDER, Load, Sink
from bench.servers import Accepting, Again, Contestant, Mailer, OfPostfix, Running, Sending, Took

_MAIL = f"From: {SENDER}\nTo: {RECIPIENT}\nSubject: one of many\n\n" + f"{'x' * 72}\n" * 26


class OfExim(Accepting):
    name = "Exim"
    traceable = False

    @contextmanager
    def accepting(self, under: Sequence[str] = ()) -> Iterator[Running]:
        assert not under
        with Exim(self.onward, keep=True) as process:
            yield Running(process.port, process.pid)

    @contextmanager
    def relaying(self) -> Iterator[Running]:
        with Exim(self.onward) as process:
            yield Running(process.port, process.pid)


class OfOpenSmtpd(Accepting, Sending):
    name = "OpenSMTPD"
    traceable = False
    most = 100  # By default it sends some 20 a second to one host.

    @contextmanager
    def accepting(self, under: Sequence[str] = ()) -> Iterator[Running]:
        assert not under
        with OpenSmtpd(self.onward, keep=True) as process:
            yield Running(process.port, process.pid)

    @contextmanager
    def relaying(self) -> Iterator[Running]:
        with OpenSmtpd(self.onward) as process:
            yield Running(process.port, process.pid)

    def fill(self, messages: int) -> None:
        """Take it in, which `deliver` does first: a queue goes with its server."""

    def deliver(self, sink: Sink, messages: int, runners: int = 1) -> Took:
        assert runners == 1, "it has one scheduler"
        with OpenSmtpd(self.onward, keep=True) as process:
            Load(messages, reuse=True).submit(process.port)
            began, before = time.perf_counter(), processor_seconds(process.pid)
            process.resume()
            sink.await_taken(messages)
            return Took(time.perf_counter() - began, processor_seconds(process.pid) - before)


class _NullClient(Sending):
    """A queue that programs fill by sendmail(8), and a program that sends it."""

    traceable = False
    package = ""
    spools: Sequence[str] = ()
    """The directories in `/var/spool` that it wants."""

    @abstractmethod
    def configure(self, etc: Path) -> None:
        """Write its files in `/etc`."""

    @abstractmethod
    def fill(self, messages: int) -> None:
        """Put messages into the queue."""

    @property
    def spool(self) -> Path:
        return self.directory / "spool"

    def in_its_place(self, script: str, *namespaces: str) -> list[str]:
        """Return the command that runs a script where its files are at the places that it looks at."""
        etc = self.directory / "etc"
        if not etc.exists():
            (etc / self.package).mkdir(parents=True)
            self.configure(etc)
            for name in self.spools:
                (self.spool / name).mkdir(parents=True)
            for path in self.spool.rglob("*"):
                shutil.chown(path, "mail", "mail")
        lib = unpacked(self.package, "usr/lib")
        mounts = (
            f"mount --bind {self.spool} /var/spool",
            f"mount -t overlay overlay -o lowerdir={etc}:/etc /etc",
            f"mount -t overlay overlay -o lowerdir={lib}:/usr/lib /usr/lib",
        )
        shell = "\n".join(("set -e", *mounts, script))
        return [program("unshare"), "--mount", *namespaces, "/bin/bash", "-c", shell]


class OfNullmailer(_NullClient):
    name, package = "nullmailer", "nullmailer"
    spools = ("nullmailer/queue", "nullmailer/tmp", "nullmailer/failed")
    most = 1000

    def configure(self, etc: Path) -> None:
        (etc / "mailname").write_text("here.example\n")
        (etc / self.package / "remotes").write_text(f"{LOOPBACK} smtp --port={self.onward}\n")

    def fill(self, messages: int) -> None:
        """Write the files as nullmailer-queue does, without the time that it takes."""
        self.in_its_place("")
        os.mkfifo(self.spool / "nullmailer" / "trigger")
        for number in range(messages):
            (self.spool / "nullmailer" / "queue" / str(number)).write_text(
                f"{SENDER}\n{RECIPIENT}\n\n{_MAIL}"
            )

    def deliver(self, sink: Sink, messages: int, runners: int = 1) -> Took:
        assert runners == 1, "it has one sender"
        sender = unpacked(self.package, "usr/sbin/nullmailer-send")
        began, before = time.perf_counter(), reaped_seconds()
        with ServerProcess(self.in_its_place(f"exec {sender}"), self.directory / "log"):
            sink.await_taken(messages)
            took = time.perf_counter() - began
        return Took(took, reaped_seconds() - before)


class OfDma(_NullClient):
    name, package = "dma", "dma"
    spools = ("dma",)
    most = 400  # A process for each message, all at once.

    def configure(self, etc: Path) -> None:
        lines = ("SPOOLDIR /var/spool/dma", "DEFER", "MAILNAME here.example")
        towards = (f"SMARTHOST {LOOPBACK}", f"PORT {self.onward}")
        (etc / self.package / "dma.conf").write_text("\n".join((*lines, *towards, "")))

    def fill(self, messages: int) -> None:
        """Hand mail over as programs do."""
        mail = self.directory / "mail"
        mail.write_text(_MAIL)
        dma = f"{unpacked(self.package, 'usr/sbin/dma')} -f {SENDER} {RECIPIENT} < {mail}"
        loop = f"for ((i = 0; i < {messages}; i++)); do {dma}; done"
        subprocess.run(self.in_its_place(loop), check=True, capture_output=True)

    def deliver(self, sink: Sink, messages: int, runners: int = 1) -> Took:
        assert runners == 1, "one run starts all that there are"
        # Its processes go on after the first has ended. A shell that is the first of their process namespace
        # inherits them, and so their processor time.
        script = f"{unpacked(self.package, 'usr/sbin/dma')} -q\nwhile kill -0 -1 2>&-; do sleep 0.05; done"
        began, before = time.perf_counter(), reaped_seconds()
        argv = self.in_its_place(script, "--pid", "--fork", "--kill-child")
        with ServerProcess(argv, self.directory / "log") as process:
            sink.await_taken(messages)
            took = time.perf_counter() - began
            until(lambda: not process.running, "dma's processes to end", PATIENCE)
        return Took(took, reaped_seconds() - before)


US_AND_POSTFIX: tuple[type[Contestant], ...] = (Mailer, OfPostfix, Again)
ACCEPTING: tuple[type[Contestant], ...] = (*US_AND_POSTFIX, OfOpenSmtpd, OfExim)
SENDING: tuple[type[Contestant], ...] = (*US_AND_POSTFIX, OfOpenSmtpd, OfNullmailer, OfDma)
