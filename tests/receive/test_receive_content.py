"""Headers as bytes, From fields, and whether there is room."""

import asyncio
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.mail import header
from mailer.mail.author import mailboxes
from mailer.mail.header import MAX_HEADER, HeaderReader, HeaderTooLarge
from mailer.mail.patterns import AddressPatterns, can_match
from mailer.receive import replies
from mailer.receive.content.fault import Fault
from mailer.receive.space import Space
from mailer.spool.directory import Spool

lines = st.lists(
    st.sampled_from([b"A: b\r\n", b" folded\r\n", b"\r\n", b"junk\r\n", b"from : x\r\n", b"From: y\r\n"])
)


def split(pieces: list[bytes]) -> tuple[bytes, bytes]:
    reader = HeaderReader()
    while pieces:
        if (found := reader.feed(pieces.pop(0))) is not None:
            return found[0], found[1] + b"".join(pieces)
    return reader.finish(), b""


@pytest.mark.parametrize("fault", Fault)
def test_each_fault_has_a_reply_that_refuses_the_message_permanently(fault: Fault) -> None:
    assert replies.content_refused(fault).permanent


@given(lines, st.integers(1, 9))
def test_a_header_ends_at_the_first_empty_line_wherever_it_is_cut(texts, size):
    message = b"".join(texts)
    at = texts.index(b"\r\n") if b"\r\n" in texts else len(texts)
    expected = b"".join(texts[:at]), b"".join(texts[at:])
    assert split([message[i : i + size] for i in range(0, len(message), size)]) == expected


@given(lines)
def test_fields_are_counted_with_and_without_blanks_before_the_colon(texts):
    head = b"".join(text for text in texts if text != b"\r\n")
    expected = sum(text.lower().startswith(b"from") for text in texts)
    assert header.counts(head, (b"from", b"a")) == {b"from": expected, b"a": texts.count(b"A: b\r\n")}


@given(lines)
def test_dropping_fields_leaves_every_other_byte(texts):
    head = b"".join(text for text in texts if text != b"\r\n")
    kept, dropping = [], False
    for text in (text for text in texts if text != b"\r\n"):
        dropping = text == b"A: b\r\n" or (dropping and text == b" folded\r\n")
        kept += [] if dropping else [text]
    assert header.without(head, (b"a",)) == b"".join(kept)


def test_a_header_without_end_is_given_up_at_its_limit():
    reader = HeaderReader()
    assert reader.feed(b"x" * MAX_HEADER) is None
    with pytest.raises(HeaderTooLarge):
        reader.feed(b"x")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b" a@example.com", ["a@example.com"]),
        (
            b' "A, B" <a@example.com>,\r\n C. D. <c@example.com> (c (nested) x)',
            ["a@example.com", "c@example.com"],
        ),
        (b' "a b"@example.com', ['"a b"@example.com']),
        (b" x <a@[192.0.2.1]>", ["a@[192.0.2.1]"]),
        ("Grüße <grüße@example.com>".encode(), ["grüße@example.com"]),
        (b"", None),
        (b" a@example.com,", None),
        (b" a@example.com b@example.com", None),
        (b" <a@example.com", None),
        (b' "a <b@example.com>', None),
        (b" (a <b@example.com>", None),
        (b" x: a@example.com;", None),
        (b" <@h:a@example.com>", None),
        (b' ("x) a@example.com (") <b@example.com>', None),
    ],
)
def test_a_from_field_is_read_with_certainty_or_not_at_all(value, expected):
    found = mailboxes(value)
    assert (None if found is None else [address for _, address in found]) == expected


def test_a_from_field_longer_than_any_is_not_read_and_takes_no_memory():
    value = b'""' * 250_000 + b" <a@d.example>"
    tracemalloc.start()
    try:
        assert mailboxes(value) is None
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@given(st.text(alphabet='a@.<>(),;:"\\ \r\n\t=?é', max_size=60))
def test_each_address_read_from_a_from_field_stands_in_it(text):
    for _, address in mailboxes(text.encode()) or []:
        assert address in text.replace("\r\n", "") or "(" in text


@pytest.mark.parametrize(
    "text",
    [
        '"' * 60_000,
        "(" * 60_000,
        "a," * 30_000,
        "a@b," * 15_000,
        "<" * 60_000,
        "a " * 30_000,
        '"\\' * 30_000,
    ],
)
def test_the_worst_from_field_is_read_in_linear_time(text):
    began = time.process_time()
    mailboxes(text.encode())
    assert time.process_time() - began < 5  # a quadratic one needs a minute


def test_patterns_are_addresses_domains_or_everybody():
    some = AddressPatterns.of(("a@Example.com", "@example.org", "example.net"))
    taken = ["A@example.COM", "x@example.org", "y@EXAMPLE.net"]
    assert all(some.match(address) for address in taken)
    assert not any(
        some.match(address) for address in ["b@example.com", "x@sub.example.org", "example.net", ""][:2]
    )
    assert AddressPatterns.of(("*",)).match("whoever")


def test_a_pattern_covers_a_domain_in_each_of_its_spellings():
    # IDNA does not encode the last: its letters are folded all the same.
    some = AddressPatterns.of(
        ("a@b\u00fccher.example", "xn--mller-kva.example", "Host_1.b\u00fccher.example")
    )
    taken = ["a@B\u00dcCHER.example", '"A"@xn--bcher-kva.example', "x@m\u00fcller.example"]
    taken += ["bob@host_1.B\u00dcCHER.example"]
    assert [address for address in taken if not some.match(address)] == []
    passed = ["b@b\u00fccher.example", "a@bucher.example", "x@y.m\u00fcller.example"]
    assert [address for address in passed if some.match(address)] == []


def test_a_pattern_that_nobody_could_mean_is_told_from_one_that_can_match():
    can = (
        "*",
        "a@example.com",
        "root@myhost",
        "example.com",
        "@example.com",
        "localhost",
        "b\u00fccher.example",
    )
    assert [pattern for pattern in can if not can_match(pattern)] == []
    cannot = (
        "",
        "@",
        "nodomain",
        "@nodomain",
        "*@example.com",
        "*.example.com",
        "a b@example.com",
        "x..y",
        "a@",
    )
    assert [pattern for pattern in cannot if can_match(pattern)] == []


def test_mail_that_would_leave_too_little_room_is_not_taken(tmp_path):
    with Spool.open(tmp_path / "spool", create=True) as spool:
        free = spool.free_space().octets or 0
        plenty = Space(spool, min_free=0, max_queued=0, now=time.monotonic)
        assert not plenty.lacks_room(0)
        assert plenty.lacks_room(2 * free)
        assert Space(spool, min_free=2 * free, max_queued=0, now=time.monotonic).lacks_room(0)


def test_the_queue_is_full_when_as_many_wait_wherever_they_wait(tmp_path):
    with Spool.open(tmp_path / "spool", create=True) as spool:
        (spool.path / "retry" / "20260101T0000Z").mkdir()
        for place in ("new", "cur", "retry/20260101T0000Z"):
            (spool.path / place / "x").touch()

        async def full(most: int, more: int) -> bool:
            space = Space(spool, min_free=0, max_queued=most, now=time.monotonic)
            await space.count()
            for _ in range(more):
                space.accepted()
            return space.queue_is_full()

        assert [asyncio.run(full(*case)) for case in ((0, 0), (3, 0), (4, 0), (4, 1))] == [
            False,
            True,
            False,
            True,
        ]
