"""A disk that is full, read-only or broken: what cannot be recorded is not sent, and nothing is lost."""

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from outbound.hostile import Server, Session
from outbound.internet import Internet
from outbound.sending import MESSAGE, TO, forward_to, found, outcomes, queue
from spools.disk_faults import failing, full, remounted
from spools.moves import MOVE
from spools.walk import walk
from testbed.capability import forbidden, tracer
from testbed.filesystem import FileSystem
from testbed.relay import Relay
from testbed.waiting import until

from mailer.spool.directory import Spool
from mailer.spool.journal import Event, Kind, encode
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import LockedMessage

NO_SPACE = "No space left on device"


@pytest.mark.fault_row(4)
@pytest.mark.parametrize("call", ["fallocate", "write"])
def test_what_cannot_be_recorded_is_not_sent(call: str, relay: Relay, tmp_path: Path) -> None:
    """No room for the outcome lines, or for `committing` itself: the dot is never sent."""
    with Server() as server:
        relay.configure(forward_to(server))
        ids = [queue(relay.spool) for _ in range(3)]
        done = relay.mailer_send("--once", under=failing(tmp_path / "log", call, "ENOSPC"))
        assert done.returncode == 75
        assert server.messages == []
        left = walk(relay.spool)
        assert left.keys() == set(ids)
        assert {message.place for message in left.values()} <= {"new", "cur"}
        assert relay.mailer_send("--once").returncode == 0
        assert server.delivered() == [(TO, MESSAGE)] * 3
    assert walk(relay.spool) == {}


def test_a_disk_that_stays_full_for_many_runs_makes_no_message_poison(relay: Relay, tmp_path: Path) -> None:
    with Server() as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool)
        for _ in range(7):
            done = relay.mailer_send("--once", under=failing(tmp_path / "log", "fallocate", "ENOSPC"))
            assert done.returncode == 75
            left = found(relay.spool, message)
            assert left is not None
            assert (left.place, outcomes(left)) == ("new", [])
        assert NO_SPACE in done.stderr
        relay.mailer_send()
        assert server.delivered() == [(TO, MESSAGE)]


@pytest.mark.parametrize(("policy", "copies", "place"), [("retry", 2, None), ("hold", 1, "hold")])
def test_a_disk_that_is_full_for_the_outcome_makes_the_message_uncertain_not_lost(
    policy: str, copies: int, place: str | None, relay: Relay, tmp_path: Path
) -> None:
    """The server said 250, and from there on nothing can be written, although the room was reserved.

    On a disk that keeps its word the reservation rules this out. Where it does not, the file says no more
    than `committing`: the next run cannot know of the 250. It sends once more, or holds, as it is told to.
    """
    with Server() as server:
        relay.configure(forward_to(server, uncertain=policy))
        message = queue(relay.spool)
        # The message's own writes: the first is `committing`.
        paths = [word for place in ("new", "cur") for word in ("-P", f"{relay.spool}/{place}/{message}")]
        under = (*failing(tmp_path / "log", "write", "ENOSPC", when="2+"), *paths)
        done = relay.mailer_send("--once", under=under)
        assert done.returncode == 75
        assert NO_SPACE in done.stderr
        assert server.delivered() == [(TO, MESSAGE)]
        left = found(relay.spool, message)
        assert left is not None
        assert (left.place, outcomes(left)) == ("cur", [("committing", (TO,))])
        assert relay.mailer_send("--once").returncode == 0
        assert server.delivered() == [(TO, MESSAGE)] * copies
    left = found(relay.spool, message)
    assert (left.place if left else None) == place


@pytest.mark.parametrize("error", ["ENOSPC", "EROFS", "EDQUOT"])
def test_a_message_whose_bucket_cannot_be_made_stays_with_its_journal(
    error: str, relay: Relay, free_port: int, tmp_path: Path
) -> None:
    relay.configure(forward_to(free_port))
    message = queue(relay.spool)
    under = failing(tmp_path / "log", "mkdirat", error)
    for _ in range(7):
        assert relay.mailer_send("--once", under=under).returncode == 75
        left = found(relay.spool, message)
        assert left is not None
        assert (left.place, left.statuses) == ("cur", {TO: "deferred"})
    assert relay.mailer_send("--once").returncode == 0
    left = found(relay.spool, message)
    assert left is not None
    assert left.place == "retry"
    assert left.kinds.count("deferred") == 1


@pytest.mark.fault_row(8)
def test_a_read_only_spool_ends_the_run_with_75_and_nothing_is_sent(relay: Relay) -> None:
    with Server() as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool)
        done = relay.mailer_send("--once", under=remounted(relay, "ro"))
        assert done.returncode == 75
        assert "Read-only file system" in done.stderr
        assert server.sessions == []
        left = found(relay.spool, message)
        assert left is not None
        assert (left.place, left.kinds) == ("new", ["accepted"])
        assert relay.mailer_send("--once").returncode == 0
        assert server.delivered() == [(TO, MESSAGE)]


def test_a_spool_that_turns_read_only_in_mid_transaction_sends_nothing_it_cannot_record(
    relay: Relay, tmp_path: Path
) -> None:
    with Server() as server:
        relay.configure(forward_to(server))
        queue(relay.spool)
        done = relay.mailer_send("--once", under=failing(tmp_path / "log", "fallocate,write", "EROFS"))
        assert done.returncode == 75
        assert server.messages == []
        assert relay.mailer_send("--once").returncode == 0
        assert server.delivered() == [(TO, MESSAGE)]


def test_a_full_spool_ends_the_run_with_75_and_sends_nothing(relay: Relay) -> None:
    """A real filesystem; what the runner does there is copied out, and finished."""
    with Server() as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool, message=MESSAGE + b"x" * 3000 + b"\r\n")
        done = relay.mailer_send("--once", under=full(relay))
        assert done.returncode == 75, done.stderr
        assert NO_SPACE in done.stderr
        assert server.messages == []
        relay.configure({"spoolDir": "spool.after"})
        assert relay.mailer_send("--once").returncode == 0
        assert [to for to, _ in server.delivered()] == [TO]
    assert found(relay.directory / "spool.after", message) is None


def test_a_message_that_cannot_be_claimed_stops_no_other(relay: Relay, tmp_path: Path) -> None:
    """EIO at its rename: it is skipped, that is logged, and the run goes on."""
    with Server() as server:
        relay.configure(forward_to(server))
        for _ in range(3):
            queue(relay.spool)
        done = relay.mailer_send("--once", under=failing(tmp_path / "log", MOVE, "EIO", when="1"))
        assert done.returncode == 0
        assert "Input/output error" in done.stderr
        assert len(server.delivered()) >= 2
        relay.mailer_send()
        assert len(server.delivered()) == 3
    assert walk(relay.spool) == {}


def test_a_claim_that_cannot_be_taken_over_stops_no_other(relay: Relay, tmp_path: Path) -> None:
    """EIO when a dead runner's claim is to be marked as recovered."""
    with Server() as server:
        relay.configure(forward_to(server))
        dead = queue(relay.spool)
        (relay.spool / "new" / dead).rename(relay.spool / "cur" / dead)
        queue(relay.spool)
        path = str(relay.spool / "cur" / dead)
        under = (*failing(tmp_path / "log", "write", "EIO", when="1"), "-P", path)
        done = relay.mailer_send("--once", under=under)
        assert done.returncode == 0
        assert f"id={dead}" in done.stderr
        assert len(server.delivered()) >= 1
        relay.mailer_send()
        assert len(server.delivered()) == 2
    assert walk(relay.spool) == {}


DESTINATIONS = tuple(f"bob@d{number:02}.test" for number in range(20))
EXCHANGER = "127.0.1.1"
SMALL_DISK = FileSystem("ext4", 8 << 20, ("mkfs.ext4", "-q", "-b", "1024", "-m", "0"))


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of its own, of 8 MB."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        forbidden("mount file systems", "that takes root, and /dev/loop-control")
    SMALL_DISK.create(directory / "image")
    with SMALL_DISK.mounted(directory / "image", directory / "small") as small:
        yield small


def fill(directory: Path, left: int) -> Path:
    """Take all the room of a file system but so many octets; return the file that has it."""
    spare, filler = directory / "spare", directory / "filler"
    spare.write_bytes(b"x" * left)
    with filler.open("wb", buffering=0) as file:
        for size in (64 * 1024, 1024):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    os.fsync(file.fileno())
    spare.unlink()
    os.sync()
    return filler


@pytest.mark.fault_row(30)
@pytest.mark.parametrize("left", [16 * 1024, 40 * 1024])
def test_a_disk_that_fills_up_with_many_destinations_in_flight_mails_nobody_twice(
    left: int, relay: Relay, tmp_path: Path
) -> None:
    """The room of one outcome belongs to no other, and each that has its room is written."""
    zone = {(to.partition("@")[2], "MX"): ["10 mx.test."] for to in DESTINATIONS}
    reply = "250 2.0.0 " + "x" * 1490
    with (
        small_disk(tmp_path) as small,
        Internet.of({**zone, ("mx.test", "A"): [EXCHANGER]}) as internet,
    ):
        server = internet.server(EXCHANGER)

        def everybody() -> bool:
            came = [session for session in server.sessions if session.messages or session.finished]
            return len(came) >= len(DESTINATIONS)

        def together(_session: Session, _line: bytes) -> str:
            """Answer no dot before every session has sent its own, or has ended without."""
            until(everybody, "every session's dot, or its end")
            return reply

        server.script["dot"] = together
        relay.spool = small / "spool"
        relay.configure({**internet.settings(), "spoolDir": str(relay.spool)})
        relay.configure({"sending": {"maxSessionsPerHop": len(DESTINATIONS)}})
        message = queue(relay.spool, DESTINATIONS)
        filler = fill(small, left)
        done = relay.mailer_send("--once")
        assert done.returncode == 75
        assert NO_SPACE in done.stderr
        first = [to for to, _ in server.delivered()]
        assert 0 < len(first) < len(DESTINATIONS)
        file = found(relay.spool, message)
        assert file is not None
        assert {to for to, status in file.statuses.items() if status == "sent"} == set(first)
        server.script["dot"] = reply
        filler.unlink()
        assert relay.mailer_send("--once").returncode == 0
        assert sorted(to for to, _ in server.delivered()) == sorted(DESTINATIONS)
        assert found(relay.spool, message) is None


def test_what_was_promised_to_an_outcome_is_taken_by_no_other_line(tmp_path: Path) -> None:
    line = Event(at="2026-11-22T21:45:01Z", event=Kind.SENT, reply="x" * 3000)
    length = len(encode(line))
    with small_disk(tmp_path) as small:
        message = queue(small / "spool")
        filler = fill(small, 16 * 1024)
        with (
            Spool.open(small / "spool") as spool,
            LockedMessage.lock(spool, Spot(Place.NEW, message)) as locked,
        ):
            file = small / "spool" / "new" / message
            locked.reserve(length)
            locked.reserve(length)
            rest = small / "rest"
            with rest.open("wb", buffering=0) as taken, contextlib.suppress(OSError):
                while taken.write(b"x" * 1024):
                    os.fsync(taken.fileno())
            before = file.read_bytes()
            with pytest.raises(OSError, match=NO_SPACE):
                locked.reserve(length)
            with pytest.raises(OSError, match=NO_SPACE):
                locked.append(line)
            assert file.read_bytes() == before
            locked.append(line, of_promise=length)
            locked.append(line, of_promise=length)
            locked.sync()
            assert file.read_bytes() == before + 2 * encode(line)
            with pytest.raises(OSError, match=NO_SPACE):
                locked.reserve(length)
            filler.unlink()
            locked.append(line)


@pytest.mark.parametrize("words", ["\U0001f4ec", '"', "\\", "\x1b", "\u202e"])
def test_the_room_that_is_reserved_is_enough_for_any_reply(words: str, relay: Relay, tmp_path: Path) -> None:
    reply = f"451 4.2.0 {words * 2000}".encode()[:4000].decode(errors="ignore")
    with Server({"dot": reply}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool)
        under = (tracer(), "-f", "-o", str(tmp_path / "log"), "-e", "trace=fallocate")
        assert relay.mailer_send("--once", under=under).returncode == 0
    left = found(relay.spool, message)
    assert left is not None
    assert left.statuses == {TO: "deferred"}
    [numbers] = re.findall(r"KEEP_SIZE, (\d+), (\d+)\) = 0", (tmp_path / "log").read_text())
    [file] = relay.spool.glob(f"retry/*/{message}")
    assert file.stat().st_size <= sum(map(int, numbers))
