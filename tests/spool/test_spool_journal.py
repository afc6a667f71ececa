"""The journal's laws: lines are only added, what does not parse does not count, and state is their fold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from spools.strategies import NOW

from mailer.mail.clock import rfc3339
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Status
from mailer.spool.fold import fold
from mailer.spool.journal import OVERDUE, Event, Kind, decode, decode_whole, encode, last_kind
from mailer.spool.message_state import Disposition, State

BOB, EVE = "bob@example.net", "eve@example.org"
RECIPIENTS = (Recipient(BOB), Recipient(EVE))
OUTCOMES = (Kind.SENT, Kind.DEFERRED, Kind.BOUNCED, Kind.EXPIRED, Kind.UNCERTAIN, Kind.COMMITTING)
HORIZON = 3600.0

texts = st.text(max_size=12).filter(lambda text: text.encode("utf-8", "replace").decode() == text)
moments = st.one_of(
    st.floats(0, 4e9).map(rfc3339), st.sampled_from(["", "yesterday", "2026-11-22", "0" * 99])
)
events = st.builds(
    Event,
    at=moments,
    event=st.sampled_from(list(Kind)) | texts,
    to=st.lists(st.sampled_from([BOB, EVE, "mallory@example.org"]), max_size=3).map(tuple),
    reply=texts,
    attempt=st.integers(0, 9),
    next=moments,
    reason=st.sampled_from(["", OVERDUE, "because"]),
    boot=st.sampled_from(["", "boot-1", "boot-2"]),
)
journals = st.lists(events, max_size=6)


def at(seconds: float, kind: str, *to: str, **fields: object) -> Event:
    return Event(at=rfc3339(NOW + seconds), event=kind, to=to, **fields)  # type: ignore[arg-type]


def folded(*lines: Event, boot: str = "boot-1") -> State:
    return fold(RECIPIENTS, (at(0, Kind.ACCEPTED), *lines), boot=boot)


def statuses(state: State) -> dict[str, Status]:
    return {standing.address: standing.status for standing in state.standings}


@given(journals)
def test_lines_read_back_as_they_were_written(lines: list[Event]) -> None:
    assert list(decode(b"".join(map(encode, lines)))) == lines


@given(events)
def test_a_line_is_one_line_whatever_it_holds(line: Event) -> None:
    assert encode(line).find(b"\n") == len(encode(line)) - 1
    assert encode(line).endswith(b"\r\n")


@given(journals, st.data())
def test_a_tail_torn_at_any_byte_changes_nothing_that_whole_lines_say(
    lines: list[Event], data: st.DataObject
) -> None:
    written = b"".join(map(encode, lines))
    torn = written[: data.draw(st.integers(0, len(written)))]
    whole = list(decode(torn))
    # The line end of the last line is not needed to understand it.
    assert whole == lines[: len(whole)]
    assert torn.count(b"\n") <= len(whole) <= torn.count(b"\n") + 1
    assert list(decode(torn + b"\n" + written)) == whole + lines


@given(journals, st.lists(st.tuples(st.integers(0, 6), st.binary(max_size=30)), max_size=4))
def test_lines_that_do_not_parse_are_ignored_wherever_they_stand(
    lines: list[Event], garbage: list[tuple[int, bytes]]
) -> None:
    written = list(map(encode, lines))
    for where, junk in garbage:
        written.insert(where, b"{" + junk.replace(b"\n", b"\r") + b"\xff\n")
    assert list(decode(b"".join(written))) == lines


@pytest.mark.parametrize(
    "line",
    [
        b'{"at":"2026-11-22T21:45:01Z","event":"sent","to":["b\xffb@example.net"]}\r\n',
        b'{"at":"2026-11-22T21:45:01Z","event":"sent","to":["bob@example.net"\r\n',
        b'{"at":"2026-11-22T21:45:01Z","event":"sent","to":"bob@example.net"}\r\n',
        b'{"at":"2026-11-22T21:45:01Z","event":"sent","attempt":' + b"9" * 5000 + b"}\r\n",
        b'{"at":"2026-11-22T21:45:01Z","event":"sent","x":' + b"[" * 100_000 + b"\r\n",
        b'["sent"]\r\n',
        b"null\r\n",
        b"\0" * 200 + b"\r\n",
    ],
    ids=["not UTF-8", "cut", "wrong type", "huge number", "deep", "array", "null", "NULs"],
)
def test_a_damaged_line_neither_counts_nor_stops_the_reader(line: bytes) -> None:
    after = at(1, Kind.DEFERRED, EVE)
    assert list(decode(line + encode(after))) == [after]


def test_unknown_fields_are_ignored() -> None:
    """So that an older runner can read a newer journal."""
    line = b'{"at":"2026-11-22T21:45:01Z","event":"sent","to":["bob@example.net"],"weather":{"sky":[1]}}\r\n'
    assert next(decode(line)).to == (BOB,)


@given(journals, journals)
def test_a_recipient_that_was_sent_never_becomes_open_again(before: list[Event], after: list[Event]) -> None:
    """Not by a late deferral, not by the operator, not by any line: nobody gets a message twice."""
    state = folded(*before, at(1, Kind.SENT, BOB), *after)
    assert statuses(state)[BOB] is Status.SENT


@given(journals)
def test_requeueing_opens_those_that_bounced_or_expired_and_no_others(lines: list[Event]) -> None:
    before = statuses(folded(*lines))
    state = folded(*lines, at(1, Kind.REQUEUED))
    for address, status in statuses(state).items():
        expected = Status.PENDING if before[address] in {Status.BOUNCED, Status.EXPIRED} else before[address]
        assert status is expected
    assert all(standing.next is None for standing in state.open)
    assert (state.kept, state.recoveries, state.deaths_alone, state.since) == ("", 0, 0, NOW + 1)


@given(journals)
def test_requeueing_by_name_makes_waiting_recipients_due_and_changes_nothing_else(lines: list[Event]) -> None:
    before = folded(*lines)
    state = folded(*lines, at(1, Kind.REQUEUED, BOB))
    assert statuses(state) == statuses(before)
    times = [None if s.address == BOB else s.next for s in before.open]
    assert [s.next for s in state.open] == times
    assert (state.kept, state.since, state.overdue) == ("", before.since, before.overdue)


@given(journals)
def test_the_fold_names_the_envelopes_recipients_and_nobody_else(lines: list[Event]) -> None:
    """Whatever a journal says: who gets the message stands in the block, under its digest."""
    assert [standing.recipient for standing in fold(RECIPIENTS, lines).standings] == list(RECIPIENTS)


@pytest.mark.exhaustive
@given(journals, journals)
def test_folding_goes_on_from_where_it_was(first: list[Event], second: list[Event]) -> None:
    """Appending a line changes the state by that line alone: the same lines, however they were grouped."""
    whole = b"".join(map(encode, [*first, *second]))
    assert fold(RECIPIENTS, decode(whole)) == fold(RECIPIENTS, [*first, *second])


@given(journals, st.floats(0, 4e9))
def test_a_message_always_has_one_thing_to_be_done_with(lines: list[Event], now: float) -> None:
    state = folded(*lines)
    disposition = state.disposition(now, HORIZON)
    match disposition:
        case Disposition.HOLD:
            assert state.held
        case Disposition.FINISH:
            assert set(statuses(state).values()) == {Status.SENT}
        case Disposition.FAIL:
            assert not state.open
        case Disposition.ATTEMPT:
            assert state.due(now, HORIZON)
        case Disposition.WAIT:
            assert state.open
            assert state.next is not None
            assert now < state.next <= now + HORIZON


def test_a_recipient_stays_uncertain_until_its_own_outcome() -> None:
    state = folded(
        at(1, Kind.COMMITTING, BOB, EVE, hop="mx1", attempt=1),
        at(2, Kind.SENT, EVE, hop="mx1", attempt=1),
    )
    assert statuses(state) == {BOB: Status.UNCERTAIN, EVE: Status.SENT}
    assert state.standings[0].hop == "mx1"
    assert state.attempts == 1


def test_a_deferral_further_ahead_than_the_longest_back_off_is_due() -> None:
    """A clock was ten years ahead when it was written, or is a year behind now."""
    state = folded(at(1, Kind.DEFERRED, BOB, EVE, next=rfc3339(NOW + 10 * 365 * 86400)))
    assert state.disposition(NOW, HORIZON) is Disposition.ATTEMPT
    assert (
        folded(at(1, Kind.DEFERRED, BOB, EVE, next=rfc3339(NOW + 60))).disposition(NOW, HORIZON)
        is Disposition.WAIT
    )


def test_only_deaths_of_this_boot_count_and_an_outcome_forgives_them() -> None:
    dead = at(1, Kind.RECOVERED, boot="boot-1")
    alone = at(2, Kind.ALONE, boot="boot-1")
    elsewhere = at(0, Kind.RECOVERED, boot="boot-0")
    state = folded(elsewhere, dead, alone, dead, alone, dead)
    assert (state.recoveries, state.deaths_alone) == (3, 2)
    forgiven = folded(dead, alone, dead, at(3, Kind.DEFERRED, BOB))
    assert (forgiven.recoveries, forgiven.deaths_alone) == (0, 0)
    unforgiven = folded(dead, alone, at(3, Kind.COMMITTING, BOB), dead)
    assert (unforgiven.recoveries, unforgiven.deaths_alone) == (2, 1)


@pytest.mark.parametrize("kind", [Kind.RETURNED, Kind.ACCOMPANIED, Kind.DEFERRED, Kind.REQUEUED])
def test_a_death_counts_only_if_the_message_was_alone_until_then(kind: Kind) -> None:
    """A runner that gave it back in order did not die, and who had others beside it may have died of them."""
    dead, alone = at(1, Kind.RECOVERED, boot="boot-1"), at(2, Kind.ALONE, boot="boot-1")
    assert folded(alone).deaths_alone == 0
    assert folded(alone, alone, dead).deaths_alone == 1
    assert folded(alone, at(3, kind, BOB, boot="boot-1"), dead).deaths_alone == 0
    assert folded(alone, at(3, Kind.RECOVERED, boot="boot-2"), dead).deaths_alone == 0


@given(st.binary(max_size=300))
def test_the_last_line_that_can_be_read_says_whether_it_was_given_back(damage: bytes) -> None:
    returned, held = encode(at(1, Kind.RETURNED)), encode(at(2, Kind.HELD))
    for before in (damage, b"", encode(at(0, Kind.RECOVERED))[5:]):
        assert last_kind(before + b"\r\n" + returned + held, {Kind.HELD}) == Kind.RETURNED
        assert last_kind(before + b"\r\n" + returned + held[:-9], set()) == Kind.RETURNED
    assert last_kind(damage.replace(b"{", b""), set()) == ""


def test_the_first_accepted_line_is_the_one_that_counts() -> None:
    """A later one, however it came there, cannot replace the digests."""
    first = Event(at=rfc3339(NOW), event=Kind.ACCEPTED, sha256="a", envelope="b")
    second = Event(at=rfc3339(NOW), event=Kind.ACCEPTED, sha256="c", envelope="d")
    assert fold(RECIPIENTS, [first, second]).accepted == first


def test_hold_and_release_undo_each_other_save_that_no_rule_holds_it_again() -> None:
    lines = (at(1, Kind.DEFERRED, BOB, next=rfc3339(NOW + 60)), at(2, Kind.SENT, EVE))
    held = folded(*lines, at(3, Kind.HELD, reason="held by ann"))
    assert held.disposition(NOW, HORIZON) is Disposition.HOLD
    assert held.held == "held by ann"
    assert folded(*lines, at(3, Kind.HELD), at(4, Kind.RELEASED)) == replace(folded(*lines), released=True)
    assert folded(*lines, at(3, Kind.HELD), at(4, Kind.REQUEUED)).released
    assert not folded(*lines, at(3, Kind.REQUEUED)).released


def test_one_late_reading_of_the_clock_is_remembered_as_overdue_and_the_next_outcome_forgets_it() -> None:
    late = folded(at(1, Kind.DEFERRED, BOB, EVE, reason=OVERDUE))
    assert late.overdue
    assert not folded(at(1, Kind.DEFERRED, BOB, reason=OVERDUE), at(2, Kind.DEFERRED, BOB)).overdue
    assert not folded(at(1, Kind.DEFERRED, BOB, reason=OVERDUE), at(2, Kind.REQUEUED)).overdue


def test_a_notification_is_of_the_end_or_of_the_delay_as_the_recipient_stands_when_it_is_made() -> None:
    first, second = "01M82KGEY3WBBXBFP3K78QFDBH", "01M82KGEY3WBBXBFP3K78QFDBJ"
    lines = [
        at(1, Kind.BOUNCED, BOB),
        at(1, Kind.DEFERRED, EVE),
        at(2, Kind.NOTIFIED, BOB, EVE, notice=first),
        at(3, Kind.NOTIFIED, BOB, notice="../../etc/passwd"),
    ]
    state = folded(*lines)
    assert [(s.notice, s.warned) for s in state.standings] == [(first, ""), ("", first)]
    assert state.notices == (first,)
    # The delay is told once, and the failure too, whatever follows; only success would be news.
    again = (*lines, at(4, Kind.REQUEUED))
    for more in ((), (at(5, Kind.DEFERRED, BOB),), (at(5, Kind.BOUNCED, BOB),)):
        assert [(s.notice, s.warned) for s in folded(*again, *more).standings] == [(first, ""), ("", first)]
    assert folded(*again, at(5, Kind.SENT, BOB)).standings[0].notice == ""
    ended = folded(*lines, at(4, Kind.EXPIRED, EVE), at(5, Kind.NOTIFIED, EVE, notice=second))
    assert [(s.notice, s.warned) for s in ended.standings] == [(first, ""), (second, first)]


@pytest.mark.parametrize(
    ("lines", "handovers"),
    [
        ("committing 1", 1),
        ("uncertain 1", 1),
        ("committing 1, uncertain 1", 1),
        # One attempt may ask twice, for instance with the recipients divided.
        ("committing 1, committing 1", 1),
        ("committing 1, committing 2", 2),
        ("committing 1, uncertain 1, committing 2", 2),
        ("committing 1, uncertain 1, uncertain 2, committing 3", 2),
        ("committing 1, deferred 1, committing 2", 1),
        ("committing 1, uncertain 1, trouble 1, committing 2", 1),
        ("committing 1, uncertain 1, committing 2, deferred 2", 0),
        ("committing 1, uncertain 1, expired 2", 0),
    ],
)
def test_attempts_that_may_have_delivered_are_counted_until_the_hop_answers(
    lines: str, handovers: int
) -> None:
    parts = [line.split() for line in lines.split(", ")]
    state = folded(*(at(1, kind, BOB, attempt=int(number), hop="hop") for kind, number in parts))
    assert state.by_address[BOB].handovers == handovers
    assert state.by_address[EVE].handovers == 0


def test_what_the_operator_allows_lasts_until_it_is_handed_over_again() -> None:
    doubt = at(1, Kind.UNCERTAIN, BOB, attempt=2, hop="hop")
    trouble = at(4, Kind.UNCERTAIN, BOB, attempt=3, hop="hop", reply="connection refused")
    allowed = (doubt, at(2, Kind.HELD), at(3, Kind.RELEASED), trouble)
    assert folded(*allowed).by_address[BOB].allowed
    again = at(5, Kind.COMMITTING, BOB, attempt=4, hop="hop")
    for more in ((again,), (again, at(6, Kind.UNCERTAIN, BOB, attempt=4, hop="hop"))):
        assert not folded(*allowed, *more).by_address[BOB].allowed


@pytest.mark.parametrize("before", [b"\r", b" ", b"\t", b"x"])
def test_both_readers_of_a_journal_agree_on_what_a_line_begins_with(before: bytes) -> None:
    lines = before + encode(at(0, Kind.RETURNED))
    assert decode_whole(lines) == [*decode(lines)]
