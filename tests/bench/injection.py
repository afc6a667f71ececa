"""How many mails a second programs hand over by sendmail(8), one after another: ours, and those of others.

    scripts/bench_injection [--rounds 10] [--batch 20] [--directory DIR] [--json]

Every program takes the same 2 KB mail (`sendmail -t -i < FILE`), is durable as it is by default, and delivers
nothing. In each round each has its turn with one batch, in an order drawn anew. A ratio is the median of
those of the rounds; the control is our compiled front once more. Our receiver runs, which does all the work
that is to be done; of Postfix and nullmailer nothing takes the mail out of the first queue meanwhile.
"""

# ruff: noqa: T201 - a command that prints

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inbound.sendmail_front import compiled
from testbed.capability import tracer
from testbed.modules import module_command
from testbed.postfix import Postfix
from testbed.relay import Relay
from testbed.sendmail import unpacked
from testbed.tools import postfix_environment, postfix_root, program

_INSIDE = "MAILER_BENCH_INSIDE"
_SYNCS = "fsync,fdatasync,syncfs,sync"
_HEADER = b"From: app@here.example\nTo: Bob Bee <bob@example.net>\nSubject: injection\n\n"
MESSAGE = _HEADER + b"A line of some length, as they are in mail that programs write to people.\n" * 26
_SCRIPT = "#!{python}\nimport sys\nfrom mailer.sendmail.main import main\nsys.exit(main())\n"
_DMA = "SPOOLDIR /var/spool/dma\nDEFER\nMAILNAME here.example\n"


@dataclass
class Way:
    """One program, and how long its batches took."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    beside: int = 0
    """The process that does the work behind it, whose syncs count too; 0: none."""
    seconds: list[float] = field(default_factory=list)
    syncs: int = 0

    def start(self, mail: Path, under: Sequence[str] = ()) -> None:
        """Hand the mail over once.

        Raises:
            RuntimeError: it was not taken.
        """
        with mail.open("rb") as given:
            done = subprocess.run(
                [*under, *self.argv],
                stdin=given,
                env={**os.environ, **self.environment},
                capture_output=True,
                check=False,
            )
        if done.returncode:
            raise RuntimeError(
                f"{self.name}: exit code {done.returncode}: {done.stderr.decode(errors='replace')}"
            )

    def turn(self, mail: Path, batch: int) -> None:
        began = time.perf_counter()
        for _ in range(batch):
            self.start(mail)
        self.seconds.append((time.perf_counter() - began) / batch)

    def count_syncs(self, mail: Path, log: Path) -> None:
        watch = [tracer(), "-f", "-o", str(log), "-e", f"trace={_SYNCS}"]
        if not self.beside:
            self.start(mail, watch)
        else:
            with subprocess.Popen(
                [*watch, "-p", str(self.beside)], stderr=subprocess.PIPE, text=True
            ) as watcher:
                assert watcher.stderr
                watcher.stderr.readline()  # "attached"
                self.start(mail)
                watcher.terminate()
        self.syncs = len(re.findall(r"^\d+ +\w+\(", log.read_text(), re.MULTILINE))


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench_injection")
    parser.add_argument("--rounds", type=int, default=10, help="two at least")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on the disk that is meant")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if _INSIDE not in os.environ:
        # dma and nullmailer look for their files below /etc and /var/spool, which nobody else sees here.
        argv = [program("unshare"), "--mount", *module_command("bench.injection", *sys.argv[1:])]
        os.execve(argv[0], argv, {**os.environ, _INSIDE: "1"})
    with tempfile.TemporaryDirectory(prefix="mailer-injection-", dir=asked.directory) as name:
        base = Path(name)
        base.chmod(0o755)
        mail = base / "mail"
        mail.write_bytes(MESSAGE)
        with contextlib.ExitStack() as running:
            ways = [*_ours(base, running), *_others(base, running), *_floors()]
            for way in ways:
                way.count_syncs(mail, base / "trace")
            for _ in range(asked.rounds):
                for way in random.sample(ways, len(ways)):
                    way.turn(mail, asked.batch)
    _report(ways, as_json=asked.json)


def _ours(base: Path, running: contextlib.ExitStack) -> Iterator[Way]:
    directory = base / "ours"
    directory.mkdir()
    place = directory / "submit.sock"
    user = {"login": str(os.getuid()), "user": "app@example.com"}
    relay = Relay(directory, {"submitSocket": str(place), "localUsers": [user]})
    receiver = running.enter_context(relay.serve())
    environment = {"MAILER_SUBMIT_SOCKET": str(place)}
    script = directory / "sendmail"
    script.write_text(_SCRIPT.format(python=sys.executable))
    script.chmod(0o755)
    front = str(compiled(directory / "front", Path(sys.executable).parents[1]))
    programs = {"ours, compiled": front, "control: the same": front, "ours, Python": str(script)}
    for name, path in programs.items():
        yield Way(name, [path, "-t", "-i"], environment, receiver.pid)


def _others(base: Path, running: contextlib.ExitStack) -> Iterator[Way]:
    # Its sendmail starts postdrop without our environment, and so without where its libraries are unpacked.
    _mount("-t", "overlay", "overlay", "-o", f"lowerdir={postfix_root()}/usr/lib:/usr/lib", "/usr/lib")
    postfix = running.enter_context(Postfix())
    # Where pickup would be told of each mail.
    told = running.enter_context(socket.socket(socket.AF_UNIX))
    told.bind(str(postfix.queue / "public" / "pickup"))
    told.listen(4096)
    environment = {**postfix_environment(), "MAIL_CONFIG": str(postfix.configuration)}
    yield Way("Postfix sendmail", [f"{postfix_root()}/usr/sbin/sendmail", "-t", "-i"], environment)

    spool = base / "spool"
    for name in ("dma", "nullmailer/queue", "nullmailer/tmp", "nullmailer/failed"):
        (spool / name).mkdir(parents=True)
    os.mkfifo(spool / "nullmailer" / "trigger")
    for path in spool.rglob("*"):
        shutil.chown(path, "mail", "mail")
    _mount("--bind", str(spool), "/var/spool")
    etc = base / "etc"
    (etc / "dma").mkdir(parents=True)
    (etc / "nullmailer").mkdir()
    (etc / "dma" / "dma.conf").write_text(_DMA)
    for name, text in (("me", "here.example\n"), ("defaulthost", "here.example\n"), ("allmailfrom", "")):
        (etc / "nullmailer" / name).write_text(text)
    _mount("-t", "overlay", "overlay", "-o", f"lowerdir={etc}:/etc", "/etc")
    yield Way("dma", [unpacked("dma", "usr/sbin/dma"), "-t", "-i"])
    queue = {"NULLMAILER_QUEUE": unpacked("nullmailer", "usr/sbin/nullmailer-queue")}
    yield Way("nullmailer-inject", [unpacked("nullmailer", "usr/bin/nullmailer-inject"), "-h"], queue)


def _mount(*arguments: str) -> None:
    subprocess.run([program("mount"), *arguments], check=True)


def _floors() -> Iterator[Way]:
    # The system's Python, and not the environment's, which has more to read when it starts.
    yield Way("python3 -c pass", ["/usr/bin/python3", "-c", "pass"])
    yield Way("true", [program("true")])


def _report(ways: Sequence[Way], *, as_json: bool) -> None:
    (postfix,) = [way for way in ways if way.name.startswith("Postfix")]
    if not as_json:
        print(f"{'':<20} {'ms':>8} {'a second':>9} {'to Postfix':>11} {'(quartiles)':>15} {'syncs':>6}")
    for way in ways:
        ratios = [theirs / own for own, theirs in zip(way.seconds, postfix.seconds, strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
        took = statistics.median(way.seconds)
        if as_json:
            line = {"name": way.name, "ms": 1000 * took, "a_second": 1 / took, "to_postfix": ratio}
            print(json.dumps({**line, "quartiles": [low, high], "syncs": way.syncs, "seconds": way.seconds}))
        else:
            rate = f"{1000 * took:8.2f} {1 / took:9.0f} {ratio:11.2f}"
            print(f"{way.name:<20} {rate} {low:7.2f} {high:7.2f} {way.syncs:6}")


if __name__ == "__main__":
    main()
