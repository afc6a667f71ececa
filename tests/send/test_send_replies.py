import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailer.mail.reply import Reply
from mailer.send.smtp.replies import MAX_LINE, MAX_LINES, BadReply, ReplyReader


def read(*pieces: bytes) -> list[Reply | str]:
    """The replies, and the word "bad" where the stream goes bad."""
    reader, found = ReplyReader(), []
    for piece in pieces:
        reader.feed(piece)
        try:
            while reply := reader.next():
                found.append(reply)
        except BadReply:
            return [*found, "bad"]
    return found


def test_a_reply_of_several_lines_is_one_reply():
    assert read(b"250-a\r\n250-b\r\n250 c\r\n220 next\r\n") == [
        Reply(250, ("a", "b", "c")),
        Reply(220, ("next",)),
    ]


def test_a_reply_in_gb18030_is_readable_and_other_octets_are_kept():
    words = "用户不存在".encode("gb18030")
    assert read(b"550 " + words + b"\r\n550 Skrzynka pe\xb3na\r\n") == [
        Reply(550, ("用户不存在",)),
        Reply(550, ("Skrzynka pe\\xb3na",)),
    ]


def test_a_code_alone_and_a_bare_line_feed_are_understood():
    assert read(b"250\r\n", b"354 go\n") == [Reply(250, ("",)), Reply(354, ("go",))]


def test_bytes_that_are_no_utf8_stay_visible():
    assert read(b"550 caf\xc3\xa9 \xff\r\n") == [Reply(550, ("café \\xff",))]


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\r\n",
        b"\r\n",
        b"25\r\n",
        b"2500 x\r\n",
        b"250_x\r\n",
        b"150 x\r\n",
        b"650 x\r\n",
        b"000 x\r\n",
        b"250 a\0b\r\n",
        b"250-a\r\n550 b\r\n",
        b"\xff\xf4\xff\xfd\x06\r\n",
    ],
)
def test_what_is_no_reply_is_refused(garbage):
    assert read(b"220 ok\r\n" + garbage) == [Reply(220, ("ok",)), "bad"]


def test_a_line_is_bounded_whether_or_not_it_ends():
    fits = b"250 " + b"x" * (MAX_LINE - 6) + b"\r\n"
    assert len(fits) == MAX_LINE
    assert read(fits) != ["bad"]
    assert read(b"250 x" + fits[4:]) == ["bad"]
    assert read(b"250 " + b"x" * MAX_LINE) == ["bad"]


def test_the_lines_of_a_reply_are_bounded():
    assert read(b"250-x\r\n" * (MAX_LINES - 1) + b"250 x\r\n") != ["bad"]
    assert read(b"250-x\r\n" * (MAX_LINES + 1)) == ["bad"]


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [b"250 ok\r\n", b"250-a\r\n250 b\r\n", b"421\r\n", b"250-a\r\n", b"\r\n", b"2", b"\r", b"\n"]
            ),
            st.sampled_from([b"250 " + b"y" * n + b"\r\n" for n in range(MAX_LINE - 8, MAX_LINE - 3)]),
            st.binary(max_size=8),
        ),
        max_size=8,
    ),
    st.data(),
)
def test_however_a_stream_is_cut_the_replies_are_the_same(pieces, data):
    stream = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(*parts) == read(stream)
