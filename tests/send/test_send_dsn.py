"""A notification stays one, whatever clients and servers have said: its parts, its lines, its recipients."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outbound.bounces import read
from spools.strategies import NOW, addresses, envelopes

from mailer.config.model import Config
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Status
from mailer.mail.reply import Reply
from mailer.send.dsn.fields import status_code
from mailer.send.dsn.owed import Action, Told, destination
from mailer.send.dsn.report import LARGEST_COPY, compose, header_of
from mailer.send.dsn.subject import Letterhead, Subject
from mailer.spool.message_state import Standing

OURS = Letterhead("01M82KGEY3WBBXBFP3K78QFDBH", "relay.example.com", "app@example.com", NOW)

nasty = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["\r\nBcc: x@y", "--=_01M82KGEY3WBBXBFP3K78QFDBH--", "\x1b[2J", "\x00", "x" * 5000, " ", "\ud800"]
    ),
)
replies = st.one_of(nasty, st.builds(lambda text: str(Reply(550, (f"5.1.1 {text}",))), nasty))
orcpts = st.one_of(
    st.just(""),
    st.builds("rfc822;{}".format, addresses),
    st.sampled_from(
        ["utf-8;b\\x{F8}b@x.example", "utf-8;\\x{D800}@x", "rfc822;a+0D+0AX-Evil:+20b@x", ";", "x"]
    ),
)
recipients = st.builds(Recipient, addresses, st.just(""), orcpts)
hops = st.sampled_from(
    ["", "nowhere.test", "mx.example.net[192.0.2.1]:25", "127.0.0.1:25", "::1:25", "a\r\nb:25"]
)
standings = st.builds(
    Standing,
    recipients,
    st.sampled_from([Status.BOUNCED, Status.EXPIRED]),
    replies,
    hops,
    doubted=st.just("") | hops,
)
cases = st.lists(standings, min_size=1, max_size=4, unique_by=lambda s: s.address)
originals = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"Subject: hi\r\nMessage-ID: <a@b>\r\n\r\nbody\r\n",
            "Subject: grüße\r\n\r\nbody".encode(),
            b"Subject: a\r\n\tb\r\n\r\n--=_01M82KGEY3WBBXBFP3K78QFDBX\r\n",
            b"Message-ID: <a\x1b@b>\r\nSubject: \x1b[2J\r\n\r\n",
        ]
    ),
)


@pytest.mark.exhaustive
@given(envelopes, cases, originals, st.booleans())
def test_whatever_was_said_the_parts_are_three_and_the_recipients_who_they_are(
    envelope, standings, original, whole
) -> None:
    copy = original if whole else header_of(original)
    about = Subject("01M82KGEY3WBBXBFP3K78QFDBX", envelope, NOW, NOW + 432_000, copy, whole)
    raw = compose(about, [Told(standing, Action.FAILED) for standing in standings], OURS)
    end = copy + b"\r\n--=_01M82KGEY3WBBXBFP3K78QFDBH--\r\n"
    assert raw.endswith(end)
    ours = raw.removesuffix(end)
    assert ours.count(b"\r") == ours.count(b"\n") == ours.count(b"\r\n")
    assert max(map(len, ours.split(b"\r\n"))) <= 998
    notification = read(raw, [])
    assert list(notification.recipients) == [standing.address for standing in standings]
    assert notification.copy == copy
    assert {fields["Action"] for fields in notification.recipients.values()} == {"failed"}
    for standing in standings:
        code = r"4\.4\.2" if standing.handed_to else r"5\.\d+\.\d+"
        assert re.fullmatch(code, notification.recipients[standing.address]["Status"])
    assert not any(
        name in fields for fields in notification.recipients.values() for name in ("Bcc", "X-Evil")
    )
    assert "Bcc" not in notification.header


@pytest.mark.parametrize(
    ("status", "action", "reply", "code"),
    [
        (Status.BOUNCED, Action.FAILED, "550 5.1.1 unknown", "5.1.1"),
        (Status.BOUNCED, Action.FAILED, "550 unknown", "5.0.0"),
        (Status.BOUNCED, Action.FAILED, "554 4.7.1 confused", "5.0.0"),
        (Status.EXPIRED, Action.FAILED, "451 4.7.1 later", "5.4.7"),
        (Status.EXPIRED, Action.FAILED, "Connection refused", "5.4.7"),
        (Status.DEFERRED, Action.DELAYED, "451 4.7.1 later", "4.7.1"),
        (Status.DEFERRED, Action.DELAYED, "Connection refused", "4.0.0"),
        (Status.SENT, Action.RELAYED, "250 2.1.5 ok", "2.1.5"),
        (Status.SENT, Action.RELAYED, "250 ok", "2.0.0"),
        (Status.SENT, Action.DELIVERED, "kept here", "2.0.0"),
    ],
)
def test_the_status_is_the_servers_where_it_fits_and_the_general_one_elsewhere(
    status: Status, action: Action, reply: str, code: str
) -> None:
    assert status_code(Told(Standing(Recipient("bob@example.net"), status, reply), action)) == code


@pytest.mark.parametrize(
    ("message", "header"),
    [
        (b"A: b\r\n\r\nbody", b"A: b\r\n"),
        (b"A: b\r\n", b"A: b\r\n"),
        (b"\r\nbody\r\n\r\nmore", b""),
        (b"", b"\r\n"),
        (b"A: b\r\n" + b"x" * LARGEST_COPY, b"A: b\r\n"),
        (b"x" * LARGEST_COPY, b""),
    ],
)
def test_the_header_is_what_stands_before_the_empty_line_as_far_as_it_was_read(
    message: bytes, header: bytes
) -> None:
    assert header_of(message) == header


@pytest.mark.parametrize("bounce", ["sender", "off", "postmaster@example.com"])
def test_mail_from_the_null_sender_causes_no_notification(bounce: str) -> None:
    """RFC 5321 6.1: it is a notification itself, and two servers would tell each other for ever."""
    assert destination(Config(bounce=bounce))("") == ""
