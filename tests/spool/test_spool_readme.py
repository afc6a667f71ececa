"""What spool/README.md tells the person who looks into the spool is so: its example is a real file."""

import os
import re
from pathlib import Path

import pytest

from mailer.mail.clock import seconds
from mailer.mail.outcome import Status
from mailer.maillog.ledger import EVENTS, Line
from mailer.receive.content.header_policy import Arrival, ContentPolicy, Origin, received_field
from mailer.spool.entry import check_message, read_entry
from mailer.spool.journal import Kind
from mailer.spool.layout import LOCAL, LOG, STATE, Place, bucket_for
from mailer.spool.message_state import Disposition
from mailer.spool.transitions import TRANSITIONS, Move

README = (Path(__file__).parents[2] / "spool/README.md").read_text(encoding="utf-8")
LINES = README.splitlines()


def example() -> bytes:
    start = LINES.index("    Spool-Format: 1")
    length = LINES[start:].index("", LINES[start:].index("") + 1)
    return "".join(line.removeprefix("    ") + "\r\n" for line in LINES[start : start + length]).encode()


def test_the_example_is_a_whole_message_with_the_state_that_the_page_says(tmp_path: Path) -> None:
    raw = example()
    name = raw.partition(b"Spool-Id: ")[2][:26].decode()
    (tmp_path / name).write_bytes(raw)
    fd = os.open(tmp_path / name, os.O_RDONLY)
    try:
        entry = read_entry(fd, name)
        check_message(fd, entry)
    finally:
        os.close(fd)
    origin = Origin("app.example.com", "127.0.0.1", "relay.example.com", True, entry.block.user, False)
    arrival = Arrival(origin, ContentPolicy(), name, seconds("2026-11-22T21:45:01Z"))
    received = received_field(arrival)
    assert raw[entry.offset :].startswith(received)
    statuses = {standing.address: standing.status for standing in entry.state.standings}
    assert statuses == {"bob@example.net": Status.DEFERRED, "eve@example.org": Status.SENT}
    assert entry.state.next
    assert f"`retry/{bucket_for(entry.state.next)}/`" in README
    assert entry.state.disposition(entry.block.received, 3600) is Disposition.WAIT


@pytest.mark.parametrize("name", [*Place, LOCAL, LOG, STATE])
def test_every_directory_is_explained(name: str) -> None:
    assert any(line.startswith(f"      {name}/") for line in LINES)


@pytest.mark.parametrize("word", [*EVENTS, *Line.__struct_encode_fields__])
def test_every_event_and_field_of_the_ledger_is_in_a_table(word: str) -> None:
    if word == "event":
        return
    rows = [line.split("|")[1].replace(",", "").split() for line in LINES if line.startswith("| `")]
    assert any(f"`{word}`" in names for names in rows)


@pytest.mark.parametrize("move", Move)
def test_every_move_is_in_the_table_with_where_it_leads(move: Move) -> None:
    (row,) = [
        line
        for line in LINES
        if line.startswith("| ") and move in line.split("|")[1].replace(",", "").split()
    ]
    sources, destination = TRANSITIONS[move]
    assert (destination or "deleted") in row.split("|")[3]
    if move is not Move.REMOVE:
        assert set(row.split("|")[2].replace(",", "").split()) == {place.value for place in sources}


@pytest.mark.parametrize("kind", Kind)
def test_every_line_of_the_journal_is_explained(kind: Kind) -> None:
    assert f"`{kind}`" in README or f'"event":"{kind}"' in README


def test_every_promise_has_tests_and_each_of_them_exists() -> None:
    start = LINES.index("## Which test holds which promise")
    rows = [line.split("|")[1:3] for line in LINES[start:] if line.startswith("| ") and "---" not in line][1:]
    known = {
        name
        for file in Path(__file__).parents[1].rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(rows) > 30
    for promise, tests in rows:
        named = re.findall(r"`(test_\w+)`", tests)
        assert named, promise
        assert set(named) <= known, (promise, set(named) - known)
