"""Mail with an Idempotency-Key: submitted again it is queued once, whatever died in between."""

import asyncio
import os
import smtplib
import time
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest
from inbound.receiving import CLOSED, PASSWORD, USER, finished, login, running
from spools.crash import InPlace, dying_at
from spools.runner import run_once
from spools.strace import attach
from spools.walk import walk
from testbed.ports import LOOPBACK
from testbed.relay import Relay

from mailer.mail.envelope import Envelope, Recipient
from mailer.mail.reply import Reply
from mailer.maillog.events import MailLog
from mailer.receive.content.fault import Fault
from mailer.receive.content.header_policy import ContentPolicy, Origin
from mailer.receive.content.idempotency import Content, key_of
from mailer.receive.upload import Store, Upload
from mailer.receive.users.accounts import single_login
from mailer.receive.users.rates import Rate, RateLimiter, RateRules
from mailer.spool import key_file
from mailer.spool.changes import NotUndone
from mailer.spool.directory import Spool
from mailer.spool.key_file import InUse, KeyFile, name_of
from mailer.spool.key_retention import forget_old
from mailer.spool.layout import ONCE
from mailer.spool.preparation import SpoolError

TO = "bob@example.net"
KEYED = b"From: app@example.com\r\nIdempotency-Key: order-4711\r\nSubject: order\r\n\r\nYour order.\r\n"
ORIGIN = Origin("x", LOOPBACK, "here.example", extended=True, user="app", smtputf8=False)
POLICY = ContentPolicy()


@pytest.mark.parametrize(
    ("head", "key"),
    [
        (b"Subject: x\r\n", ""),
        (b"Subject: Idempotency-Key: x\r\n", ""),
        (b"IDEMPOTENCY-key : order-4711\r\n", "order-4711"),
        (b'Idempotency-Key: "8e03978e-40d5"\r\n', "8e03978e-40d5"),
        (b"Idempotency-Key:\r\n folded\r\n", "folded"),
        (b'Idempotency-Key: "two words"\r\n', "two words"),
        (b"Idempotency-Key: " + b"x" * 255 + b"\r\n", "x" * 255),
        (b"Idempotency-Key: two words\r\n", None),
        (b"Idempotency-Key:\r\n", None),
        (b'Idempotency-Key: ""\r\n', None),
        (b"Idempotency-Key: " + b"x" * 256 + b"\r\n", None),
        (b"Idempotency-Key: \xc3\xa9\r\n", None),
        (b"Idempotency-Key: a\x1b[2J\r\n", None),
        (b"Idempotency-Key: a\r\nIdempotency-Key: a\r\n", None),
    ],
)
@pytest.mark.security_case(117)
def test_a_key_is_one_field_of_printable_characters(head: bytes, key: str | None) -> None:
    found = key_of(head)
    assert found == key if key is not None else found is Fault.BAD_KEY


def made(text: str = "hello", subject: str = "x") -> bytes:
    """A mail as a library makes it, with a Message-ID and boundaries of its own each time."""
    mail = EmailMessage()
    mail["Subject"], mail["Message-ID"], mail["Date"] = subject, os.urandom(8).hex(), os.urandom(8).hex()
    mail["Idempotency-Key"] = "k"
    mail["DKIM-Signature"] = f"v=1; d=example.com; b={os.urandom(8).hex()}"
    mail.set_content(text)
    mail.add_alternative(f"<p>{text}</p>", subtype="html")
    mail.add_attachment(b"\0" * 9000, maintype="application", subtype="pdf", filename="a.pdf")
    return mail.as_bytes().replace(b"\n", b"\r\n")


def digest(mail: bytes, *to: str, piece: int = 10**6) -> str:
    head, _, body = mail.partition(b"\r\n\r\n")
    content = Content(Envelope("app@example.com", tuple(map(Recipient, to or (TO, "eve@example.org")))))
    content.header(head + b"\r\n")
    body = b"\r\n" + body
    for start in range(0, len(body), piece):
        content.body(body[start : start + piece])
    return content.digest()


def test_a_mail_that_is_made_a_second_time_is_the_same_and_any_other_is_not() -> None:
    first = digest(made())
    assert digest(made(), "eve@example.org", TO) == digest(made(), piece=7) == first
    others = [digest(made("hallo")), digest(made(subject="y")), digest(made(), TO), digest(made() + b"x\r\n")]
    assert len({first, *others}) == 5


@pytest.mark.parametrize(
    "texts",
    [
        ("Fee:\r\n--500 EUR\r\n", "Fee:\r\n--9 EUR\r\n"),
        ("https://x.example/?boundary=north&price=5\r\n", "https://x.example/?boundary=south&price=9\r\n"),
    ],
)
def test_only_a_boundary_that_is_declared_is_left_out(texts: tuple[str, str]) -> None:
    """Or other mail under the same key would get a 250, and be lost."""
    for head in ("Subject: x", "Subject: boundary=500", "Content-Type: text/plain; boundary=q"):
        assert len({digest(f"{head}\r\n\r\n{text}".encode()) for text in texts}) == len(texts)


@pytest.mark.parametrize("piece", [1, 2, 999, 4096, 5000])
def test_the_digest_does_not_depend_on_how_the_mail_is_cut(piece: int) -> None:
    long = b"a{--b:c} boundary=x " * 900 + b"\r\n--x\r\n" + b"-" * 4097 + b"\r\nend"
    for mail in (made() + long, b"Subject: x\r\n\r\n" + long):
        assert digest(mail, piece=piece) == digest(mail)


def test_a_message_that_leaves_while_it_is_looked_for_is_not_queued_again(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver died after `begun`; a runner takes the message at this moment, and delivers it."""
    name = name_of(USER, "", "order-4711")
    with Spool.open(spool_path, create=True) as spool:
        first = KeyFile.lock(spool, name)
        first.begin("01M8KX21XDZ0Y5YF7EVM1BTNFD", "content", at=time.time())
        first.release()

        def find(*_: object) -> list[object]:
            line = (
                b'{"at":"2026-11-22T08:00:00.000000Z","event":"accepted","id":"01M8KX21XDZ0Y5YF7EVM1BTNFD"}\n'
            )
            with (spool_path / ONCE / name).open("ab") as file:
                file.write(line)
            return []

        monkeypatch.setattr(key_file, "find", find)
        again = KeyFile.lock(spool, name)
        again.settle()
        assert again.known.accepted
        again.release()


def queued(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in (directory / "spool/new").iterdir()]


def test_mail_that_comes_again_gets_the_first_answer_and_counts_once(tmp_path: Path) -> None:
    rates = RateLimiter(RateRules(overall=Rate(per_hour=4)), time.time)
    accounts = login(single_login(USER, PASSWORD), single_login("eve", PASSWORD))
    with running(tmp_path, CLOSED, accounts, rates=rates) as receiver:

        def submit(user: str, message: bytes) -> tuple[int, str]:
            with smtplib.SMTP(*receiver.address, timeout=60) as client:
                client.login(user, PASSWORD)
                client.mail(USER)
                client.rcpt(TO)
                code, text = client.data(message)
                return code, text.decode()

        (code, first), again = submit(USER, KEYED), submit(USER, KEYED)
        assert code == 250
        assert again == (250, f"{first} (before, under this Idempotency-Key)")
        assert len(queued(tmp_path)) == 1
        assert b"Idempotency-Key" not in queued(tmp_path)[0]
        message_id = first.rpartition(" ")[2]
        assert any(f"id={message_id} event=repeated to={TO}" in line for line in receiver.log)
        # Refused: nobody reads it as done, and nothing is queued.
        assert submit(USER, KEYED + b"And more.\r\n") == (
            554,
            f"5.6.0 Idempotency-Key: other mail was queued under it, as {message_id}; use a new key",
        )
        assert submit(USER, KEYED.replace(b"order-4711", b"a b"))[0] == 554
        # Another user's key is another key, and is told nothing.
        assert submit("eve", KEYED + b"And more.\r\n")[0] == 250
        assert len(queued(tmp_path)) == 2
        assert sum(use.used(3600) for use in rates.uses()) == 2
        assert receiver.leftovers() == []


def test_without_a_window_keys_mean_nothing_and_still_stay_here(tmp_path: Path) -> None:
    """The field is between the application and us, whatever we make of it."""
    with Spool.open(tmp_path / "spool", create=True) as spool:
        for _ in range(2):
            submit(spool, ContentPolicy(obey_keys=False))
        assert len(queued(tmp_path)) == 2
        assert not any(b"Idempotency-Key" in entry for entry in queued(tmp_path))
        assert not (spool.path / ONCE).exists()


def submit(spool: Spool, policy: ContentPolicy = POLICY, clock: Callable[[], float] = time.time) -> Reply:
    store = Store(spool, InPlace(spool), MailLog(time.time, lambda *_: None), clock)

    async def upload() -> Reply:
        upload = Upload(store, Envelope("a@here.example", (Recipient("sent@example.net"),)), ORIGIN, policy)
        upload.append(KEYED)
        return await finished(upload)

    return asyncio.run(upload())


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_defect_while_a_message_is_completed_leaves_nothing_behind(spool_path: Path) -> None:
    """Such as a time that cannot be written: neither a file nor a descriptor, nor the key's lock."""
    times = iter([time.time()])
    with Spool.open(spool_path, create=True) as spool:
        before = descriptors()
        with pytest.raises(ValueError, match="year"):
            submit(spool, clock=lambda: next(times, 1e12))
        assert descriptors() == before
        assert list((spool_path / "tmp").iterdir()) == []
        assert submit(spool).code == 250


def id_in(reply: Reply) -> str:
    assert reply.code == 250, reply
    return reply.lines[0].split()[4]


def run(spool: Spool, delivered: list[str]) -> None:
    run_once(spool, time.time(), lambda message_id, _: delivered.append(message_id))


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("delivered_before", [False, True])
def test_whenever_the_receiver_dies_the_mail_is_queued_once(
    tmp_path: Path, *, delivered_before: bool, torn: bool
) -> None:
    """Also when a runner has delivered it, and it has left the spool, before it comes again."""
    die_at, dead = 0, True
    while dead:
        root = tmp_path / str(die_at)
        delivered: list[str] = []
        Spool.open(root, create=True).close()
        with Spool.open(root) as spool, dying_at(die_at, torn=torn) as boundary:
            submit(spool)
        dead = boundary.dead
        with Spool.open(root) as spool:
            if delivered_before:
                run(spool, delivered)
            first, again = submit(spool), submit(spool)
            run(spool, delivered)
        assert delivered == [id_in(first)] == [id_in(again)], boundary.calls
        die_at += 1
    # Once, once/ is made; the message, the key's file, once/, new/, and then both of the key again.
    assert boundary.calls.count("fsync") == 7


def failing(at: int) -> Callable[[int], None]:
    calls = 0

    def fsync(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise OSError(5, "Input/output error")

    return fsync


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_whichever_sync_fails_the_mail_is_queued_once(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application hears 4yz and comes again."""
    delivered: list[str] = []
    with Spool.open(tmp_path / "spool", create=True) as spool:
        spool.make_directory(ONCE)
        with monkeypatch.context() as disk:
            disk.setattr(os, "fsync", failing(at))
            assert submit(spool).code == 451
        run(spool, delivered)
        assert delivered == []
        reply = submit(spool)
        run(spool, delivered)
    assert delivered == [id_in(reply)]


@pytest.mark.parametrize("scheduled", [0, 1, 9])
def test_what_a_failed_commit_removed_is_durably_gone_before_its_key_names_another(
    tmp_path: Path, scheduled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut would bring it back, and both would be delivered."""
    order: list[str] = []
    buckets = [f"20261224T060{number}Z-scheduled" for number in range(scheduled)]
    with Spool.open(tmp_path / "spool", create=True) as spool:
        spool.make_directory(ONCE)
        for bucket in buckets:
            spool.make_directory(f"retry/{bucket}")
        with monkeypatch.context() as disk:
            disk.setattr(os, "fsync", failing(4))
            assert submit(spool).code == 451
        fsync, ftruncate, syncfs = os.fsync, os.ftruncate, key_file.sync_filesystem
        for module, name, call, what in (
            (os, "fsync", fsync, ""),
            (os, "ftruncate", ftruncate, "begun"),
            (key_file, "sync_filesystem", syncfs, "all"),
        ):
            monkeypatch.setattr(module, name, noting(order, call, what))
        assert submit(spool).code == 250
    before = order[: order.index("begun")]
    assert before == (["new", *buckets, "retry"] if scheduled < 9 else ["all"])


def noting(order: list[str], call: Callable[..., object], what: str) -> Callable[..., object]:
    def noted(fd: int, *rest: int) -> object:
        order.append(what or Path(f"/proc/self/fd/{fd}").readlink().name)
        return call(fd, *rest)

    return noted


@pytest.mark.parametrize("removed", [False, True])
def test_mail_is_queued_once_if_its_receiver_died_while_it_took_a_key_back(
    tmp_path: Path, *, removed: bool
) -> None:
    """The key's file says `dropped` before the message is removed: it may be there, or not."""
    delivered: list[str] = []
    with Spool.open(tmp_path / "spool", create=True) as spool:
        first = submit(spool)
        file = KeyFile.lock(spool, name_of("app", LOOPBACK, "order-4711"))
        file.drop(at="2026-11-22T21:45:01Z")
        file.release()
        if removed:
            (spool.path / "new" / id_in(first)).unlink()
        again = submit(spool)
        run(spool, delivered)
    assert (id_in(again) == id_in(first)) is not removed
    assert delivered == [id_in(again)]


def test_a_full_disk_that_takes_all_of_the_line_but_its_end_loses_no_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered: list[str] = []
    real = os.write

    def full(fd: int, data: memoryview) -> int:
        if b'"event":"accepted","id"' not in bytes(data):
            return real(fd, data)
        real(fd, data[:-1])
        raise OSError(28, "No space left on device")

    with Spool.open(tmp_path / "spool", create=True) as spool:
        with monkeypatch.context() as disk:
            disk.setattr(os, "write", full)
            for _ in range(30):
                assert submit(spool).code == 452
        file = spool.path / ONCE / name_of("app", LOOPBACK, "order-4711")
        assert file.stat().st_size < 1000
        reply = submit(spool)
        run(spool, delivered)
    assert delivered == [id_in(reply)]


def test_what_cannot_be_taken_back_is_kept_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered: list[str] = []

    def full(self: KeyFile, *, at: str) -> None:
        raise OSError(28, f"No space left on device, {at}, {self.name}")

    with Spool.open(tmp_path / "spool", create=True) as spool:
        spool.make_directory(ONCE)
        with monkeypatch.context() as disk:
            disk.setattr(os, "fsync", failing(4))
            disk.setattr(KeyFile, "drop", full)
            with pytest.raises(NotUndone):
                submit(spool)
        reply = submit(spool)
        run(spool, delivered)
    assert delivered == [id_in(reply)]


def test_two_receivers_do_not_take_mail_under_one_key_at_once(tmp_path: Path) -> None:
    with Spool.open(tmp_path / "spool", create=True) as one, Spool.open(tmp_path / "spool") as other:
        name = name_of("app", LOOPBACK, "order-4711")
        file = KeyFile.lock(one, name)
        with pytest.raises(InUse):
            KeyFile.lock(other, name)
        assert submit(other).code == 451
        file.release()
        first = submit(other)
        assert id_in(first) == id_in(submit(one))
        assert name_of("app", "elsewhere", "k") == name_of("app", LOOPBACK, "k") != name_of("", LOOPBACK, "k")


def test_keys_are_forgotten_when_they_are_old_and_looked_for_once_an_hour(tmp_path: Path) -> None:
    now = time.time()
    with Spool.open(tmp_path / "spool", create=True) as spool:
        assert forget_old(spool, now, 100) == 0
        first = submit(spool)
        name = name_of("app", LOOPBACK, "order-4711")
        (spool.path / ONCE / "of another").touch()
        assert forget_old(spool, now + 50, 100) == 0
        assert forget_old(spool, now + 200, 100) == 0, "it looked a moment ago"
        assert id_in(submit(spool)) == id_in(first)
        with KeyFileHeld(spool, name):
            assert forget_old(spool, now + 4000, 100) == 0
        assert forget_old(spool, now + 8000, 100) == 1
        assert id_in(submit(spool)) != id_in(first)
        assert (spool.path / ONCE / "of another").exists()


def test_what_cannot_be_forgotten_stops_no_run_and_a_sweep_is_bounded(tmp_path: Path) -> None:
    now = time.time()
    with Spool.open(tmp_path / "spool", create=True) as spool:
        once = spool.path / ONCE
        once.mkdir(0o700)
        (once / "swept").mkdir()
        (once / ("a" * 64)).mkdir()
        (once / ("b" * 64)).symlink_to(tmp_path)
        for number in range(1001):
            (once / f"{number:064x}").touch()
        assert forget_old(spool, now + 8000, 100) == 1000
        assert forget_old(spool, now + 8000, 100) == 1
        assert {path.name[:2] for path in once.iterdir()} == {"sw", "aa", "bb"}
    moved = spool.path / "elsewhere"
    once.rename(moved)
    once.symlink_to(moved)
    with pytest.raises(SpoolError, match="once is not a directory: move it away"):
        Spool.open(spool.path)


class KeyFileHeld:
    """Holds a key's file while the block runs."""

    def __init__(self, spool: Spool, name: str) -> None:
        self._file = KeyFile.lock(spool, name)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._file.release()


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "hard link"])
@pytest.mark.security_case(118)
def test_what_is_no_file_of_ours_is_not_followed_and_the_mail_may_come_again(
    tmp_path: Path, kind: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    with Spool.open(tmp_path / "spool", create=True) as spool:
        path = spool.path / ONCE / name_of("app", LOOPBACK, "order-4711")
        path.parent.mkdir(0o700)
        match kind:
            case "link":
                path.symlink_to(outside)
            case "fifo":
                os.mkfifo(path)
            case "directory":
                path.mkdir()
            case _:
                path.hardlink_to(outside)
        assert submit(spool).code == 451
        assert outside.read_text() == "theirs"
        assert list((spool.path / "tmp").iterdir()) == queued(tmp_path) == []
        # A message whose key's file was exchanged is delivered all the same.
        path.rename(path.with_name("aside"))
        first = submit(spool)
        path.unlink()
        path.with_name("aside").rename(path)
        delivered: list[str] = []
        run(spool, delivered)
        assert delivered == [id_in(first)]


def test_an_application_that_never_heard_the_reply_submits_again(relay: Relay, tmp_path: Path) -> None:
    """The receiver is killed with the mail in `new/`; a runner delivers it; then it comes again."""
    with relay.serve() as receiver, relay.connect() as client:
        client.sendmail(USER, [TO], KEYED.replace(b"order-4711", b"warm"))
        client.mail(USER)
        client.rcpt(TO)
        # The committer's thread: the message's file, the key's, once/, then new/, which this does not reach.
        watcher = attach(
            receiver.pid, tmp_path / "trace", inject=("fsync:signal=KILL:when=4",), trace="fsync"
        )
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.data(KEYED)
        receiver.stop()
        watcher.communicate()
    assert relay.mailer_send("--once").returncode == 0
    assert walk(relay.spool) == {}
    with relay.serve(), relay.connect() as client:
        client.mail(USER)
        client.rcpt(TO)
        code, text = client.data(KEYED)
    assert code == 250
    assert relay.mailer_send("--once").returncode == 0
    assert len(relay.delivered()) == 2
    assert not any(b"Idempotency-Key" in mail for mail in relay.delivered())
    why = relay.mailer("spool", "why", text.split()[4].decode())
    assert "repeated: its Idempotency-Key came again" in why.stdout
