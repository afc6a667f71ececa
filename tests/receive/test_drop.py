"""`drop/`: mail that is handed over while no receiver runs is taken in once, as its user's, or told of."""

import asyncio
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from inbound.receiving import PASSWORD, USER, login
from spools.crash import InPlace, dying_at
from spools.runner import run_once
from spools.walk import walk
from testbed.capability import with_own_mounts
from testbed.ci import only_root
from testbed.relay import USERNAME, Relay

from mailer.cli.sending import drops
from mailer.config.load import load
from mailer.maillog.events import MailLog
from mailer.maillog.stderr import logfmt
from mailer.receive.context import ReceiverContext
from mailer.receive.drop_limits import Pauses
from mailer.receive.pickup import Pickup
from mailer.receive.settings import Settings
from mailer.receive.upload import Store
from mailer.receive.users.accounts import single_login
from mailer.receive.users.local_users import LocalUser
from mailer.receive.users.rates import Rate, RateLimiter, RateRules
from mailer.sendmail import drop as sendmail_drop
from mailer.sendmail.drop import hand_over
from mailer.sendmail.failure import Failure
from mailer.spool import drop, drop_file, due
from mailer.spool.directory import Spool
from mailer.spool.drop import Kind
from mailer.spool.ids import new_id
from mailer.spool.key_retention import forget_old
from mailer.spool.layout import DROP, ONCE

as_root = only_root("only root can give a file to another user")
TEXT = b"From: app@example.com\r\nSubject: drop\r\n\r\n.hello\r\n"
MAIL, TO = f"MAIL FROM:<{USER}> SIZE={len(TEXT)}", "RCPT TO:<sent@example.net>"
ANN, EVE = 4711, 4712


@pytest.fixture
def spool(spool_path: Path) -> Iterator[Spool]:
    with Spool.open(spool_path, create=True) as opened:
        drop.prepare(opened, wanted=True)
        yield opened


def leave(spool: Spool, text: bytes = TEXT, *, uid: int | None = None, name: str = "") -> str:
    """Hand a message over; as root also as another user's."""
    made = hand_over(str(spool.path / DROP), [MAIL, TO], text)
    path = spool.path / DROP / made
    if uid is not None:
        os.chown(path, uid, -1)
    if name:
        path.rename(path.with_name(name))
    return name or made


class Receiver:
    """What takes in, with its committer in the caller's thread."""

    def __init__(
        self, spool: Spool, rates: RateLimiter | None = None, limits: Mapping[str, int] | None = None
    ) -> None:
        self.log: list[str] = []
        self.on_line: Callable[[str], object] = lambda _: None
        self._log = MailLog(time.time, lambda _, text, fields: self._note(logfmt(text, fields)))
        users = (LocalUser(USER, uid=os.getuid()), LocalUser(USER, uid=ANN), LocalUser("eve", uid=EVE))
        self._spool = spool
        self._context = ReceiverContext(
            Settings(port=0, **(limits or {})),  # type: ignore[arg-type]
            Store(spool, InPlace(spool), self._log, time.time),
            login(single_login(USER, PASSWORD), single_login("eve", PASSWORD)),
            rates=rates,
            local_users=users,
        )

    def _note(self, line: str) -> None:
        self.log.append(line)
        self.on_line(line)

    def take_in(self, clock: Callable[[], float] = time.time) -> int:
        return asyncio.run(Pickup(self._spool, self._log, clock, lambda: self._context).once())


def names(spool: Spool) -> list[str]:
    return sorted(each.name for each in (spool.path / DROP).iterdir())


def queued(spool: Spool) -> list[bytes]:
    return [each.message for each in walk(spool.path).values()]


def run(spool: Spool) -> list[str]:
    """Deliver all that is queued; return the ids."""
    delivered: list[str] = []
    run_once(spool, time.time(), lambda name, _: delivered.append(name))
    return delivered


def test_a_drop_is_submitted_as_its_user_and_removed(spool: Spool) -> None:
    receiver, name = Receiver(spool), leave(spool)
    receiver.take_in()
    (stored,) = walk(spool.path).values()
    assert stored.intact
    assert stored.message.endswith(TEXT)
    assert f"(local socket, uid {os.getuid()})".encode() in stored.message
    assert (stored.sender, stored.recipients) == (USER, ("sent@example.net",))
    assert (names(spool), list((spool.path / ONCE).glob("drop-*"))) == ([], [])
    (told,) = [line for line in receiver.log if "submitted a drop" in line]
    assert f"drop={name} uid={os.getuid()}" in told
    assert stored.name in told


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


def odd(spool: Spool, name: str, kind: str) -> None:
    path = spool.path / DROP / name
    match kind:
        case "link":
            path.symlink_to("/etc/passwd")
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "hard link":
            elsewhere = spool.path.parent / "theirs"
            elsewhere.write_bytes((spool.path / DROP / leave(spool)).read_bytes())
            os.link(elsewhere, path)
        case "moved":
            elsewhere = spool.path.parent / "theirs"
            (spool.path / DROP / leave(spool)).rename(elsewhere)
            os.chown(elsewhere, -1, 4713)
            elsewhere.rename(path)


@as_root
@pytest.mark.security_case(132)
@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "hard link", "moved"])
def test_files_that_were_not_made_in_the_drop_directory_are_not_read(spool: Spool, kind: str) -> None:
    """Not even a drop that is linked or moved here from elsewhere, with somebody else's name on it."""
    name = new_id(time.time())
    odd(spool, name, kind)
    for each in names(spool):
        if each != name:
            (spool.path / DROP / each).unlink()
    Receiver(spool).take_in()
    assert queued(spool) == []
    assert names(spool) in ([name], [f"{name}.refused"])


DAMAGED = [
    b"",
    b"mailer-drop 1\r\n",
    b"mailer-drop 2\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nBDAT 1 LAST\r\nx",
    b"mailer-drop 1\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nBDAT 2 LAST\r\nx",
    b"mailer-drop 1\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nBDAT 1 LAST\r\nxx",
    b"mailer-drop 1\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nBDAT -1 LAST\r\nx",
    b"mailer-drop 1\r\nMAIL FROM:<a>\r\nBDAT 1 LAST\r\nx",
    b"mailer-drop 1\r\nRCPT TO:<b>\r\nBDAT 1 LAST\r\nx",
    b"mailer-drop 1\r\nBDAT 1 LAST\r\nx",
    b"mailer-drop 1\r\nMAIL FROM:<a>\nRCPT TO:<b>\r\nBDAT 1 LAST\r\nx",
    b"mailer-drop 1\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nQUIT\r\nBDAT 1 LAST\r\nx",
    b"mailer-drop 1\r\nMAIL FROM:<a\0>\r\nRCPT TO:<b>\r\nBDAT 1 LAST\r\nx",
    b"mailer-drop 1\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nBDAT 1 LAST\r\n" + b"x" * 70_000,
]


@pytest.mark.security_case(133)
@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_drop_is_set_aside_and_nothing_of_it_is_queued(spool: Spool, content: bytes) -> None:
    receiver, name = Receiver(spool), leave(spool)
    (spool.path / DROP / name).write_bytes(content)
    receiver.take_in()
    assert queued(spool) == []
    assert names(spool) == [f"{name}.refused"]
    assert any(f"id={name} event=drop-refused" in line for line in receiver.log)


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        ([MAIL, "RCPT TO:<@>"], "501 5.1.3"),
        ([MAIL.replace(USER, "@"), TO], "501 5.1.7"),
        ([MAIL + " SIZE=1 X", TO], "50"),
        ([f"MAIL FROM:<{USER}> SIZE=999999999999", TO], "552 5.3.4"),
    ],
)
def test_a_permanently_refused_drop_is_set_aside_and_nothing_of_it_is_queued(
    spool: Spool, commands: list[str], words: str
) -> None:
    """All of it, although other recipients would be right: so `mailer-sendmail` has it."""
    receiver = Receiver(spool)
    name = hand_over(str(spool.path / DROP), [*commands, TO], TEXT)
    receiver.take_in()
    assert (queued(spool), names(spool)) == ([], [f"{name}.refused"])
    assert any("event=drop-refused" in line and words in line for line in receiver.log), receiver.log
    # It is tried again when the operator says so, and not before.
    receiver.log.clear()
    receiver.take_in()
    assert receiver.log == []


@as_root
@pytest.mark.security_case(134)
def test_users_take_turns_and_one_that_is_limited_keeps_no_other_back(spool: Spool) -> None:
    rules = RateRules(
        users={"eve": Rate(per_hour=2)}, of_user=lambda user: Rate(per_hour=2) if user == "eve" else None
    )
    receiver = Receiver(spool, RateLimiter(rules, time.time))
    flood = [leave(spool, TEXT.replace(b"app@", b"eve@"), uid=EVE) for _ in range(5)]
    last = leave(spool, uid=ANN)
    receiver.take_in()
    assert names(spool) == sorted(flood)[2:]
    taken = [line for line in receiver.log if "submitted a drop" in line]
    # Hers was the second, however many were there before it.
    assert [f"uid={uid}" in line for uid, line in zip((EVE, ANN, EVE), taken, strict=True)] == [True] * 3
    assert f"drop={last}" in taken[1]
    assert any("a drop was not submitted" in line and "451 4.7.1" in line for line in receiver.log)


@as_root
@pytest.mark.security_case(134)
def test_drops_that_have_to_wait_are_tried_ever_less_often(spool: Spool) -> None:
    """By one program that stays; each try has a line in the ledger."""
    now = [1e9]
    rules = RateRules(users={"eve": Rate(per_hour=2)}, of_user=lambda user: Rate(per_hour=2))
    receiver = Receiver(spool, RateLimiter(rules, lambda: now[0]))
    for _ in range(9):
        leave(spool, TEXT.replace(b"app@", b"eve@"), uid=EVE)
    pickup = Pickup(spool, receiver._log, lambda: now[0], lambda: receiver._context)
    for _ in range(359):
        asyncio.run(pickup.once())
        now[0] += 10
    assert len(queued(spool)) == 2
    assert 10 < sum("event=limited" in line for line in receiver.log) < 100
    leave(spool, uid=ANN)
    asyncio.run(pickup.once())
    assert len(queued(spool)) == 3
    for _ in range(32):
        now[0] += 10
        asyncio.run(pickup.once())
    assert len(queued(spool)) == 5


def test_a_drop_that_goes_ends_its_users_pauses_and_a_clock_that_is_set_back_too() -> None:
    now, tried = [1e9], list[float]()
    pauses = Pauses(lambda: now[0])
    for _ in range(7):
        pauses.waited(ANN)
        begun = now[0]
        while pauses.lasts(ANN):
            now[0] += 1
        tried.append(now[0] - begun)
    assert tried == [10, 20, 40, 80, 160, 300, 300]
    pauses.went(ANN)
    pauses.waited(ANN)
    now[0] += 9
    assert pauses.lasts(ANN)
    assert not pauses.lasts(EVE)
    now[0] -= 86_400
    assert not pauses.lasts(ANN)


@as_root
@pytest.mark.security_case(134)
def test_the_lines_and_files_that_one_user_makes_by_refusals_are_bounded(spool: Spool) -> None:
    receiver, nobody, now = Receiver(spool), 4799, [1e9]
    for _ in range(25):
        leave(spool, uid=nobody)
    leave(spool, uid=ANN)
    pickup = Pickup(spool, receiver._log, lambda: now[0], lambda: receiver._context)
    counts = []
    for seconds in (0, 3599, 2):
        now[0] += seconds
        asyncio.run(pickup.once())
        refused = [line for line in receiver.log if "event=drop-refused" in line]
        counts.append((len(refused), drop.summary(spool).waiting))
    assert counts == [(20, 5), (20, 5), (25, 0)]
    assert len(queued(spool)) == 1


@as_root
@pytest.mark.security_case(134)
def test_all_runs_together_refuse_no_more_of_one_user(spool: Spool) -> None:
    for _ in range(45):
        leave(spool, uid=4799)
    # Of other programs: each has counters of its own.
    assert [Receiver(spool).take_in() for _ in range(3)] == [20, 0, 0]
    leave(spool, uid=ANN)
    assert Receiver(spool).take_in() == 1
    assert Receiver(spool).take_in(lambda: time.time() + 3601) == 20
    # The operator, who has mended the cause, has the refused tried again.
    for name in names(spool):
        (spool.path / DROP / name).rename(spool.path / DROP / name.removesuffix(".refused"))
    assert Receiver(spool).take_in() == 20


@as_root
@pytest.mark.security_case(134)
def test_runs_of_cron_together_refuse_no_more_of_one_user(relay: Relay) -> None:
    with Spool.open(relay.spool, create=True) as spool:
        drop.prepare(spool, wanted=True)
        for _ in range(25):
            leave(spool, uid=4799)
        for _ in range(2):
            assert relay.mailer_send("--once").returncode == 0
        told = relay.mailer("log", "--status", "drop-refused", "--json").stdout.splitlines()
        assert (len(told), drop.summary(spool).waiting) == (20, 5)


@as_root
@pytest.mark.security_case(134)
def test_a_sender_that_stays_refuses_no_more_of_a_user_who_removes_the_refused(relay: Relay) -> None:
    relay.configure({"localUsers": [{"login": str(os.getuid()), "user": USERNAME}]})
    stop, refused = asyncio.Event(), list[Path]()

    def on_line(_: object, text: str, fields: Mapping[str, str]) -> None:
        if "submitted a drop" in text:
            stop.set()
        if fields.get("event") == "drop-refused":
            refused.append(directory / f"{fields['id']}.refused")
            refused[-1].unlink()
            if len(refused) == 20:  # the next look takes this one in, after the user's turn
                hand_over(str(directory), [f"MAIL FROM:<{USERNAME}>", TO], TEXT)

    with Spool.open(relay.spool, create=True) as spool:
        directory = spool.path / DROP
        drop.prepare(spool, wanted=True)
        for _ in range(25):
            leave(spool, uid=4799)
        loaded, log = load(relay.config, {}), MailLog(time.time, on_line)
        asyncio.run(drops.keep_taking_in(lambda: loaded, spool, lambda: log, stop))
        assert (len(refused), drop.summary(spool).waiting) == (20, 5)


@pytest.mark.security_case(134)
def test_a_scan_takes_in_the_drops_it_found_and_not_those_that_arrive_meanwhile(spool: Spool) -> None:
    receiver = Receiver(spool)
    receiver.on_line = lambda line: leave(spool) if "submitted a drop" in line else None
    leave(spool)
    receiver.take_in()
    assert (len(queued(spool)), len(names(spool))) == (1, 1)


@pytest.mark.parametrize("begun", [0, 1])
def test_a_run_that_is_to_end_takes_no_other_drop_in(relay: Relay, begun: int) -> None:
    relay.configure({"localUsers": [{"login": str(os.getuid()), "user": USERNAME}]})
    stop, lines = asyncio.Event(), list[str]()

    def on_line(_: object, text: str, __: object) -> None:
        lines.append(text)
        stop.set()

    with Spool.open(relay.spool, create=True) as spool:
        drop.prepare(spool, wanted=True)
        for _ in range(20):
            hand_over(str(spool.path / DROP), [f"MAIL FROM:<{USERNAME}>", TO], TEXT)
        log = MailLog(time.time, on_line)
        if not begun:
            stop.set()
        asyncio.run(drops.take_in(load(relay.config, {}), spool, log, stop))
        assert begun <= len(queued(spool)) <= 3 * begun, lines


@pytest.mark.security_case(134)
@pytest.mark.parametrize("what", ["many recipients", "large", "name"])
def test_a_drop_that_always_fails_does_not_hold_back_later_ones(spool: Spool, what: str) -> None:
    receiver, to, text = Receiver(spool, limits={"max_recipients": 3, "max_message_size": 5000}), [TO], TEXT
    match what:
        case "many recipients":
            to = [f"RCPT TO:<u{n}@example.net>" for n in range(4)]
        case "large":
            text += b"x\r\n" * 100_000
        case "name":
            to = ["RCPT TO:<@>"]
    name = hand_over(str(spool.path / DROP), [f"MAIL FROM:<{USER}>", *to], text)
    if what == "name":
        (spool.path / DROP / f"{name}.refused").mkdir()
    leave(spool)
    receiver.take_in()
    assert len(queued(spool)) == 1
    kept = [each for each in drop.entries(spool) if each.kind is Kind.REFUSED]
    assert len(kept) == 1
    assert all(each.name in "".join(receiver.log) for each in kept if what == "name")
    assert name not in names(spool)


@pytest.mark.security_case(134)
@pytest.mark.parametrize(("waiting", "taken"), [(4, 1), (5, 0)])
def test_some_drops_that_have_to_wait_are_passed_over(spool: Spool, waiting: int, taken: int) -> None:
    held = [drop_file.Drop.lock(spool, leave(spool)) for _ in range(waiting)]
    last = new_id(time.time() + 60)
    leave(spool, name=last)
    Receiver(spool).take_in()
    assert len(queued(spool)) == taken
    for each in held:
        assert each is not None
        each.release()


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


def test_the_entries_of_the_drop_directory_are_counted_and_described(spool: Spool) -> None:
    assert drop.summary(spool).describe(0.0) == ""
    leave(spool)
    leave(spool, name=new_id(0) + ".refused")
    (spool.path / DROP / "notes").touch()
    found = drop.summary(spool)
    assert (found.waiting, found.refused, found.odd) == (1, 1, 1)
    said = found.describe(found.since + 7300)
    assert said.startswith(
        "1 left by users, the oldest 2h ago: mailer serve or mailer-send picks them up; 1 refused: "
    )
    assert "; 1 not made by mailer-sendmail: " in said


@as_root
@pytest.mark.security_case(133)
def test_a_users_own_filesystem_among_the_drops_keeps_nothing_back(relay: Relay) -> None:
    """Not even root may look at what a user has mounted there with fusermount."""
    relay.configure({"localUsers": [{"login": str(os.getuid()), "user": USERNAME}]})
    with Spool.open(relay.spool, create=True) as spool:
        drop.prepare(spool, wanted=True)
        hand_over(str(spool.path / DROP), [f"MAIL FROM:<{USERNAME}>", TO], TEXT)
    theirs = relay.spool / DROP / new_id(0)
    theirs.mkdir()
    os.chown(theirs, EVE, EVE)
    mount = Path(__file__).parents[1] / "testbed" / "fuse_mount.py"
    under = (*with_own_mounts(), sys.executable, str(mount), "fuse", str(theirs))
    said = relay.mailer("spool", "ls", under=under)
    assert (said.returncode, "1 left by users" in said.stderr) == (0, True), said.stderr
    assert "1 not made by mailer-sendmail" in said.stderr
    sent = relay.mailer_send("--once", "-v", under=under)
    assert (sent.returncode, "submitted a drop" in sent.stderr) == (0, True), sent.stderr
    assert sorted(path.name for path in (relay.spool / DROP).iterdir()) == [theirs.name]
    assert list((relay.spool / "new").iterdir()) == []


def test_a_drop_directory_that_cannot_be_read_is_reported(spool: Spool) -> None:
    (spool.path / DROP).rmdir()
    (spool.path / DROP).symlink_to("/tmp")
    assert drop.summary(spool).describe(0.0).startswith("it cannot be read (Not a directory)")


def test_only_drops_that_can_be_taken_in_count_as_waiting(spool: Spool) -> None:
    for name in ("notes", ".x"):
        (spool.path / DROP / name).touch()
    (spool.path / DROP / new_id(0)).mkdir()
    assert not due.any_drop(spool.path)
    leave(spool)
    assert due.any_drop(spool.path)


def test_unfinished_files_are_removed_when_they_are_a_day_old(spool: Spool) -> None:
    name = "." + leave(spool)
    (spool.path / DROP / name[1:]).rename(spool.path / DROP / name)
    (spool.path / DROP / ".hand-made").touch()
    drop.sweep(spool, time.time() + 86_000)
    assert len(names(spool)) == 2
    drop.sweep(spool, time.time() + 87_000)
    assert names(spool) == [".hand-made"]
    assert [each.kind for each in drop.entries(spool)] == [Kind.ODD]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_others_pass_to_the_drop_directory_while_it_is_open_and_see_nothing_else(spool_path: Path) -> None:
    with Spool.open(spool_path, create=True) as spool:
        assert mode(spool_path) == 0o700
        for _ in range(2):
            drop.prepare(spool, wanted=True)
            assert (mode(spool_path), mode(spool_path / DROP)) == (0o711, 0o3733)
    with Spool.open(spool_path, create=True) as spool:
        assert mode(spool_path) == 0o711
        assert {mode(each) for each in spool_path.iterdir() if each.is_dir()} == {0o700, 0o3733}
        # Without these bits users could remove each other's mail, and none would be taken in.
        (spool_path / DROP).chmod(0o733)
        assert "chmod 3733 drop" in drop.summary(spool).describe(0.0)
        drop.prepare(spool, wanted=True)
        assert (mode(spool_path / DROP), drop.summary(spool).describe(0.0)) == (0o3733, "")
        # What the operator has made narrower stays so.
        (spool_path / DROP).chmod(0o3730)
        drop.prepare(spool, wanted=True)
        assert mode(spool_path / DROP) == 0o3730
        leave(spool)
        drop.prepare(spool, wanted=False)
        assert (mode(spool_path), mode(spool_path / DROP) & 0o777) == (0o700, 0o700)
        assert len(names(spool)) == 1


def test_the_drop_directory_is_not_made_where_no_user_may_use_it(spool_path: Path) -> None:
    with Spool.open(spool_path, create=True) as spool:
        drop.prepare(spool, wanted=False)
        assert not (spool_path / DROP).exists()
        assert list(drop.entries(spool)) == []
        assert drop.waiting(spool, 1) == {}
