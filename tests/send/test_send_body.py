import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailer.send.smtp.body import DotStuffer


def encode(*blocks: bytes) -> bytes:
    stuffer = DotStuffer()
    return b"".join([*(stuffer.encode(block) for block in blocks), stuffer.end()])


def received(wire: bytes) -> bytes:
    """What a strict server makes of it: up to the first lone dot, which must be the end."""
    assert re.search(rb"(?:\A|\r\n)\.\r\n", wire).end() == len(wire), "a message that ends before its end"
    return re.sub(rb"(?m)^\.", b"", wire[:-3])


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (b"", b".\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b"a\r\n.\r\n..b\r\n", b"a\r\n..\r\n...b\r\n.\r\n"),
        (b"a.b\r\n", b"a.b\r\n.\r\n"),
    ],
)
def test_dots_at_line_starts_are_doubled_and_the_last_line_is_ended(message, wire):
    assert encode(message) == wire


@pytest.mark.security_case(32)
@pytest.mark.parametrize(
    "smuggled",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r.\n",
        b"\r.\r\n",
        b"\n.\r",
        b"\r\n.\r",
        b"\r\n.\r\r\n",
        b"\r\r\n.\r\r\n",
    ],
)
def test_no_bare_line_end_reaches_the_wire_at_whatever_place_it_is_cut(smuggled):
    message = b"a" + smuggled + b"MAIL FROM:<x@y>\r\n"
    for cut in range(len(message) + 1):
        wire = encode(message[:cut], message[cut:])
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n", wire)
        assert b"MAIL FROM:<x@y>" in received(wire)
        assert wire == encode(message)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.sampled_from([b".", b"\r\n", b"a", b"..", b"\xff", b"\0"]), max_size=30), st.data())
def test_the_receiver_gets_the_bytes_that_were_sent(pieces, data):
    message = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(message)), max_size=4)))
    blocks = [message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True)]
    whole = message if message.endswith(b"\r\n") or not message else message + b"\r\n"
    assert received(encode(*blocks)) == whole
