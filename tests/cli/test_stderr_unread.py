"""Standard error that nobody reads: mail goes on, and what could not be written is counted and told later."""

import errno
import fcntl
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from outbound.sending import MESSAGE, SENDER, TO, queue
from testbed.ci import only_root
from testbed.http_client import ask
from testbed.ports import LOOPBACK
from testbed.relay import Relay
from testbed.up_programs import programs_of
from testbed.waiting import until

from mailer.maillog.outlet import Outlet

pytestmark = pytest.mark.fault_row(35)

MISSING = re.compile(r"(\d+) lines? (?:was|were) not written here: standard error was not read for a while")
COUNT = 300
SMALL = 4096
STOP, GO_ON = b"\x13", b"\x11"
"""Ctrl-S and Ctrl-Q."""


class Unread:
    """A standard error for programs, which is read only when the test says so."""

    def __init__(self, ours: int, theirs: int) -> None:
        os.set_blocking(ours, False)
        self.fd = theirs
        self._ours = ours
        self._read = b""
        self.filler = 0

    def fill(self) -> None:
        """Write until nothing more fits."""
        self.filler = self._fill()

    def _fill(self) -> int:
        own = os.open(f"/proc/self/fd/{self.fd}", os.O_WRONLY | os.O_NONBLOCK)
        try:
            return fill(lambda: os.write(own, b"\n"))
        finally:
            os.close(own)

    def text(self) -> str:
        """What came so far, read now."""
        try:
            while data := os.read(self._ours, 65536):
                self._read += data
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.EIO:  # A terminal that no program has open any more.
                raise
        return self._read[self.filler :].decode()

    def resume(self) -> None:
        """Somebody reads again."""

    def records(self) -> list[dict[str, Any]]:
        """The lines as objects: that each is whole, and nothing stands between them."""
        whole, _, rest = self.text().rpartition("\n")
        assert not rest
        return [json.loads(line) for line in whole.splitlines()]

    def close(self) -> None:
        os.close(self._ours)
        os.close(self.fd)


def fill(write: Callable[[], int]) -> int:
    count = 0
    try:
        while True:
            count += write()
    except BlockingIOError:
        return count


class Pipe(Unread):
    def __init__(self) -> None:
        super().__init__(*os.pipe())
        fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, SMALL)


class Stream(Unread):
    """As systemd gives it to a service."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        super().__init__(ours.detach(), theirs.detach())

    def _fill(self) -> int:
        with socket.socket(fileno=os.dup(self.fd)) as own:
            return fill(lambda: own.send(b"\n", socket.MSG_DONTWAIT))


class StoppedTerminal(Unread):
    def __init__(self) -> None:
        super().__init__(*pty.openpty())
        os.write(self._ours, STOP)

    def _fill(self) -> int:
        return 0

    def resume(self) -> None:
        os.write(self._ours, GO_ON)


@pytest.fixture(params=[Pipe, Stream, StoppedTerminal])
def unread(request: pytest.FixtureRequest, relay: Relay) -> Iterator[Unread]:
    with of_kind(request.param, relay) as made:
        yield made


@contextmanager
def of_kind(kind: type[Unread], relay: Relay) -> Iterator[Unread]:
    made = kind()
    relay.stderr = made.fd
    relay.configure({"logFormat": "json"})
    try:
        yield made
    finally:
        made.close()


def counted(unread: Unread) -> int:
    """How many lines were said to be missing, once somebody reads."""
    unread.resume()
    until(lambda: MISSING.search(unread.text()), "the number of missing lines")
    return sum(int(found[1]) for found in MISSING.finditer(unread.text()))


def accounted_for(unread: Unread, event: str) -> int:
    """Lines that came or were said to be missing, by one or more numbers: programs go on logging."""
    text = unread.text()
    return text.count(f'"event":"{event}"') + sum(int(found[1]) for found in MISSING.finditer(text))


def submit(relay: Relay, count: int) -> None:
    with relay.connect() as client:
        for _ in range(count):
            assert client.sendmail(SENDER, TO, MESSAGE) == {}


def test_the_receiver_answers_every_message_and_counts_the_lines(relay: Relay, unread: Unread) -> None:
    with relay.serve() as server:
        submit(relay, COUNT)
        assert len(list((relay.spool / "new").iterdir())) == COUNT
        assert counted(unread)
        submit(relay, 1)
        last = max(path.name for path in (relay.spool / "new").iterdir())
        until(lambda: last in unread.text(), "a line that is written again")
        until(lambda: accounted_for(unread, "accepted") >= COUNT + 1, "every line or its number")
        assert server.stop() == 0
    assert unread.records()


def test_what_was_cut_is_completed_and_counted_without_a_further_line(relay: Relay) -> None:
    """A server with nothing more to say: the count comes by itself."""
    with of_kind(Stream, relay) as unread, relay.serve():
        submit(relay, COUNT)
        counted(unread)
        assert "not written here" in unread.records()[-1]["text"]


def test_the_runner_delivers_everything_and_counts_the_lines(relay: Relay, unread: Unread) -> None:
    for _ in range(COUNT):
        queue(relay.spool)
    with relay.watch() as runner:
        until(lambda: len(relay.delivered()) == COUNT, "the mail to be delivered")
        assert counted(unread)
        until(lambda: accounted_for(unread, "sent") >= COUNT, "every line or its number")
        assert runner.stop() == 0
    assert unread.records()


def test_the_monitor_answers_and_counts_the_lines(relay: Relay, unread: Unread) -> None:
    """The line that says it is ready; on a terminal, also the one with the address of the page."""
    queue(relay.spool)
    unread.fill()
    with relay.monitor() as monitor:
        assert ask(relay.http_port, "/livez").status == 200
        assert counted(unread) == (2 if os.isatty(unread.fd) else 1)
        assert monitor.stop() == 0


def test_up_ends_its_programs_when_one_was_killed_although_its_output_is_not_read(
    relay: Relay, unread: Unread
) -> None:
    unread.fill()
    with relay.up() as up:
        submit(relay, 3)
        until(lambda: len(relay.delivered()) == 3, "the mail to be delivered")
        os.kill(programs_of(up.pid)["serve"], signal.SIGKILL)
        assert up.wait() == 70


def test_a_program_that_cannot_start_ends_although_its_output_is_not_read(
    relay: Relay, unread: Unread
) -> None:
    unread.fill()
    with socket.create_server((LOOPBACK, relay.port)), relay.starting("serve") as server:
        assert server.wait() == 69


INSTALLED = "import sys, os\nfrom mailer.maillog import outlet\noutlet.install()\n"


def program(code: str, stderr: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", INSTALLED + code], stderr=stderr, stdout=subprocess.PIPE)


def test_warnings_tracebacks_and_other_libraries_do_not_wait_either(relay: Relay) -> None:
    code = """
import asyncio, logging, traceback, warnings, click
warnings.warn("one")
logging.getLogger("mail.log").error("two")
class Broken:
    def __del__(self): raise RuntimeError("three")
Broken()
try: 1 / 0
except ZeroDivisionError: traceback.print_exc()
click.echo("four", err=True)
click.UsageError("five").show()
async def main():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)
asyncio.run(main())
print("went on", flush=True)
sys.stdin.read()
outlet.flush()
"""
    with of_kind(Pipe, relay) as unread:
        unread.fill()
        with subprocess.Popen(
            [sys.executable, "-c", INSTALLED + code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=unread.fd,
        ) as done:  # fmt: skip
            assert done.stdout
            assert done.stdin
            assert done.stdout.readline() == b"went on\n"
            assert counted(unread) > 10
            done.stdin.close()
        assert done.returncode == 0


def test_lines_that_belong_together_are_one_write() -> None:
    read, write = os.pipe()
    out = Outlet(write)
    os.set_blocking(read, False)
    with out.together():
        out.write("one\n")
        out.write("two\n")
        with pytest.raises(BlockingIOError):
            os.read(read, 100)
    out.write("three\n")
    assert os.read(read, 100) == b"one\ntwo\nthree\n"
    os.close(read)
    os.close(write)


def test_a_long_line_is_written_to_its_end_before_another(relay: Relay) -> None:
    code = "for n in range(9): print(str(n) * 10_000, file=sys.stderr)\nprint('went on')\noutlet.flush()"
    with of_kind(Pipe, relay) as unread:
        with program(code, unread.fd) as done:
            until(lambda: "not written" in unread.text(), "the number of missing lines")
        assert done.returncode == 0
        first, *rest, last = unread.text().splitlines()
    assert first == "0" * 10_000
    assert all(len(line) == 10_000 for line in rest if not MISSING.match(line))
    assert MISSING.match(last)


@only_root("only root can become somebody else")
@pytest.mark.parametrize("kind", [Pipe, StoppedTerminal])
def test_another_users_standard_error_does_not_hold_a_program_up(relay: Relay, kind: type[Unread]) -> None:
    """It may be written, not opened: as that of `sudo -u mailer`, or of a container's unprivileged user."""
    code = """
for number in range(3000): print("line", number, "." * 60, file=sys.stderr)
print("went on", flush=True)
sys.stdin.read()
outlet.flush()
"""
    become = "import os, mailer.maillog.outlet\nos.setgroups([])\nos.setgid(4711)\nos.setuid(4711)\n"
    with of_kind(kind, relay) as unread:
        with subprocess.Popen(
            [sys.executable, "-c", become + INSTALLED + code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=unread.fd,
        ) as done:  # fmt: skip
            assert done.stdout
            assert done.stdin
            assert done.stdout.readline() == b"went on\n"
            counted(unread)
            done.stdin.close()
            until(lambda: unread.text() and done.poll() is not None, "its end")
        lines = [line for line in unread.text().splitlines() if line.startswith("line ")]
        # Where the thread was slow to begin, some were missing before it and some after it: two numbers.
        assert len(lines) + counted(unread) == 3000


def test_a_full_disk_is_reported_once_there_is_room_again(tmp_path: Path, relay: Relay) -> None:
    """RLIMIT_FSIZE stands for the full disk: the kernel takes the part of a line that still fits."""
    log = tmp_path / "log"
    code = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (150, resource.RLIM_INFINITY))
for number in range(9): print(str(number) * 99, file=sys.stderr)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("again", file=sys.stderr)
"""
    with log.open("wb") as file, program(code, file.fileno()) as done:
        pass
    assert done.returncode == 0
    first, second, note, last = log.read_text().splitlines()
    assert (first, second, last) == ("0" * 99, "1" * 99, "again")
    assert note == "7 lines were not written here: File too large; the ledger has all events"


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_not_reused_for_files(relay: Relay, closed: str) -> None:
    """Else the next file that is opened gets number 2, and all complaints."""
    with relay.serve(under=("sh", "-c", f'exec "$@" {closed}', "sh")) as server:
        submit(relay, 2)
        for fd in range(3):
            assert "/spool/" not in str(Path(f"/proc/{server.pid}/fd/{fd}").readlink())
        assert server.stop() == 0
    done = relay.mailer("spool", "ls", under=("sh", "-c", f'exec "$@" {closed}', "sh"))
    assert done.returncode == 0
