"""The ledger: every program appends whole lines, and no trouble with its disk ever reaches the mail."""

import errno
import fcntl
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spools.log_directory import opened
from testbed.capability import forbidden
from testbed.filesystem import FILE_SYSTEMS, FileSystem

from mailer.cli.setup import open_log
from mailer.mail import clock
from mailer.maillog import files
from mailer.maillog import ledger as ledger_module
from mailer.maillog.events import Level
from mailer.maillog.ledger import Ledger, Line, _remember_loss, encode, losing_since
from mailer.maillog.lines import decode
from mailer.maillog.search import Query, find
from mailer.spool.directory import Spool

TODAY = "2026-11-22T21:45:01.000000Z"
ID = "01JD0M3Q5V8Z7X2C4B6N8M0K1J"
HERE = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}

texts = st.text(max_size=20).filter(lambda text: text.encode("utf-8", "replace").decode() == text)
lines = st.builds(
    Line,
    at=st.just(TODAY),
    event=texts,
    id=st.sampled_from(["", ID]),
    sender=st.none() | texts,
    to=st.lists(texts, max_size=3).map(tuple),
    size=st.none() | st.integers(0, 2**40),
    reply=texts,
    delay=st.none() | st.floats(0, 1e6),
    attempt=st.integers(0, 99),
)

WRITERS = """
import os, sys
from functools import partial
from pathlib import Path
from spools.log_directory import opened
from mailer.maillog.ledger import Ledger, Line
gate_read, gate_write = os.pipe()
for writer in range(8):
    if os.fork() == 0:
        os.close(gate_write)
        ledger = Ledger(partial(opened, Path(sys.argv[1])), on_trouble=lambda error: os._exit(1))
        os.read(gate_read, 1)  # All begin at once: the gate opens by closing.
        for number in range(2000):
            reply = "x" * 40 * writer
            ledger.append(Line(at="2026-11-22T21:45:01Z", event="sent", id=f"{writer}/{number}", reply=reply))
        os._exit(0)
os.close(gate_write)
sys.exit(sum(os.wait()[1] for _ in range(8)))
"""

FULL = """
import os, sys, resource
from functools import partial
from pathlib import Path
from spools.log_directory import opened
from mailer.maillog.ledger import Ledger, Line
log, names, events = Path(sys.argv[1]), [], []
ledger = Ledger(partial(opened, log), on_trouble=lambda error: events.append(f"trouble: {error.strerror}"))
def append(name):
    names.append(name)
    ledger.append(Line(at=f"2026-11-22T21:45:0{len(names)}Z", event=name, reply="x" * 300))
    events.append(name)
append("one")
resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
append("two")
append("three")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
append("four")
print(*events, sep="\\n")
"""


def read_day(directory: Path, day: str) -> list[Line]:
    found = find(partial(opened, directory), Query(), ends={day: 2**30})
    return [each.line for each in found]


def days(directory: Path) -> list[str]:
    with opened(directory) as fd:
        return files.days(fd)


def log_of(directory: Path) -> tuple[Ledger, list[OSError]]:
    trouble: list[OSError] = []
    return Ledger(partial(opened, directory), trouble.append), trouble


def line(event: str, at: str = TODAY, **fields: object) -> Line:
    return Line(at=at, event=event, **fields)  # type: ignore[arg-type]


@given(lines)
def test_a_line_reads_back_as_it_was_written_and_is_one_line(line: Line) -> None:
    written = encode(line)
    assert decode(written) == line
    assert written.index(b"\n") == len(written) - 1
    assert written.startswith(b'{"at":')


@given(lines, lines, st.data())
def test_a_line_behind_a_torn_one_is_read(torn: Line, line: Line, data: st.DataObject) -> None:
    """A crash, or a disk that was full for a moment, left the beginning of a line without its end."""
    beginning = encode(torn).rstrip(b"\n")
    cut = beginning[: data.draw(st.integers(0, len(beginning)))]
    assert decode(cut + encode(line)) == line


@given(st.binary(max_size=60))
def test_garbage_is_no_line(junk: bytes) -> None:
    assert decode(b"{" + junk + b"\xff") is None
    assert decode(b'{"at":"' + junk + b'\xff","event":"sent"}') is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(lines, max_size=6))
def test_the_days_lines_come_back_in_order(tmp_path: Path, written: list[Line]) -> None:
    (tmp_path / "20261122.jsonl").unlink(missing_ok=True)
    ledger, trouble = log_of(tmp_path)
    for line in written:
        ledger.append(line)
    ledger.close()
    assert read_day(tmp_path, "20261122") == written
    found = find(partial(opened, tmp_path), Query(id=ID))
    assert [line for line in written if line.id == ID] == [each.line for each in found]
    assert not trouble


def test_the_file_is_the_utc_day_of_the_lines_own_time(tmp_path: Path) -> None:
    """Not of the clock when it is written: a line that is late belongs to the day it tells of."""
    ledger, _ = log_of(tmp_path)
    for at in ("2026-11-22T23:59:59.9Z", "2026-11-23T00:00:00Z", "2026-11-22T23:59:59.99Z"):
        ledger.append(line("sent", at, id=ID))
    ledger.close()
    assert days(tmp_path) == ["20261122", "20261123"]
    assert len(read_day(tmp_path, "20261122")) == 2
    late = Query(id=ID, since=clock.seconds("2026-11-23T00:00:00Z"))
    assert [found.line.at[:10] for found in find(partial(opened, tmp_path), late)] == ["2026-11-23"]
    assert read_day(tmp_path, "20300101") == []
    assert (tmp_path / "20261122.jsonl").stat().st_mode & 0o777 == 0o600


def test_lines_of_several_programs_never_mix(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", WRITERS, str(tmp_path)], check=True, env=HERE)
    written = [json.loads(raw) for raw in (tmp_path / "20261122.jsonl").read_bytes().splitlines()]
    assert {found["id"] for found in written} == {f"{w}/{n}" for w in range(8) for n in range(2000)}
    assert len(written) == 16000


@pytest.mark.fault_row(26)
def test_a_full_disk_delays_lines_is_logged_once_and_mends(tmp_path: Path) -> None:
    """With a limit that makes write(2) stop short, as a full disk does."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], check=True, capture_output=True, text=True, env=HERE
    )
    assert done.stdout.splitlines() == ["one", "trouble: File too large", "two", "three", "four"]
    written = read_day(tmp_path, "20261122")
    assert [found.event for found in written] == ["one", "two", "three", "lost", "four"]
    assert written[3] == line("lost", at="2026-11-22T21:45:04Z", since="2026-11-22T21:45:02Z")
    assert [path.name for path in tmp_path.iterdir()] == ["20261122.jsonl"]


@pytest.mark.fault_row(26)
def test_an_error_of_one_call_costs_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, trouble = log_of(tmp_path)
    writes = ledger_module._write_lines

    def once(_fd: int, _data: bytes) -> int:
        monkeypatch.setattr(ledger_module, "_write_lines", writes)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(ledger_module, "_write_lines", once)
    ledger.append(line("sent"))
    ledger.close()
    assert [each.event for each in read_day(tmp_path, "20261122")] == ["sent"]
    assert trouble == []
    assert [path.name for path in tmp_path.iterdir()] == ["20261122.jsonl"]


@pytest.mark.fault_row(26)
def test_a_program_keeps_the_first_lines_of_an_outage_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_KEPT", 1000)
    ledger, _ = log_of(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(ledger_module, "_write_lines", failing)
        for number in range(10):
            ledger.append(
                line("sent", f"2026-11-22T21:45:0{number}.000000Z", id=str(number), reply="x" * 150)
            )
    ledger.append(line("bounced", "2026-11-23T00:00:00.000000Z"))
    ledger.close()
    assert [each.id for each in read_day(tmp_path, "20261122")] == ["0", "1", "2", "3"]
    lost, _ = read_day(tmp_path, "20261123")
    assert lost == line("lost", "2026-11-23T00:00:00.000000Z", since="2026-11-22T21:45:00.000000Z")


@pytest.mark.fault_row(26)
def test_a_program_that_ends_after_an_outage_writes_what_it_kept(tmp_path: Path) -> None:
    """When it closes its spool: at the exit of the interpreter that is closed."""
    with Spool.open(tmp_path / "spool", create=True) as spool:
        log = open_log(spool, Level.ERROR)
        directory = tmp_path / "spool" / "log"
        directory.rmdir()
        directory.touch()
        log.message("held", id=ID)
        directory.unlink()
        directory.mkdir(0o700)
    (day,) = days(directory)
    assert [each.event for each in read_day(directory, day)] == ["held"]


@pytest.mark.fault_row(26)
def test_what_a_program_has_lost_the_next_one_says(tmp_path: Path) -> None:
    """A run of cron's ends while the disk is full; later lines are lost for the same reason."""
    for at in ("2026-11-22T21:45:02.000000Z", "2026-11-22T21:46:02.000000Z"):
        full, trouble = log_of(tmp_path)
        (tmp_path / "20261122.jsonl").mkdir(exist_ok=True)
        full.append(line("sent", at))
        full.close()
        assert len(trouble) == 1
    with opened(tmp_path) as fd:
        assert losing_since(fd) == "2026-11-22T21:45:02.000000Z"
    (tmp_path / "20261122.jsonl").rmdir()
    after = "2026-11-22T22:00:00.000000Z"
    for _ in range(2):
        ledger, _ = log_of(tmp_path)
        ledger.append(line("bounced", after))
        ledger.close()
    lost = line("lost", after, since="2026-11-22T21:45:02.000000Z")
    assert read_day(tmp_path, "20261122") == [lost, line("bounced", after), line("bounced", after)]
    with opened(tmp_path) as fd:
        assert losing_since(fd) == ""


def fill(directory: Path) -> Path:
    """Take all the room of a file system; return the file that has it."""
    filler, size, at = directory / "filler", 2**30, 0
    with filler.open("wb", buffering=0) as file:
        while size >= 4096:
            try:
                os.posix_fallocate(file.fileno(), at, size)
                at += size
            except OSError:
                size //= 2
    return filler


@pytest.mark.fault_row(26)
@pytest.mark.parametrize("kind", FILE_SYSTEMS.values(), ids=lambda kind: kind.name)
def test_a_full_disk_of_every_kind_has_room_to_say_that_lines_are_lost(
    tmp_path: Path, kind: FileSystem
) -> None:
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        forbidden("mount file systems", "that takes root, and /dev/loop-control")
    kind.create(tmp_path / "image")
    with kind.mounted(tmp_path / "image", tmp_path / "disk") as disk:
        (disk / "log").mkdir()
        ledger, trouble = log_of(disk / "log")
        ledger.append(line("sent"))
        filler, at = fill(disk), 1_763_848_000.0
        while not trouble:
            at += 1
            ledger.append(line("sent", clock.rfc3339(at), reply="x" * 1000))
        ledger.close()
        assert [error.errno for error in trouble] == [errno.ENOSPC]
        with opened(disk / "log") as fd:
            assert losing_since(fd) == clock.rfc3339(at)
        filler.unlink()
        os.sync()
        ledger, trouble = log_of(disk / "log")
        after = clock.rfc3339(at + 1)
        ledger.append(line("bounced", after))
        ledger.close()
        assert [each.event for each in read_day(disk / "log", after[:10].replace("-", ""))][-2:] == [
            "lost",
            "bounced",
        ]
        assert list((disk / "log").glob("lost*")) == []


@pytest.mark.fault_row(26)
@pytest.mark.parametrize("makes_files", [True, False])
def test_a_gap_contains_the_lost_line_also_when_others_write_before_they_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, makes_files: bool
) -> None:
    """A full XFS makes no file, so that the mark is a second name of the day that the others write to."""
    ends, goes_on = log_of(tmp_path)[0], log_of(tmp_path)[0]
    for each in (ends, goes_on):
        each.append(line("sent", "2026-11-22T21:45:01.000000Z"))
    with monkeypatch.context() as full:
        full.setattr(ledger_module, "_write_lines", failing)
        full.setattr(os, "open", os.open if makes_files else makes_no_file(os.open))
        ends.append(line("sent", "2026-11-22T21:45:02.000000Z"))
    monkeypatch.setattr(ledger_module, "_CHECK_EVERY", math.inf)
    goes_on.append(line("bounced", "2026-11-22T21:45:02.500000Z"))
    monkeypatch.setattr(ledger_module, "_CHECK_EVERY", 0.0)
    goes_on.append(line("bounced", "2026-11-22T21:45:04.000000Z"))
    *_, lost, _ = read_day(tmp_path, "20261122")
    assert lost == line("lost", "2026-11-22T21:45:04.000000Z", since="2026-11-22T21:45:02.000000Z")
    assert [path.name for path in tmp_path.iterdir()] == ["20261122.jsonl"]


def failing(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def makes_no_file(opens: Callable[..., int]) -> Callable[..., int]:
    def unless_it_makes_one(path: str, flags: int, *arguments: int, **names: int) -> int:
        if flags & os.O_EXCL:
            failing()
        return opens(path, flags, *arguments, **names)

    return unless_it_makes_one


@pytest.mark.fault_row(26)
def test_a_mark_stays_until_the_ledger_tells_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of an earlier line, by a program that was slower to leave it; what is no mark is not touched."""
    monkeypatch.setattr(ledger_module, "_CHECK_EVERY", 0.0)
    times = [f"2026-11-22T21:45:0{second}.000000Z" for second in range(5)]
    other = tmp_path / "lost.and found"
    other.touch()
    writes = ledger_module._write_lines

    def meanwhile(fd: int, data: bytes) -> int:
        with opened(tmp_path) as directory:
            _remember_loss(directory, times[1])
        monkeypatch.setattr(ledger_module, "_write_lines", writes)
        return writes(fd, data)

    with opened(tmp_path) as directory:
        _remember_loss(directory, times[2])
    monkeypatch.setattr(ledger_module, "_write_lines", meanwhile)
    ledger, _ = log_of(tmp_path)
    for at in times[3:]:
        ledger.append(line("sent", at))
    lost = [found.since for found in read_day(tmp_path, "20261122") if found.event == "lost"]
    assert lost == [times[2], times[1]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["20261122.jsonl", other.name]


def test_a_program_that_goes_on_losing_lines_leaves_word_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one, which can write, has said so for both meanwhile, and then the first one ends."""
    monkeypatch.setattr(ledger_module, "_CHECK_EVERY", 0.0)
    here, (first, trouble), (second, _) = tmp_path / "20261122.jsonl", log_of(tmp_path), log_of(tmp_path)
    here.mkdir()
    first.append(line("sent"))
    second.append(line("sent", "2026-11-23T00:00:00.000000Z"))
    first.append(line("sent"))
    assert len(trouble) == 1
    second.append(line("sent", "2026-11-23T00:00:01.000000Z"))
    assert [found.event for found in read_day(tmp_path, "20261123")] == ["lost", "sent"] * 2
    assert [path.name for path in tmp_path.iterdir() if path != here] == ["20261123.jsonl"]


def test_a_log_directory_that_goes_and_comes_back_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_CHECK_EVERY", 0.0)
    log = tmp_path / "log"
    ledger, trouble = log_of(log)
    ledger.append(line("no directory yet"))
    ledger.append(line("nor now"))
    assert [error.strerror for error in trouble] == ["No such file or directory"]
    log.mkdir()
    ledger.append(line("first"))
    assert [found.event for found in read_day(log, "20261122")] == [
        "no directory yet",
        "nor now",
        "lost",
        "first",
    ]
    shutil.rmtree(log)
    ledger.append(line("not there"))
    assert len(trouble) == 2
    log.mkdir()
    ledger.append(line("second"))
    log.rename(tmp_path / "moved")
    log.mkdir()
    ledger.append(line("third"))
    ledger.close()
    assert [found.event for found in read_day(log, "20261122")] == ["third"]
    assert [found.event for found in read_day(tmp_path / "moved", "20261122")] == [
        "not there",
        "lost",
        "second",
    ]


@pytest.mark.security_case(89)
def test_the_ledger_stays_in_its_spool_when_another_takes_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SECURITY 89: whoever swaps a parent directory later changes nothing for us."""
    monkeypatch.setattr(ledger_module, "_CHECK_EVERY", 0.0)
    with Spool.open(tmp_path / "spool", create=True) as spool:
        log = open_log(spool, Level.ERROR)
        (tmp_path / "spool").rename(tmp_path / "ours")
        Spool.open(tmp_path / "spool", create=True).close()
        log.message("held", id=ID)
        shutil.rmtree(tmp_path / "ours/log")
        (tmp_path / "ours/log").symlink_to(tmp_path / "spool/log")
        log.message("requeued", id=ID)
        (tmp_path / "ours/log").unlink()
        (tmp_path / "ours/log").mkdir()
        log.message("released", id=ID)
    (day,) = days(tmp_path / "ours/log")
    assert [each.event for each in read_day(tmp_path / "ours/log", day)] == ["requeued", "lost", "released"]
    assert days(tmp_path / "spool/log") == []


def test_each_line_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel keeps one write(2) to a file opened with O_APPEND together, and nothing larger."""
    written: list[bytes] = []
    real_write = os.write

    def watched(fd: int, data: bytes) -> int:
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
        written.append(data)
        return real_write(fd, data)

    monkeypatch.setattr(os, "write", watched)
    ledger, _ = log_of(tmp_path)
    lines = [line("sent", reply="x" * size) for size in (0, 10, 100_000)]
    for one in lines:
        ledger.append(one)
    ledger.close()
    assert written == [encode(one) for one in lines]


def test_lines_that_belong_together_are_one_write_for_each_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(os, "write", lambda _, data: written.append(data) or len(data))
    ledger, _ = log_of(tmp_path)
    today = [line("accepted"), line("accepted", to=("bob@example.net",))]
    with ledger.together():
        for one in (*today, line("sent", at="2026-11-23T00:00:00.000000Z")):
            ledger.append(one)
        assert written == []
    ledger.append(today[0])
    ledger.close()
    sent = encode(line("sent", at="2026-11-23T00:00:00.000000Z"))
    assert written == [b"".join(map(encode, today)), sent, encode(today[0])]
    assert days(tmp_path) == ["20261122", "20261123"]


def test_a_line_that_cannot_be_encoded_takes_no_other_of_its_group_with_it(tmp_path: Path) -> None:
    ledger, _ = log_of(tmp_path)
    with ledger.together():
        ledger.append(line("accepted"))
        with pytest.raises(TypeError):
            ledger.append(line("sent", reason=object()))
        ledger.append(line("sent"))
    ledger.close()
    assert [found.event for found in read_day(tmp_path, "20261122")] == ["accepted", "sent"]


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").touch()
    (tmp_path / "20261122.jsonl").symlink_to(tmp_path / "victim")
    ledger, trouble = log_of(tmp_path)
    ledger.append(line("sent"))
    assert (tmp_path / "victim").read_bytes() == b""
    assert len(trouble) == 1


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_what_is_no_file_is_not_written_to_nor_waited_for(tmp_path: Path, make: object) -> None:
    make(tmp_path / "20261122.jsonl")  # type: ignore[operator]
    ledger, trouble = log_of(tmp_path)
    ledger.append(line("sent"))
    assert len(trouble) == 1


def test_text_that_is_no_utf_8_is_escaped_and_not_raised(tmp_path: Path) -> None:
    """An address as a hostile client sent it, decoded with surrogateescape."""
    ledger, trouble = log_of(tmp_path)
    ledger.append(line("rejected", to=("b\udcffb@example.net",), sender="\udc80", reply="501 5.1.3 ü"))
    ledger.close()
    (found,) = read_day(tmp_path, "20261122")
    assert found.to == ("b\\udcffb@example.net",)
    assert (found.sender, found.reply) == ("\\udc80", "501 5.1.3 ü")
    assert not trouble


def test_unknown_fields_are_ignored_and_the_null_sender_is_kept() -> None:
    found = decode(b'{"at":"2026-11-22T21:45:01Z","event":"sent","from":"","mood":["good"]}\n')
    assert found == line("sent", "2026-11-22T21:45:01Z", sender="")
    assert msgspec.to_builtins(found)["from"] == ""


def test_closing_twice_closes_nothing_else(tmp_path: Path) -> None:
    ledger, _ = log_of(tmp_path)
    ledger.append(line("sent"))
    ledger.close()
    reused = os.open(tmp_path, os.O_RDONLY)
    ledger.close()
    os.fstat(reused)
    os.close(reused)
