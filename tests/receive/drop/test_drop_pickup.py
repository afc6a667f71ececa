"""Mail in `drop/` is taken in once, as its user's, whatever dies meanwhile."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from inbound.dropping import MAIL, TEXT, Receiver, as_root, leave, names, queued, run
from inbound.receiving import USER
from spools.crash import dying_at
from spools.runner import run_once
from spools.walk import walk

from mailer.sendmail import drop as sendmail_drop
from mailer.sendmail.drop import hand_over
from mailer.sendmail.failure import Failure
from mailer.spool import drop, drop_file
from mailer.spool.directory import Spool
from mailer.spool.key_retention import forget_old
from mailer.spool.layout import DROP, ONCE


def test_a_drop_is_submitted_as_its_user_and_removed(spool: Spool) -> None:
    receiver, name = Receiver(spool), leave(spool)
    receiver.take_in()
    (stored,) = walk(spool.path).values()
    assert stored.intact
    assert stored.message.endswith(TEXT)
    assert f"(local socket, uid {os.getuid()})".encode() in stored.message
    assert (stored.sender, stored.recipients) == (USER, ("sent@example.net",))
    assert (names(spool), list((spool.path / ONCE).glob("drop-*"))) == ([], [])
    (report,) = [line for line in receiver.log if "submitted a drop" in line]
    assert f"drop={name} uid={os.getuid()}" in report
    assert stored.name in report


def test_an_envelope_that_the_receiver_could_not_read_is_not_written(spool: Spool) -> None:
    many = [f"RCPT TO:<{number:0200}@example.net>" for number in range(5000)]
    with pytest.raises(Failure, match="5000 recipients are too many") as failed:
        hand_over(str(spool.path / DROP), [MAIL, *many], TEXT)
    assert (failed.value.code, names(spool)) == (os.EX_DATAERR, [])
    assert drop_file._MOST_HEAD == sendmail_drop._MOST_HEAD


def dying(spool: Spool, act: Callable[[], object]) -> Iterator[list[str]]:
    """Do it again and again, dying at the first, the second ... system call that changes the disk."""
    die_at, dead = 0, True
    while dead:
        with dying_at(die_at) as boundary, suppress(Failure):
            act()
        dead = boundary.dead
        yield boundary.calls
        die_at += 1


def test_a_sendmail_that_dies_at_any_step_leaves_a_whole_drop_or_none(spool: Spool) -> None:
    receiver, seen = Receiver(spool), set()
    for calls in dying(spool, lambda: leave(spool)):
        whole = [name for name in names(spool) if not name.startswith(".")]
        assert len(whole) <= 1
        receiver.take_in()
        assert len(queued(spool)) == len(whole), calls
        assert all(message.endswith(TEXT) for message in queued(spool))
        run_once(spool, time.time())
        seen.add(len(whole))
    assert seen == {0, 1}
    # The directory and the file, its content, its name.
    assert calls == ["open", "open", "write", "fsync", "rename"]
    assert all(name.startswith(".") for name in names(spool))


@pytest.mark.parametrize(
    ("delivered_before", "torn", "keyed"), [(False, True, False), (True, False, False), (True, False, True)]
)
def test_a_receiver_that_dies_at_any_step_of_the_pickup_queues_the_mail_once(
    spool_path: Path, *, delivered_before: bool, torn: bool, keyed: bool
) -> None:
    """Also when a runner has delivered it, and it has left the spool, before the next one takes it in.

    And also if it has an idempotency key, whose window is over by then.
    """
    text = b"Idempotency-Key: k1\r\n" * keyed + TEXT
    die_at, dead = 0, True
    while dead:
        path = spool_path / str(die_at)
        delivered: list[str] = []
        path.parent.mkdir(exist_ok=True)
        with Spool.open(path, create=True) as spool:
            drop.prepare(spool, wanted=True)
            leave(spool, text)
            with dying_at(die_at, torn=torn) as boundary:
                Receiver(spool).take_in()
            dead = boundary.dead
        with Spool.open(path) as spool:
            if delivered_before:
                delivered += run(spool)
            forget_old(spool, time.time() + 90_000, 86_400)
            Receiver(spool).take_in()
            delivered += run(spool)
            assert len(delivered) == 1, boundary.calls
            assert names(spool) == []
        die_at += 1
    assert "renameat2" in boundary.calls
    # The drop, durably, and then its key.
    assert [call for call in boundary.calls if call != "open"][-3:] == ["unlink", "fsync", "unlink"]


def test_mail_that_was_submitted_under_its_key_is_not_queued_again_from_a_drop(spool: Spool) -> None:
    text = b"Idempotency-Key: k1\r\n" + TEXT
    receiver, _, _ = Receiver(spool), leave(spool, text), leave(spool, text)
    receiver.take_in()
    assert (len(queued(spool)), names(spool)) == (1, [])
    assert any("event=repeated" in line and "Idempotency-Key" in line for line in receiver.log)


@as_root
@pytest.mark.security_case(135)
def test_an_unmapped_user_is_named_by_number(spool: Spool) -> None:
    receiver, name = Receiver(spool), leave(spool, uid=4713)
    receiver.take_in()
    assert (queued(spool), names(spool)) == ([], [f"{name}.refused"])
    assert any(
        "User id 4713 may not submit here: localUsers maps it to no user" in line for line in receiver.log
    )


@pytest.mark.security_case(133)
def test_a_drop_that_is_cut_while_it_is_read_is_set_aside(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TEXT + b"x" * 70 + b"\r\n" * 50_000
    receiver, name = Receiver(spool), leave(spool, text)
    real = drop_file.Drop.read

    def read(self: drop_file.Drop) -> Iterator[bytes]:
        for piece in real(self):
            os.truncate(spool.path / DROP / name, 10)
            yield piece

    monkeypatch.setattr(drop_file.Drop, "read", read)
    receiver.take_in()
    assert (queued(spool), names(spool)) == ([], [f"{name}.refused"])
    assert list((spool.path / "tmp").iterdir()) == []


def test_only_one_program_takes_a_drop_in(spool: Spool) -> None:
    name = leave(spool)
    taken = drop_file.Drop.lock(spool, name)
    assert taken is not None
    Receiver(spool).take_in()
    assert (queued(spool), names(spool)) == ([], [name])
    taken.release()
    Receiver(spool).take_in()
    assert len(queued(spool)) == 1
