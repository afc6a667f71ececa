"""What a run cannot move it leaves and tells of, once; and only runners that died are counted as dead."""

import errno
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from outbound.hostile import HANG, Server, Session, per_address
from outbound.sending import MESSAGE, TO, forward_to, found, queue
from spools.disk_faults import failing
from spools.walk import Found, walk
from testbed.process import ServerProcess
from testbed.relay import Relay
from testbed.waiting import until

from mailer.send.skipped import Skipped

BAD, GOOD = "bad@example.net", "good@example.net"
REFUSING = {"rcpt": per_address({BAD: "550 5.1.1 no such user"})}


def _message(relay: Relay, message_id: str) -> Found:
    message = found(relay.spool, message_id)
    assert message is not None
    return message


def _restored_backup(relay: Relay, message: str) -> Callable[[], None]:
    copy = relay.spool / "failed" / message
    copy.write_bytes((relay.spool / "new" / message).read_bytes())
    return copy.unlink


def _something_in_the_place_of_the_day(relay: Relay, _: str) -> Callable[[], None]:
    days = [
        relay.spool / "sent" / f"{datetime.fromtimestamp(time.time() + ahead, UTC):%Y%m%d}"
        for ahead in (0, 3600)
    ]
    for day in days:
        day.touch()

    def mend() -> None:
        for day in days:
            day.unlink(missing_ok=True)

    return mend


@pytest.mark.fault_row(29)
@pytest.mark.parametrize(
    ("hinder", "to", "told", "place"),
    [
        pytest.param(_restored_backup, BAD, "File exists: cur/{id} -> failed/{id}", "failed", id="EEXIST"),
        pytest.param(
            _something_in_the_place_of_the_day, TO, "Not a directory: cur/{id} -> sent/", "sent", id="ENOTDIR"
        ),
    ],
)
def test_a_message_that_cannot_be_moved_on_is_logged_once_a_run_and_delays_no_other(
    hinder: Callable[[Relay, str], Callable[[], None]], to: str, told: str, place: str, relay: Relay
) -> None:
    """Neither its journal nor the ledger grows, and nobody is said to have died."""
    with Server(REFUSING) as server:
        relay.configure(forward_to(server, security={"logAllEmails": True}))
        message = queue(relay.spool, [to])
        mend = hinder(relay, message)
        sizes = []
        for number in range(3):
            done = relay.mailer_send("--once", "--max-seconds", "50")
            assert done.returncode == 0
            assert done.stderr.count(told.format(id=message)) == 1
            stuck = walk(relay.spool, ("cur",))[message]
            assert stuck.kinds.count("returned") == 1
            sizes.append((relay.spool / "cur" / message).stat().st_size)
            assert len(_ledger(relay, message, "sent" if to == TO else "bounced")) == 1
            assert not _ledger(relay, message, "recovered")
            other = queue(relay.spool, [f"good{number}@example.net"], b"Subject: other\r\n\r\nhello\r\n")
        assert sizes[0] == sizes[1] == sizes[2]
        mend()
        assert relay.mailer_send("--once").returncode == 0
        assert _message(relay, message).place == place
        recipients = [recipient for recipient, _ in server.delivered()]
        assert len(recipients) == len(set(recipients)) == (4 if to == TO else 3)
    assert other not in walk(relay.spool)


def _ledger(relay: Relay, message: str, event: str) -> list[dict[str, object]]:
    lines = [line for day in (relay.spool / "log").glob("*.jsonl") for line in day.read_text().splitlines()]
    return [entry for entry in map(json.loads, lines) if (entry["id"], entry["event"]) == (message, event)]


def test_a_directory_that_somebody_removed_is_made_anew(relay: Relay) -> None:
    """While the run is at work: at its start it would make what is missing."""

    def refuse(_session: Session, _line: bytes) -> str:
        (relay.spool / "failed").rmdir()
        return "550 5.1.1 no such user"

    with Server({"rcpt": refuse}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool, [BAD])
        assert relay.mailer_send("--once").returncode == 0
    assert (_message(relay, message).place, _message(relay, message).kinds) == (
        "failed",
        ["accepted", "bounced"],
    )


def test_after_an_fsync_that_failed_the_run_tries_no_second_one_on_that_file(
    relay: Relay, tmp_path: Path
) -> None:
    """It would succeed and lie. The next run finds the bounce on record, and moves the message."""
    with Server(REFUSING) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool, [BAD])
        log = tmp_path / "log"
        done = relay.mailer_send("--once", under=failing(log, "fdatasync", "EIO", when="1"))
        assert done.returncode == 0
        assert log.read_text().count("fdatasync(") == 1
        assert "Input/output error" in done.stderr
        assert _message(relay, message).kinds == ["accepted", "bounced", "returned"]
        assert relay.mailer_send("--once").returncode == 0
    assert _message(relay, message).place == "failed"
    assert "recovered" not in _message(relay, message).kinds


def test_a_message_that_was_given_up_is_taken_up_again_after_ever_longer_pauses() -> None:
    now = [1000.0]
    skipped = Skipped(lambda: now[0])
    skipped.for_good = False
    pauses = []
    for _ in range(9):
        pauses.append(skipped.add("a", OSError(errno.EEXIST, "File exists")))
        assert "a" in skipped
        now[0] += pauses[-1] - 1
        assert "a" in skipped
        now[0] += 1
        assert "a" not in skipped
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    # The kernel has dropped the data: what another fsync says of it is not news.
    assert skipped.add("b", OSError(errno.EIO, "Input/output error")) == 3600
    skipped.for_good = True
    now[0] += 1e6
    assert "a" in skipped
    assert "c" not in skipped


def test_a_run_that_gives_nearly_everything_up_stops() -> None:
    """What it remembers is bounded, and what it forgot it would take over again."""
    now = [0.0]
    skipped = Skipped(lambda: now[0])
    error = OSError(errno.ENOENT, "No such file or directory")
    count = 0
    while not skipped.full:
        skipped.add(f"once {count}", error)
        count += 1
    assert count == 20_000
    now[0] += 100
    skipped.for_good = False
    skipped.add("watching", error)
    assert not skipped.full


def _suspect(relay: Relay, server: Server, count: int = 1) -> None:
    """Let two runners die with so many messages in hand, all of them at RCPT, where the server hangs."""
    for _ in range(2):
        _tried(relay, server, count).kill()


def _tried(relay: Relay, server: Server, count: int = 1) -> ServerProcess:
    """Start a runner, and return it when it has come to RCPT so many times."""
    before = _at_rcpt(server)
    runner = relay.watch()
    try:
        until(lambda: _at_rcpt(server) >= before + count, "the runner to have the mail in hand")
    except BaseException:
        runner.kill()
        raise
    return runner


def _at_rcpt(server: Server) -> int:
    return sum(line.startswith(b"RCPT") for session in server.sessions for line in session.commands)


@pytest.mark.fault_row(32)
def test_orderly_stops_are_no_deaths(relay: Relay) -> None:
    """Two kills and many SIGTERMs; then the message is sent, not held."""
    with Server({"rcpt": HANG}) as server:
        relay.configure(forward_to(server, sending={"shutdownGrace": 0}))
        message = queue(relay.spool)
        _suspect(relay, server)
        for _ in range(5):
            assert _tried(relay, server).stop() == 0
            assert _message(relay, message).place == "new"
        assert _message(relay, message).kinds.count("alone") == 5
        server.script.clear()
        assert relay.mailer_send("--once").returncode == 0
        assert server.delivered() == [(TO, MESSAGE)]


@pytest.mark.fault_row(32)
@pytest.mark.parametrize("when", ["1+", "2+", "3+"])
def test_full_disks_are_no_deaths(when: str, relay: Relay, tmp_path: Path) -> None:
    """No room to take it over, to try it alone, or for its outcome; then it is sent."""
    with Server({"rcpt": HANG}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool)
        _suspect(relay, server)
        server.script.clear()
        for _ in range(5):
            under = failing(tmp_path / "log", "fallocate", "ENOSPC", when=when)
            if relay.mailer_send("--once", under=under).returncode == 0:
                break
        else:
            assert server.messages == []
            assert _message(relay, message).kinds.count("recovered") <= 2
            assert relay.mailer_send("--once").returncode == 0
        assert server.delivered() == [(TO, MESSAGE)]


def test_a_suspect_that_merely_waits_does_not_stop_all_other_mail(relay: Relay) -> None:
    """A tarpit was in hand when runners died of something else: five seconds, and it has company."""
    tarpits = ["tarpit1@example.net", "tarpit2@example.net"]
    with Server({"rcpt": per_address(dict.fromkeys([*tarpits, "once@example.net"], HANG))}) as server:
        relay.configure(forward_to(server, sending={"shutdownGrace": 0}))
        ids = [queue(relay.spool, [to]) for to in (*tarpits, "once@example.net")]
        _suspect(relay, server, len(ids))
        server.script["rcpt"] = per_address(dict.fromkeys(tarpits, HANG))
        with relay.watch() as runner:
            until(lambda: found(relay.spool, ids[2]) is None, "the other suspect to be sent")
            other = queue(relay.spool, [GOOD])
            until(lambda: found(relay.spool, other) is None, "new mail to be sent beside the tarpits")
            runner.kill()
        kinds = [_message(relay, name).kinds[-3:] for name in ids[:2]]
        assert ["recovered", "alone", "accompanied"] in kinds
        first = next(n for n in ids[:2] if _message(relay, n).kinds[-1] == "accompanied")
        second = next(n for n in ids[:2] if n != first)
        with relay.watch() as runner:
            until(lambda: _message(relay, second).kinds[-1] == "alone", "the other one to be alone first")
            assert _message(relay, first).kinds[-1] == "accompanied"
            runner.kill()
        assert {_message(relay, name).place for name in ids[:2]} == {"cur"}
