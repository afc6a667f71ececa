"""The DATA reader, against a reference that reads one character at a time."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.config.receiving import LongLines
from mailer.receive.content.data import DataReader, Fault

ALPHABET = [b"\r", b"\n", b".", b"\0", b"a"]
END = b"\r\n.\r\n"


def reference(stream: bytes) -> tuple[bytes, bytes] | None:
    """Split a stream, after the line of DATA, into the stuffed message and the rest; None: no end yet."""
    end = (b"\r\n" + stream).find(END)
    return None if end < 0 else (stream[:end], stream[end + 3 :])


def faults(message: bytes) -> set[Fault]:
    found = set()
    if b"\0" in message:
        found.add(Fault.NUL)
    without_pairs = message.replace(b"\r\n", b"")
    if b"\r" in without_pairs or b"\n" in without_pairs:
        found.add(Fault.BARE_LINE_END)
    return found


def unstuffed(message: bytes) -> bytes:
    lines = message.split(b"\r\n")
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)


def fed(pieces, *, max_size=10**9, long_lines=LongLines.PASS):
    """Feed pieces until the reader is done; return it, its output, and what was never fed."""
    reader = DataReader(max_size=max_size, long_lines=long_lines)
    out = bytearray()
    left = list(pieces)
    while left and not reader.done:
        out += reader.feed(left.pop(0))
    return reader, bytes(out), b"".join(left)


def agrees(stream: bytes, pieces) -> None:
    reader, out, unfed = fed(pieces)
    expected = reference(stream)
    assert reader.done == (expected is not None)
    if expected is None:
        return
    message, rest = expected
    assert reader.rest + unfed == rest
    if found := faults(message):
        assert reader.fault in found
    else:
        assert reader.fault is None
        assert out == unstuffed(message)
        assert reader.size == len(out)


def test_every_short_stream_is_read_as_the_reference_reads_it_at_every_split():
    """All strings up to six characters, ended properly: whole, in single bytes, and cut once anywhere."""
    for length in range(7):
        for characters in product(ALPHABET, repeat=length):
            stream = b"".join(characters) + b"\r\n.\r\nQUIT\r\n"
            agrees(stream, [stream])
            agrees(stream, [stream[i : i + 1] for i in range(len(stream))])
            if length <= 4:
                for cut in range(1, len(stream)):
                    agrees(stream, [stream[:cut], stream[cut:]])


pieces_of_mail = st.sampled_from([b"\r\n", b".", b"..", b"a", b"\r", b"\n", b"\0", b"text " * 30, END])


@pytest.mark.security_case(28)
@given(st.lists(pieces_of_mail, max_size=30), st.lists(st.integers(1, 40), max_size=60))
def test_any_stream_cut_anywhere_is_read_as_the_reference_reads_it(words, sizes):
    stream = b"".join(words) + END
    pieces, start = [], 0
    for size in sizes:
        pieces.append(stream[start : start + size])
        start += size
    agrees(stream, [piece for piece in [*pieces, stream[start:]] if piece])


lines = st.lists(st.binary(max_size=40).map(lambda line: line.translate(None, b"\0\r\n")))


@given(lines, st.integers(1, 7))
def test_a_clean_message_comes_out_as_it_went_in_when_stuffed(texts, size):
    message = b"".join(line + b"\r\n" for line in texts)
    stuffed = b"".join((b"." + line if line.startswith(b".") else line) + b"\r\n" for line in texts)
    stream = stuffed + b".\r\n"
    reader, out, _ = fed([stream[i : i + size] for i in range(0, len(stream), size)])
    assert (reader.done, reader.fault, out) == (True, None, message)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000, 10**6])
@pytest.mark.parametrize(
    ("lengths", "fault"),
    [
        ([998, 998, 0, 998], None),
        ([999], Fault.LONG_LINE),
        ([10, 999, 10], Fault.LONG_LINE),
        ([998] * 9 + [1500], Fault.LONG_LINE),
        ([3000], Fault.LONG_LINE),
        ([1] * 2000, None),
    ],
)
def test_a_line_over_998_octets_is_found_at_any_split(lengths, fault, size):
    stream = b"".join(b"x" * length + b"\r\n" for length in lengths) + b".\r\n"
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
    reader, _, _ = fed(pieces, long_lines=LongLines.REJECT)
    assert (reader.done, reader.fault) == (True, fault)


@given(st.lists(st.integers(0, 2500), min_size=1, max_size=6), st.integers(1, 1200))
def test_long_lines_are_found_as_a_reader_of_lines_finds_them(lengths, size):
    stream = b"".join(b"x" * length + b"\r\n" for length in lengths) + b".\r\n"
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
    reader, _, _ = fed(pieces, long_lines=LongLines.REJECT)
    assert reader.fault == (Fault.LONG_LINE if max(lengths) > 998 else None)


@pytest.mark.parametrize("size", [1, 4, 100])
def test_the_size_limit_counts_the_unstuffed_octets_exactly(size):
    stream = b"..23456789\r\n" * 2 + b".\r\n"
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
    assert fed(pieces, max_size=22)[0].fault is None
    assert fed(pieces, max_size=21)[0].fault is Fault.TOO_BIG


def test_after_a_fault_nothing_is_kept_but_the_end_is_still_found():
    reader = DataReader(max_size=10, long_lines=LongLines.PASS)
    assert reader.feed(b"x" * 100) == b""
    assert reader.feed(b"y" * 100_000) == b""
    assert len(reader._held) <= 4
    assert reader.feed(b"\r\n.\r\nNOOP\r\n") == b""
    assert (reader.done, reader.fault, reader.rest) == (True, Fault.TOO_BIG, b"NOOP\r\n")
