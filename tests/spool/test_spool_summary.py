"""A glance never says anything else than a full look, and is enough for what is ordinary."""

import os
import time
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spools.strategies import NOW, accept, envelope, envelopes, receive

from mailer.mail.clock import rfc3339
from mailer.mail.envelope import Envelope, Recipient
from mailer.spool.directory import Spool
from mailer.spool.journal import Event, Kind, encode
from mailer.spool.layout import Place
from mailer.spool.scan import QUEUE
from mailer.spool.view.inspect import Seen, listing
from mailer.spool.view.summary import Summary, of_seen, summaries

PLACES = (*QUEUE, Place.SENT)
LATER = 3600.0
"""Added to the clock: what was just made has then lain there for long."""

ORDINARY = (
    *(Kind.SENT, Kind.DEFERRED, Kind.BOUNCED, Kind.COMMITTING, Kind.AS_BEFORE, Kind.TROUBLE),
    *(Kind.HELD, Kind.RELEASED),
)


def seen_at_a_glance(spool: Spool) -> list[Seen | Summary]:
    return sorted(summaries(spool, time.time() + LATER, PLACES), key=lambda found: found.id)


def looked_at(spool: Spool) -> list[Seen]:
    return sorted(listing(spool, time.time() + LATER, PLACES), key=lambda found: found.id)


def lines_for(addresses: list[str]) -> st.SearchStrategy[list[Event]]:
    moments = st.floats(0, 4e9).map(rfc3339)
    return st.lists(
        st.builds(
            Event,
            at=moments,
            event=st.sampled_from(ORDINARY) | st.sampled_from([*ORDINARY, *Kind, "novel"]),
            to=st.lists(st.sampled_from([*addresses, "mallory@example.org"]), max_size=3).map(tuple),
            hop=st.sampled_from(["", "mx[192.0.2.1]:25"]),
            reply=st.sampled_from(["", "451 4.7.1 Später", "550 no"]),
            attempt=st.integers(0, 3),
            next=moments | st.just("") | moments | st.sampled_from(["yesterday", "2026-11-22"]),
            reason=st.sampled_from(["", "because"]),
            notice=st.just("01JD0M3Q5V8Z7X2C4B6N8M0K1J"),
        ),
        max_size=6,
    )


@pytest.mark.exhaustive
@settings(max_examples=200)
@given(
    envelopes | st.just(envelope("bob@example.net", "eve@example.org")),
    st.sampled_from([b"", b"x", b"\r\n" * 5000]),
    st.sampled_from([b"", b'{"at":']),
    st.data(),
)
def test_a_glance_shows_what_a_full_look_shows(
    to_whom: Envelope, message: bytes, torn: bytes, data: st.DataObject
) -> None:
    lines = data.draw(lines_for([recipient.address for recipient in to_whom.recipients]))
    place = data.draw(st.sampled_from(["new", "hold", "failed", "retry/20261122T2145Z", "sent/20261122"]))
    with TemporaryDirectory() as root, Spool.open(Path(root), create=True) as spool:
        name = receive(spool, message, to_whom, NOW)
        path = spool.path / "new" / name
        with path.open("ab") as file:
            file.write(b"".join(map(encode, lines)) + torn)
        (spool.path / place).mkdir(exist_ok=True)
        path.rename(spool.path / place / name)
        assert list(map(of_seen, seen_at_a_glance(spool))) == list(map(of_seen, looked_at(spool)))


def test_deferred_mail_is_seen_at_a_glance(tmp_path: Path) -> None:
    """Short or long, with two recipients, after trouble with one hop, thrice: a glance is enough."""
    for message in (b"Subject: x\r\n\r\nhello\r\n", b"X" * 70_000):
        name = accept(tmp_path, message, "bob@example.net", "eve@example.org")
        with (tmp_path / "new" / name).open("ab") as file:
            to, at = ("bob@example.net",), rfc3339(NOW)
            file.write(encode(Event(at=at, event=Kind.TROUBLE, to=to, reply="Connection refused", attempt=1)))
            file.write(encode(Event(at=at, event=Kind.DEFERRED, to=to, reply="451", attempt=1, next=at)))
            for attempt in (2, 3):
                file.write(encode(Event(at=at, event=Kind.AS_BEFORE, attempt=attempt, next=at)))
    with Spool.open(tmp_path) as spool:
        found = seen_at_a_glance(spool)
    assert [isinstance(one, Summary) for one in found] == [True, True]


@pytest.mark.parametrize("again", [(), ("eve@example.org",)])
def test_recipients_that_are_deferred_as_before_are_seen_as_by_a_full_look(
    tmp_path: Path, again: tuple[str, ...]
) -> None:
    """One of two is deferred as before in the second attempt; the other has another due time."""
    name = accept(tmp_path, b"Subject: x\r\n\r\nhello\r\n", "bob@example.net", "eve@example.org")
    with (tmp_path / "new" / name).open("ab") as file:
        for to, attempt, due in (("eve@example.org", 1, NOW), ("bob@example.net", 2, NOW + 60)):
            deferred = Event(
                at=rfc3339(NOW), event=Kind.DEFERRED, to=(to,), attempt=attempt, next=rfc3339(due)
            )
            file.write(encode(deferred))
        after = rfc3339(NOW + 120)
        file.write(encode(Event(at=after, event=Kind.AS_BEFORE, to=again, attempt=2, next=after)))
    with Spool.open(tmp_path) as spool:
        (at_a_glance,), (looked,) = seen_at_a_glance(spool), looked_at(spool)
    assert at_a_glance == of_seen(looked)
    assert isinstance(at_a_glance, Summary)
    assert at_a_glance.next == NOW + 60, "of the one that was not deferred again"


@pytest.mark.parametrize("found", [b"Spool-Recipient: <bob", b'"sha256"', b'"event"', b"Spool-Id: "])
def test_a_flipped_bit_is_reported_as_by_a_full_look(tmp_path: Path, found: bytes) -> None:
    path = tmp_path / "new" / accept(tmp_path, b"Subject: x\r\n\r\nhello\r\n", "bob@example.net")
    data = bytearray(path.read_bytes())
    data[data.index(found) + len(found) - 1] ^= 1
    path.write_bytes(data)
    with Spool.open(tmp_path) as spool:
        (at_a_glance,), (looked,) = seen_at_a_glance(spool), looked_at(spool)
    assert of_seen(at_a_glance) == of_seen(looked)
    assert isinstance(at_a_glance, Summary) or at_a_glance.reason == looked.reason


@pytest.mark.exhaustive
@settings(max_examples=300)
@example(b"127", 0, b"\xff", "insert")
@given(
    st.sampled_from([b"Spool-", b": ", b"\r\n", b"<", b">", b"@", b"0000000021", b"FAILURE", b"2026"]),
    st.integers(0, 12),
    st.sampled_from(
        [b"", b"\r\n", b"\n", b"\r", b" ", b">", b"<", b'"', b"\xff", "ß".encode(), b"X-More: y\r\n"]
    ),
    st.sampled_from(["replace", "insert"]),
)
def test_an_odd_block_is_shown_as_by_a_full_look(found: bytes, which: int, put: bytes, how: str) -> None:
    """Also if its digest is right, which tells damage from what another program wrote."""
    to_whom = Envelope(
        "app@example.com", (Recipient("bob@example.net", "FAILURE"), Recipient("eve@example.org"))
    )
    with TemporaryDirectory() as root, Spool.open(Path(root), create=True) as spool:
        path = spool.path / "new" / receive(spool, b"Subject: x\r\n\r\nhello\r\n", to_whom, NOW)
        whole = path.read_bytes()
        block = whole[: whole.index(b"Subject: ")]
        starts = [at for at in range(len(block)) if block.startswith(found, at)]
        at = starts[which % len(starts)]
        odd = block[:at] + put + block[at + (len(found) if how == "replace" else 0) :]
        right, wrong = (sha256(each).hexdigest().encode() for each in (odd, block))
        path.write_bytes(odd + whole[len(block) :].replace(wrong, right))
        (at_a_glance,), (looked,) = seen_at_a_glance(spool), looked_at(spool)
        assert of_seen(at_a_glance) == of_seen(looked)
        assert isinstance(at_a_glance, Summary) or at_a_glance.reason == looked.reason


def test_a_listing_does_not_touch_the_time_of_access(tmp_path: Path) -> None:
    path = tmp_path / "new" / accept(tmp_path)
    os.utime(path, (NOW, NOW + 1))
    with Spool.open(tmp_path) as spool:
        seen_at_a_glance(spool)
    assert path.stat().st_atime == NOW
