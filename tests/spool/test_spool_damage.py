"""Torn and flipped bytes: what was not accepted byte for byte is never sent."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spools.runner import attempt, claims_of, settle
from spools.strategies import NOW, accept
from spools.walk import walk

from mailer.spool.directory import Spool
from mailer.spool.layout import Place
from mailer.spool.message_state import Disposition

pytestmark = [pytest.mark.fault_row(3), pytest.mark.exhaustive]

RECIPIENTS = ["bob@example.net", "eve@example.org", "deferred@example.net"]
MESSAGE = b"Subject: Payment\r\n\r\nPlease pay 100 to account 12345.\r\n" + b"0123456789abcdef" * 40

many = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
flips = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4)


@pytest.fixture
def whole(spool_path: Path) -> tuple[str, bytes]:
    """A message with a life: its id, and the file's bytes."""
    name = accept(spool_path, MESSAGE, *RECIPIENTS)
    with Spool.open(spool_path) as spool:
        claim = claims_of(spool, NOW).claim(name)
        assert claim
        attempt(claim, NOW)
        claim.locked.release()
    path = spool_path / "cur" / name
    raw = path.read_bytes()
    path.unlink()
    return name, raw


def check_take(root: Path, name: str, raw: bytes) -> None:
    """Claim a damaged file: it is put away as it is, or what is sent of it is as it was accepted."""
    (root / "new" / name).write_bytes(raw)
    told: list[str] = []
    with Spool.open(root) as spool:
        claim = claims_of(spool, NOW, lambda _, reason: told.append(reason)).claim(name)
        if claim is None:
            assert len(told) == 1
            assert (root / "corrupt" / name).read_bytes() == raw
            (root / "corrupt" / name).unlink()
            return
        with claim.locked:
            assert claim.locked.read_message(claim.entry, 0, len(raw)) == MESSAGE
            assert [recipient.address for recipient in claim.entry.envelope.recipients] == RECIPIENTS
            assert claim.entry.envelope.sender == "app@example.com"
            assert [standing.address for standing in claim.entry.state.standings] == RECIPIENTS
            # Whoever appends to it now is understood.
            attempt(claim, NOW)
            assert claim.locked.read().state.attempts >= 1
    (root / "cur" / name).unlink()


@many
@given(flips)
def test_flipped_bytes_are_never_sent(
    spool_path: Path, whole: tuple[str, bytes], flips: list[tuple[float, int]]
) -> None:
    name, raw = whole
    damaged = bytearray(raw)
    for where, mask in flips:
        damaged[int(where * len(raw))] ^= mask
    check_take(spool_path, name, bytes(damaged))


@many
@given(st.floats(0, 1), st.binary(max_size=20) | st.integers(1, 5000).map(bytes))
def test_a_file_cut_at_any_byte_is_never_sent_in_part(
    spool_path: Path, whole: tuple[str, bytes], where: float, tail: bytes
) -> None:
    """Also when something else follows the cut, such as the NULs of blocks that a power cut lost."""
    name, raw = whole
    check_take(spool_path, name, raw[: int(where * len(raw))] + tail)


@many
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_block_moved_elsewhere_in_the_file_is_never_sent(
    spool_path: Path, whole: tuple[str, bytes], first: float, second: float, where: float
) -> None:
    name, raw = whole
    low, high = sorted((int(first * len(raw)), int(second * len(raw))))
    at = int(where * len(raw))
    check_take(spool_path, name, raw[:at] + raw[low:high] + raw[at:])


@many
@given(st.data())
def test_damage_in_the_journal_mails_nobody_who_was_not_accepted_nor_anyone_whose_sent_line_is_whole(
    spool_path: Path, data: st.DataObject
) -> None:
    name = accept(spool_path, MESSAGE, "sent@example.net", "deferred@example.net")
    root = spool_path
    with Spool.open(root) as spool:
        claim = claims_of(spool, NOW).claim(name)
        assert claim
        attempt(claim, NOW)
        claim.locked.release()
        path = root / "cur" / name
        raw = path.read_bytes()
        sent = raw.index(b"{", raw.index(b'"event":"committing"'))
        end = raw.index(b"\n", sent) + 1
        start = claim.entry.offset + claim.entry.length
        first = raw.index(b"\n", start) + 1  # The accepted line stays: without it there is no message.
        spots = [*range(first, sent - 1), *range(end, len(raw))]
        damaged = bytearray(raw)
        for at in data.draw(st.lists(st.sampled_from(spots), min_size=1, max_size=5)):
            if damaged[at] != 0x0A:
                damaged[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != 0x0A))
        path.write_bytes(bytes(damaged))
        recovered = claims_of(spool, NOW).recover(name)
        assert recovered
        mailed: list[str] = []
        if settle(spool, recovered, NOW) is Disposition.ATTEMPT:
            attempt(recovered, NOW, lambda _, address: mailed.append(address))
            settle(spool, recovered, NOW)
    assert set(mailed) <= {"deferred@example.net"}
    for found in walk(root, tuple(Place)).values():
        (root / found.place / found.bucket / found.name).unlink()
