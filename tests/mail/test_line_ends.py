"""Bare line ends, however they are looked for."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from mailer.mail.lines import has_bare_line_end

BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


@given(st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"a", b"a" * 40])).map(b"".join))
@example(b"a" * 70 + b"\n\r\n\r\n\r")
@example(b"a" * 70 + b"\r\r\n\n")
@example(b"a" * 70 + b"\n\r")
@example(b"a" * 70 + b"\x0b\x0c\x1c\x1d\x1e\x85\r\n")
def test_a_bare_line_end_is_found_wherever_it_is(data):
    assert has_bare_line_end(data) == bool(BARE.search(data))
