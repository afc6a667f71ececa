"""`mailer top` shows what the page shows, fits its terminal, and leaves it as it was."""

import fcntl
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from spools.states import Queue
from testbed.relay import Relay
from testbed.terminal import INTERRUPT, Terminal
from testbed.waiting import until

from mailer.cli.top.frame import fit
from mailer.spool.state import provider_state
from mailer.spool.state.provider_state import ProviderState

ALTERNATE, BACK, CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


@pytest.fixture
def states(relay: Relay) -> Queue:
    return Queue(relay.spool)


def start(relay: Relay, *arguments: str) -> Terminal:
    command = [sys.executable, "-m", "mailer", "top", "--interval", "0.2", *arguments]
    return Terminal(command, env={"MAILER_CONFIG": str(relay.config)}, cwd=relay.directory)


def echoes(terminal: Terminal) -> bool:
    """Whether it is as a shell leaves it: what is typed is shown, and comes line by line."""
    local = termios.tcgetattr(terminal._keyboard)[3]
    return bool(local & termios.ECHO) and bool(local & termios.ICANON)


def shown(terminal: Terminal) -> list[str]:
    """The lines of the last whole frame, without their looks."""
    last = terminal.screen().rpartition("\x1b[J")[0].rpartition("\x1b[H")[2]
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip("\r") for line in last.split("\n")]


def resize(terminal: Terminal, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal._keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def test_once_prints_the_numbers_and_nothing_for_a_terminal(relay: Relay, states: Queue) -> None:
    relay.configure(
        {
            "forwardSMTP": True,
            "forwardProviders": [{"host": "h", "name": "main"}],
            "rateLimits": {"enabled": True, "maxPerHour": 9},
        }
    )
    trouble = ProviderState(
        open_until=datetime.now(UTC) + timedelta(minutes=30),
        kind="quota",
        trouble="454 \x1b]0;owned\x07 enough",
    )
    provider_state.write(states.spool, {"h:587": trouble})
    for _ in range(3):
        states.fail(states.new(), "550 no")
    with relay.serve(), relay.connect() as client:
        client.sendmail("app@example.com", ["bob@example.net"] * 2, "Subject: hello\r\n\r\nhello\r\n")
    done = relay.mailer("top", "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    words = " ".join(done.stdout.split())
    assert "failed 3 " in words
    assert "new 1 " in words
    assert "hour 1 0 0 0" in words
    assert "app@example.com: 1 of 9 an hour" in words
    assert relay.mailer("top").stdout.split()[:2] == done.stdout.split()[:2]


def test_it_shows_what_comes_and_q_leaves_the_terminal_as_it_was(relay: Relay, states: Queue) -> None:
    with start(relay) as terminal:
        terminal.await_text(ALTERNATE, "q quits")
        assert not echoes(terminal)
        states.hold(states.new(), "later")
        until(lambda: any(re.match(r"hold +1 ", line) for line in shown(terminal)), "the message to be shown")
        terminal.press("q")
        assert terminal.await_end() == 0
        assert terminal.screen().endswith(f"{CURSOR}{BACK}")
        assert echoes(terminal)


@pytest.mark.parametrize(
    "end",
    [
        lambda terminal: terminal.press(INTERRUPT),
        lambda terminal: terminal._process.send_signal(signal.SIGTERM),
    ],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_signal_leaves_the_terminal_as_it_was(
    relay: Relay, states: Queue, end: Callable[[Terminal], None]
) -> None:
    with start(relay) as terminal:
        terminal.await_text("q quits")
        assert not echoes(terminal)
        end(terminal)
        assert terminal.await_end() == 0
        assert terminal.screen().endswith(f"{CURSOR}{BACK}")
        assert echoes(terminal)


def test_it_fits_80_by_24_and_whatever_it_becomes(relay: Relay, states: Queue) -> None:
    providers = [{"host": f"{'long-' * 20}{number}.example.net"} for number in range(30)]
    relay.configure({"forwardSMTP": True, "forwardProviders": providers})
    states.new("日本語@example.net")
    with start(relay) as terminal:
        for columns, rows in ((80, 24), (40, 12), (200, 60), (1, 1)):
            resize(terminal, columns, rows)
            until(lambda: len(shown(terminal)) == rows, f"{rows} rows")  # noqa: B023 - called at once
            assert max(map(len, shown(terminal))) <= columns
        terminal.press("q")
        assert terminal.await_end() == 0


def test_a_reader_that_leaves_ends_it_quietly(relay: Relay, states: Queue) -> None:
    command = f"{sys.executable} -m mailer top --once --config {relay.config} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""


def test_wide_characters_are_cut_where_the_terminal_ends() -> None:
    assert fit("abc", 2) == "ab"
    assert fit("日本語", 5) == "日本"
    assert fit("e\u0301e\u0301", 1) == "e\u0301"
