"""`mailer up` on a laptop: mail comes in and goes out, and it ends as a whole, whatever the moment."""

import os
import signal
import smtplib
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from outbound.destinations import fates, kept_locally, unchanged
from outbound.hostile import HANG, Server, reached
from outbound.real_mail import hard_mail, submit
from outbound.sending import MESSAGE, SENDER, TO, forward_to
from spools.walk import walk
from testbed.ports import accepts
from testbed.proc import gone
from testbed.relay import Relay
from testbed.terminal import INTERRUPT, Terminal
from testbed.up_programs import programs_of
from testbed.waiting import until

_LOOPS = {"with uvloop": "", "without uvloop": "import sys\nsys.modules['uvloop'] = None\n"}
"""What Python runs as it starts."""


@contextmanager
def no_survivors(pids: Iterable[int]) -> Iterator[None]:
    """All have ended when the block has; those that had to be killed for it fail the test."""
    try:
        yield
        until(lambda: all(map(gone, pids)), "its programs to end")
    finally:
        for pid in pids:
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)


def send(client: smtplib.SMTP) -> None:
    client.sendmail(SENDER, TO, MESSAGE)


@pytest.mark.parametrize("loop", _LOOPS)
def test_mail_comes_in_and_goes_out_with_uvloop_and_without(
    loop: str, relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_LOOPS[loop])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    mails = hard_mail()
    with relay.up() as up:
        with relay.connect() as client:
            for mail in mails:
                submit(client, mail)
        until(lambda: len(relay.delivered()) == len(mails), "the mail in the Maildir")
        maps = Path(f"/proc/{programs_of(up.pid)['serve']}/maps").read_text()
        assert ("uvloop" in maps) == (loop == "with uvloop")
    assert fates(kept_locally(relay)) == unchanged(mails)
    assert walk(relay.spool) == {}


def test_one_ctrl_c_at_a_terminal_finishes_what_is_in_flight_and_ends_everything(relay: Relay) -> None:
    """One message is at the provider's dot, another is being submitted."""
    at_the_dot, answer = threading.Event(), threading.Event()

    def hesitate(*_: object) -> str:
        at_the_dot.set()
        answer.wait(60)
        return "250 2.0.0 queued"

    argv = [sys.executable, "-m", "mailer", "up", "--config", str(relay.config)]
    with Server({"dot": hesitate}) as server:
        relay.configure(forward_to(server))
        with Terminal(argv, env={}, cwd=relay.directory) as terminal:
            terminal.await_text("listening on", "watching the spool")
            with no_survivors(programs_of(terminal.pid).values()):
                with closing(relay.connect()) as first, closing(relay.connect()) as second:
                    send(first)
                    assert at_the_dot.wait(60)
                    second.docmd("MAIL", f"FROM:<{SENDER}>")
                    second.docmd("RCPT", f"TO:<{TO}>")
                    assert second.docmd("DATA")[0] == 354
                    second.send(MESSAGE)
                    terminal.press(INTERRUPT)
                    until(lambda: not accepts(relay.port), "the relay to stop listening")
                    second.send(b".\r\n")
                    assert second.getreply()[0] == 250
                answer.set()
                assert terminal.await_end() == 0
            assert "Traceback" not in terminal.screen()
        assert [to for to, _ in server.delivered()] == [TO]
    assert [message.place for message in walk(relay.spool).values()] == ["new"]


def test_up_that_is_killed_leaves_no_orphan_and_loses_nothing(relay: Relay) -> None:
    in_transaction = threading.Event()
    with Server({"mail": reached(in_transaction, HANG)}) as server:
        relay.configure(forward_to(server, sending={"shutdownGrace": 0}))
        with relay.up() as up:
            with relay.connect() as client:
                for _ in range(3):
                    send(client)
            assert in_transaction.wait(60)
            programs = programs_of(up.pid)
            assert programs.keys() == {"serve", "send"}
            with no_survivors(programs.values()):
                up.kill()
        assert server.delivered() == []
        assert len(walk(relay.spool)) == 3
        server.script.clear()
        with relay.up():
            until(lambda: walk(relay.spool) == {}, "the mail to be sent")
        assert [to for to, _ in server.delivered()] == [TO] * 3
