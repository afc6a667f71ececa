"""Canonical forms: the same as dkimpy's, whatever the pieces, in linear time and bounded memory."""

import tracemalloc

import pytest
from dkim.canonicalization import Relaxed, Simple
from hypothesis import example, given
from hypothesis import strategies as st

from mailer.send.dkim.canonical import BodyCanonicalizer, header_field

DKIMPY = {True: Relaxed, False: Simple}


class Collector:
    def __init__(self):
        self.data = b""

    def update(self, data):
        self.data += data


class Counter:
    def __init__(self):
        self.size = 0

    def update(self, data):
        self.size += len(data)


def canonical(pieces, *, relaxed) -> bytes:
    sink = Collector()
    body = BodyCanonicalizer(sink, relaxed=relaxed)
    for piece in pieces:
        body.update(piece)
    body.finish()
    return sink.data


# Few different tokens, so that what matters to line ends meets; bare CR and LF are ordinary characters.
tokens = st.lists(
    st.sampled_from([b" ", b"\t", b"\r\n", b"\r\n", b"\r", b"\n", b"x", b"\x0b", b"\xe4", b"\0"])
)
pieces = st.lists(tokens.map(b"".join))


@given(pieces=pieces, relaxed=st.booleans())
@example(pieces=[b"\r\n \r\n\r\t"], relaxed=True)  # a bare CR that a blank sets off from the end
def test_a_body_in_pieces_is_what_dkimpy_makes_of_the_whole(pieces, relaxed):
    body = b"".join(pieces)
    # SMTP gives a last line its end; dkimpy expects to find it there.
    ended = body if body.endswith(b"\r\n") or not body else body + b"\r\n"
    assert canonical(pieces, relaxed=relaxed) == DKIMPY[relaxed].canonicalize_body(ended)


@given(
    name=st.sampled_from([b"Subject", b"SUBJECT", b"subject "]),
    value=st.lists(st.sampled_from([b" ", b"\t", b"\r\n ", b"\r\n\t", b"x", b"\xc3\xa4", b":"])).map(
        b"".join
    ),
    relaxed=st.booleans(),
)
def test_a_header_field_is_what_dkimpy_makes_of_it(name, value, relaxed):
    [(theirs, their_value)] = DKIMPY[relaxed].canonicalize_headers([(name, value + b"\r\n")])
    assert header_field(name, value, relaxed=relaxed) == theirs + b":" + their_value


def test_a_form_feed_is_no_blank():
    """RFC 6376 3.4.2 strips SP and HTAB; dkimpy strips all that Python calls white space."""
    assert header_field(b"X", b" a\x0c", relaxed=True) == b"x:a\x0c\r\n"


@pytest.mark.parametrize(
    ("body", "simple", "relaxed"),
    [
        # RFC 6376 3.4.5, and the empty bodies of 3.4.3 and 3.4.4.
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C \r\nD \t E\r\n", b" C\r\nD E\r\n"),
        (b"", b"\r\n", b""),
        (b"\r\n\r\n", b"\r\n", b""),
        (b" \t", b" \t\r\n", b""),
        (b"no end", b"no end\r\n", b"no end\r\n"),
    ],
)
def test_the_examples_of_the_rfc(body, simple, relaxed):
    assert canonical([body], relaxed=False) == simple
    assert canonical([body], relaxed=True) == relaxed


MiB = 2**20


@pytest.mark.parametrize("relaxed", [True, False], ids=["relaxed", "simple"])
@pytest.mark.parametrize(
    "line", [b"x" * 64, b" " * 64, b"\r\n" * 32, b" \t\r\n" * 16, b"\n" * 64, b" x" * 32]
)
def test_8_mib_of_anything_take_no_memory_and_come_to_an_end(line, relaxed):
    """A quadratic pattern would need hours for the blanks, and a growing buffer 8 MiB."""
    body = BodyCanonicalizer(Counter(), relaxed=relaxed)
    block = line * (64 * 1024 // len(line))
    tracemalloc.start()
    try:
        for _ in range(8 * MiB // len(block)):
            body.update(block)
        body.update(b".")
        body.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MiB
