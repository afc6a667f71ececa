"""What a service manager is told, and when its watchdog is fed: with a real notify socket."""

import asyncio
import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
from testbed.clients import Submission, with_smtplib
from testbed.notify import NotifySocket
from testbed.relay import Relay

from mailer.cli.service.manager import ServiceManager
from mailer.cli.service.notify_relay import NotifyRelay
from mailer.cli.service.watchdog import Finding, Verdict, Vitals, judge
from mailer.maillog.events import Fields, Level, MailLog
from mailer.spool.checks.self_test import queue_in_words
from mailer.spool.directory import Spool

FULL = OSError(errno.ENOSPC, "No space left on device")
MOVED = OSError(errno.ESTALE, "the spool was replaced by another directory")
MESSAGE = b"From: <app@example.com>\r\nSubject: hello\r\n\r\nOne line.\r\n"


@pytest.fixture(params=["path", "abstract"])
def notify(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NotifySocket]:
    with NotifySocket(tmp_path if request.param == "path" else None) as found:
        yield found


@pytest.mark.parametrize(
    ("environ", "address", "watchdog"),
    [
        ({}, "", 0),
        ({"NOTIFY_SOCKET": "/run/notify"}, "/run/notify", 0),
        ({"NOTIFY_SOCKET": "@name", "WATCHDOG_USEC": "1500000"}, "@name", 1.5),
        (
            {"NOTIFY_SOCKET": "@name", "WATCHDOG_USEC": "1500000", "WATCHDOG_PID": str(os.getpid())},
            "@name",
            1.5,
        ),
        ({"NOTIFY_SOCKET": "@name", "WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "1"}, "@name", 0),
        ({"NOTIFY_SOCKET": "@name", "WATCHDOG_USEC": "soon"}, "@name", 0),
        ({"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1500000"}, "", 0),
        ({"WATCHDOG_USEC": "1500000"}, "", 0),
    ],
)
def test_what_the_manager_asks_for_is_taken_out_of_the_environment(
    environ: dict[str, str], address: str, watchdog: float
) -> None:
    manager = ServiceManager.of(environ)
    assert (manager.address, manager.watchdog, environ) == (address, watchdog, {})


def test_reports_are_those_of_sd_notify(notify: NotifySocket) -> None:
    manager = ServiceManager(notify.address)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    manager.ready("works\non")
    manager.reloading()
    manager.status("works on")
    manager.status("works on")
    manager.alive(status="works on")
    manager.stopping()
    ready, reloading, status, alive, stopping = notify.got()
    assert ready == f"READY=1\nMAINPID={os.getpid()}\nSTATUS=works on"
    found = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)\nSTATUS=reading .*", reloading)
    assert found
    assert before <= int(found[1]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert [status, alive] == ["STATUS=works on", "WATCHDOG=1\nSTATUS=works on"]
    assert stopping.startswith("STOPPING=1\n")


def test_a_manager_that_is_gone_stops_nothing(tmp_path: Path) -> None:
    ServiceManager(str(tmp_path / "nobody")).ready()
    ServiceManager("@nobody-listens-to-this-name").alive(status="on")


@pytest.mark.parametrize(
    ("found", "passed", "feed"),
    [
        (Finding(), False, True),
        # No restart makes room, or has a disk answer.
        (Finding(trouble=FULL), True, True),
        (Finding(trouble=OSError(errno.EROFS, "Read-only file system")), True, True),
        (Finding(trouble=OSError(errno.EIO, "Input/output error")), True, True),
        (Finding(silent=True), True, True),
        # A restart opens what is there now, and gives back what was used up.
        (Finding(trouble=MOVED), True, False),
        (Finding(trouble=OSError(errno.EMFILE, "Too many open files")), True, False),
        (Finding(stuck=True), True, False),
        # It has been tried already.
        (Finding(trouble=MOVED), False, True),
        (Finding(stuck=True), False, True),
    ],
)
def test_the_watchdog_starves_only_where_a_restart_may_help(
    found: Finding, *, passed: bool, feed: bool
) -> None:
    verdict = judge(found, passed=passed)
    assert verdict.feed is feed
    assert bool(verdict.words) == (found != Finding())
    assert judge(Finding(), passed=passed) == Verdict(feed=True)


@contextmanager
def opened(directory: Path) -> Iterator[tuple[Spool, list[str], MailLog]]:
    lines: list[str] = []

    def sink(level: Level, text: str, told: Fields) -> None:
        lines.append(f"{level.name} {text} {told}")

    with Spool.open(directory / "spool", create=True) as spool:
        yield spool, lines, MailLog(time.time, sink)


def keeping(vitals: Vitals, story: "Sequence[object]") -> None:
    """Run it while the steps are taken, each in a thread: they wait."""

    async def run() -> None:
        with vitals.kept():
            for step in story:
                assert callable(step)
                await asyncio.to_thread(step)

    asyncio.run(run())


def test_a_spool_that_was_replaced_starves_the_watchdog_once_it_had_been_fed(
    tmp_path: Path, notify: NotifySocket
) -> None:
    def replace() -> None:
        spool.path.rename(tmp_path / "moved")
        Spool.open(tmp_path / "spool", create=True).close()

    def is_told() -> None:
        assert "WATCHDOG" not in notify.next_with("STATUS=the spool takes no mail: the spool was replaced")

    with opened(tmp_path) as (spool, lines, log):
        vitals = Vitals(ServiceManager(notify.address, watchdog=0.3), spool, log, lambda: "works")
        keeping(
            vitals, [lambda: notify.next_with("WATCHDOG=1\nSTATUS=works; queue: 0 ready"), replace, is_told]
        )
        assert [line for line in lines if line.startswith("WARNING the self-test failed") and "True" in line]
        # Another process opens what is there; one that still does not is not restarted again.
        vitals = Vitals(ServiceManager(notify.address, watchdog=0.3), spool, log, lambda: "works")
        keeping(vitals, [lambda: notify.next_with("WATCHDOG=1\nSTATUS=the spool takes no mail")])


def test_a_disk_that_takes_nothing_is_shown_and_mended_without_a_restart(
    tmp_path: Path, notify: NotifySocket
) -> None:
    def break_it() -> None:
        (spool.path / "state").rename(tmp_path / "state")
        (spool.path / "state").touch()

    def mend() -> None:
        (spool.path / "state").unlink()
        (tmp_path / "state").rename(spool.path / "state")

    with opened(tmp_path) as (spool, lines, log):
        vitals = Vitals(ServiceManager(notify.address, watchdog=0.3), spool, log, lambda: "works")
        keeping(
            vitals,
            [
                lambda: notify.next_with("WATCHDOG=1\nSTATUS=works"),
                break_it,
                lambda: notify.next_with(
                    "WATCHDOG=1\nSTATUS=the spool takes no mail: Not a directory; works"
                ),
                mend,
                lambda: notify.next_with("WATCHDOG=1\nSTATUS=works"),
            ],
        )
        assert [line for line in lines if line.startswith("NOTICE the self-test succeeds again")]


def test_a_thread_that_answers_no_more_starves_the_watchdog(tmp_path: Path, notify: NotifySocket) -> None:
    def is_told() -> None:
        assert "WATCHDOG" not in notify.next_with("STATUS=the thread that makes mail durable does not answer")

    def hangs() -> Future[None]:
        return Future()

    with opened(tmp_path) as (spool, _, log):
        vitals = Vitals(ServiceManager(notify.address, watchdog=0.3), spool, log, lambda: "works", hangs)
        keeping(vitals, [lambda: notify.next_with("WATCHDOG=1"), is_told])


def test_the_queue_is_counted_as_far_as_that_is_cheap(tmp_path: Path) -> None:
    with opened(tmp_path) as (spool, _, _):
        bucket = spool.path / "retry" / "20261122T2151Z"
        bucket.mkdir()
        (bucket / "one").touch()
        for number in range(11):
            (spool.path / "new" / f"{number}").touch()
        assert queue_in_words(spool, most=10) == "over 10 ready, 0 active, 1 to be tried again"


def from_another(address: str, report: str) -> None:
    code = "import socket, sys; socket.socket(1, 2).sendto(sys.argv[2].encode(), '\\0' + sys.argv[1][1:])"
    subprocess.run([sys.executable, "-c", code, address, report], check=True)


def test_several_programs_are_ready_and_alive_when_all_are(notify: NotifySocket) -> None:
    before = signal.getsignal(signal.SIGIO)
    relay = NotifyRelay(ServiceManager(notify.address, watchdog=60))
    try:
        assert relay.environ["WATCHDOG_USEC"] == "60000000"
        here = ServiceManager(relay.environ["NOTIFY_SOCKET"])
        ours, init = os.getpid(), 1
        relay.expect(ours, "serve", needed=True)
        relay.expect(init, "monitor", needed=False)
        here.ready("serves")
        from_another(here.address, "READY=1\nRELOADING=1\nSTATUS=forged\nWATCHDOG=1")
        relay.read()
        assert notify.got() == ["STATUS=serve: serves"]
        relay.forget(init)
        assert notify.got()[-1].startswith("READY=1\n")
        here.alive(status="still serves")
        relay.read()
        assert notify.got()[-1] == "WATCHDOG=1\nSTATUS=serve: still serves"
        relay.reload()
        assert notify.got()[-1].startswith("RELOADING=1\n")
        here.ready()
        relay.read()
        assert notify.next_with("RELOADING=1")
        assert notify.next_with("READY=1")
        relay.expect(init, "mailer-send", needed=True)
        here.alive(status="alone")
        relay.read()
        assert notify.got()[-1] == "STATUS=serve: alone"
        assert "forged" not in "".join(notify.got())
    finally:
        relay.close()
        signal.signal(signal.SIGIO, before)


@pytest.mark.parametrize("name", ["serve", "watch", "monitor", "up"])
def test_each_program_says_what_it_does(name: str, tmp_path: Path) -> None:
    """READY when it works, RELOADING and READY around a reload, the watchdog's sign of life, STOPPING."""
    relay = Relay(tmp_path, {"enableHealthCheck": name in {"monitor", "up"}})
    relay.configure({"healthCheckPort": relay.http_port})
    Spool.open(relay.spool, create=True).close()
    with NotifySocket(tmp_path) as notify:
        under = ["env", f"NOTIFY_SOCKET={notify.address}", "WATCHDOG_USEC=900000"]
        with relay.watch(under=under) if name == "watch" else relay.starting(name, under=under) as program:
            ready = notify.next_with("READY=1")
            assert f"MAINPID={program.pid}" in ready
            if name in {"serve", "up"}:
                # Ready is ready: nothing is waited for.
                mail = Submission("app@example.com", ("bob@example.net",), MESSAGE)
                assert with_smtplib(relay.server, mail, tmp_path).startswith("250")
                notify.next_with("1 messages taken")
            notify.next_with("WATCHDOG=1")
            notify.next_with("queue: ")
            program.signal(signal.SIGHUP)
            assert re.search(r"^MONOTONIC_USEC=\d+$", notify.next_with("RELOADING=1"), re.MULTILINE)
            notify.next_with("READY=1")
            program.signal(signal.SIGTERM)
            notify.next_with("STOPPING=1")
            assert program.wait() == 0
