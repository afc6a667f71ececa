"""A run that finds nothing to do ends before it imports what sends mail, and overlooks nothing."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from spools.strategies import accept
from testbed.relay import Relay

from mailer.cli.clocks import clocks
from mailer.config.model import Config
from mailer.maillog.events import Level, MailLog
from mailer.send.idle import is_idle
from mailer.spool.directory import Spool
from mailer.spool.layout import DROP, ONCE, bucket_for, scheduled_bucket_for
from mailer.spool.state import last_run, pause

DAY = 86_400.0
HEAVY = {
    "asyncio",
    "ssl",
    "filelock",
    "dns",
    "dkim",
    "cryptography",
    "aiohttp",
    "aiosmtpd",
    "mailer.send.run",
}

MODULES = 217
"""205 with Python 3.11 and click 8.5; few of them are ours."""
RUN = """
import atexit, sys
from pathlib import Path
report = Path(sys.argv.pop(1))
atexit.register(lambda: report.write_text(" ".join(sys.modules)))
from mailer.cli.send import main
main()
"""


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool.open(tmp_path / "spool", create=True) as opened:
        yield opened


def moved(spool: Spool, directory: str) -> None:
    name = accept(spool.path, now=time.time())
    (spool.path / directory).mkdir(mode=0o700, exist_ok=True)
    (spool.path / "new" / name).rename(spool.path / directory / name)


def left_as_a_drop(spool: Spool) -> None:
    (spool.path / DROP).mkdir(mode=0o700)
    moved(spool, DROP)


def once_swept(age: float) -> Callable[[Spool], None]:
    def make(spool: Spool) -> None:
        (spool.path / ONCE).mkdir(mode=0o700)
        (spool.path / ONCE / "swept").touch()
        os.utime(spool.path / ONCE / "swept", (time.time() - age, time.time() - age))

    return make


WORK: dict[str, Callable[[Spool], object]] = {
    "a message is there": lambda spool: accept(spool.path),
    "a runner has one, or died with it": lambda spool: moved(spool, "cur"),
    "a receiver writes one, or died with it": lambda spool: moved(spool, "tmp"),
    "a retry is due": lambda spool: moved(spool, f"retry/{bucket_for(time.time() - 60)}"),
    "a wrong clock named a bucket": lambda spool: moved(
        spool, f"retry/{bucket_for(time.time() + 999 * DAY)}"
    ),
    "a scheduled one is due": lambda spool: moved(spool, f"retry/{scheduled_bucket_for(time.time() - 60)}"),
    "a user left one": left_as_a_drop,
    "copies are too old": lambda spool: moved(spool, "sent/20200101"),
    "keys are to be swept": once_swept(2 * 3600),
    "the operator has paused, which is logged": lambda spool: pause.pause(spool, time.time(), "ann"),
    "the clock is doubted": lambda spool: (spool.path / "state" / "clock.json").write_text(
        '{"at":"2020-01-01T00:00:00Z"}'
    ),
}
NONE: dict[str, Callable[[Spool], object]] = {
    "nothing": lambda _: None,
    "a retry is due later": lambda spool: moved(spool, f"retry/{bucket_for(time.time() + 600)}"),
    "one is scheduled": lambda spool: moved(spool, f"retry/{scheduled_bucket_for(time.time() + 999 * DAY)}"),
    "held and failed": lambda spool: (moved(spool, "hold"), moved(spool, "failed")),
    "keys were swept": once_swept(60),
    "another program's files": lambda spool: (spool.path / "new" / "README").touch(),
}


def idle(spool: Spool) -> bool:
    return is_idle(Config(), spool, MailLog(time.time, lambda *_: None, None, shown=Level.ERROR), clocks())


@pytest.mark.parametrize("work", WORK)
def test_a_run_with_work_is_not_idle(work: str, spool: Spool) -> None:
    WORK[work](spool)
    assert not idle(spool)


@pytest.mark.parametrize("rest", NONE)
def test_a_run_without_work_is_idle(rest: str, spool: Spool) -> None:
    NONE[rest](spool)
    assert idle(spool)


@pytest.mark.usefixtures("unmeasured")
def test_an_idle_run_imports_nothing_that_sends_mail_and_leaves_its_mark(
    relay: Relay, tmp_path: Path
) -> None:
    """The number is a guard: each module costs a start-up some 0.3 ms, 1,440 times a day."""
    report = tmp_path / "modules"
    argv = (sys.executable, "-c", RUN, str(report), "--once", "--config", str(relay.config))
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    loaded = set(report.read_text().split())
    assert not HEAVY & loaded
    assert len(loaded) <= MODULES, sorted(loaded)
    with Spool.open(relay.spool) as spool:
        assert (mark := last_run.read(spool))
    assert (mark.mode, mark.claimed) == ("once", 0)
