"""Hypothesis strategies for what a spool file holds, and the shortest way to get one accepted."""

from collections.abc import Iterable
from pathlib import Path

from hypothesis import strategies as st

from mailer.mail.envelope import Envelope, Recipient
from mailer.spool.changes import make_durable
from mailer.spool.directory import Spool
from mailer.spool.incoming import Incoming

NOW = 1_795_383_901.25
"""2026-11-22T21:45:01.25Z."""

_ATEXT = st.sampled_from("abcXYZ019!#$%&'*+/=?^_`{|}~-äß日𝔪")
_QTEXT = st.one_of(
    st.sampled_from(" !#$%&'()*+,./:;<=>?@[]^_`{|}~azAZ09é日-"),
    st.sampled_from(['\\"', "\\\\", "\\>", "\\ ", "\\a"]),
)
dot_strings = st.lists(st.text(_ATEXT, min_size=1, max_size=8), min_size=1, max_size=3).map(".".join)
quoted_strings = st.lists(_QTEXT, max_size=12).map(lambda parts: '"' + "".join(parts) + '"')
domains = st.sampled_from(["example.net", "a.b", "bücher.example", "[192.0.2.1]", "[IPv6:2001:db8::1]", "x"])
addresses = st.builds("{}@{}".format, dot_strings | quoted_strings, domains)
xtexts = st.lists(st.sampled_from(["a", "Z", "9", ";", "@", ".", "=2", "+20", "+2B", "+3D", "<", ">"])).map(
    "".join
)
notifies = st.sampled_from(["", "NEVER", "SUCCESS", "FAILURE,DELAY", "SUCCESS,FAILURE,DELAY"])
recipients = st.builds(Recipient, addresses | st.just("postmaster"), notifies, xtexts)
envelopes = st.builds(
    Envelope,
    sender=addresses | st.just(""),
    recipients=st.lists(recipients, min_size=1, max_size=5, unique_by=lambda r: r.address).map(tuple),
    body=st.sampled_from(["", "7BIT", "8BITMIME"]),
    smtputf8=st.booleans(),
    ret=st.sampled_from(["", "FULL", "HDRS"]),
    envid=xtexts,
)
# Message bytes that look like the parts of a spool file around them.
messages = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [
                b"\r\n",
                b"\n",
                b"\r\nSpool-Length: 0000000001\r\n",
                b"Spool-Format: 1\r\n",
                b"Spool-Recipient: <evil@example.org>\r\n",
                b'\r\n{"at":"2026-11-22T21:45:01Z","event":"sent","to":["a@b"]}\r\n',
            ]
        ),
    ),
    max_size=6,
).map(b"".join)


def envelope(*addresses: str, sender: str = "app@example.com") -> Envelope:
    return Envelope(sender, tuple(map(Recipient, addresses or ("bob@example.net",))))


def receive(spool: Spool, message: bytes | Iterable[bytes], envelope: Envelope, now: float = NOW) -> str:
    """Do all that a receiver does for a message, in this thread; return its id."""
    incoming = Incoming.create(spool, received=now, user="app", peer="127.0.0.1", envelope=envelope)
    for chunk in [message] if isinstance(message, bytes) else message:
        incoming.write(chunk)
    incoming.seal(now)
    make_durable(spool, incoming)
    incoming.release()
    return incoming.id


def accept(
    root: Path, message: bytes = b"Subject: x\r\n\r\nhello\r\n", *addresses: str, now: float = NOW
) -> str:
    """Put one message into the spool at `root`, made if need be; return its id."""
    with Spool.open(root, create=True) as spool:
        return receive(spool, message, envelope(*addresses), now)
