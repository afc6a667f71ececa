"""Keys, messages and signers for the DKIM tests."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from hypothesis import strategies as st
from testbed.dkim_verifiers import loopback_address
from testbed.name_server import NameServer, txt

from mailer.config.model import Dkim, DkimKey
from mailer.send.dkim.key_files import write_new
from mailer.send.dkim.keys import KeyType, generate, parse
from mailer.send.dkim.signer import Signer

DOMAIN = "example.com"
NOW = 1_800_000_000.0

MESSAGE = (
    b"Received: from app ([127.0.0.1])\r\n\tby relay with ESMTPA id 01JD;\r\n"
    b"\tSun, 22 Nov 2026 21:45:01 +0000\r\n"
    b"From: App <app@example.com>\r\n"
    b"To: <bob@example.net>\r\n"
    b"Subject: a subject\r\n that is folded\r\n"
    b"Date: Sun, 22 Nov 2026 21:45:01 +0000\r\n"
    b"Message-ID: <1@example.com>\r\n"
    b"MIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"\r\n"
    b"Hello,  \t world.\r\n\r\nBye.\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Held:
    """A message as the spool would hand it out."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


@cache
def pem(name: str, kind: KeyType) -> bytes:
    """A private key; the same for the same name, because RSA keys take a while to make."""
    assert name
    return generate(kind)


def write_key(directory: Path, selector: str, kind: KeyType, *, domain: str = DOMAIN) -> DkimKey:
    """Put a key and its record where the tests want them."""
    private = pem(f"{selector}@{domain}", kind)
    path = directory / domain / f"{selector}.private"
    write_new(path, private, parse(private).record)
    return DkimKey(domain=domain, selector=selector, private_key_path=path)


def record_of(key: DkimKey) -> str:
    assert key.private_key_path is not None
    return parse(key.private_key_path.read_bytes()).record


def zone_of(*keys: DkimKey) -> Mapping[tuple[str, str], list[str]]:
    return {(f"{key.selector}._domainkey.{key.domain}", "TXT"): [txt(record_of(key))] for key in keys}


def signer(*keys: DkimKey, now: float = NOW, **settings) -> Signer:
    return Signer(Dkim(enabled=True, keys=keys, **settings), lambda: now)


def sign(signing: Signer, message: bytes) -> bytes:
    """The message as the next hop gets it, which the SMTP client gives its last line end if need be."""
    end = b"" if message.endswith(b"\r\n") else b"\r\n"
    return signing.sign(Held(message)) + message + end


def name_server(*keys: DkimKey) -> NameServer:
    """A name server with the keys' records on port 53 of an address of its own."""
    address = loopback_address()
    try:
        return NameServer(zone_of(*keys), host=address, port=53)
    except PermissionError:
        pytest.fail(
            "opendkim-testmsg asks port 53 and no other: run the tests as root, or type "
            "sysctl net.ipv4.ip_unprivileged_port_start=53"
        )


# Lines of printable ASCII, of 8-bit text, of blanks; a few that are long.
_text = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
_eight_bit = st.text(st.sampled_from("äöü€漢字🎉 ab"), max_size=20)
_blanks = st.text(st.sampled_from(" \t"), max_size=6)
_long = st.builds(
    lambda piece, times: piece * times, st.sampled_from(["x", " ", "a ", "\t ", ".é"]), st.integers(1, 40_000)
)
_line = st.builds(
    lambda start, text, end: (start + text + end).encode(),
    _blanks,
    st.one_of(_text, _text, _text, _eight_bit, _blanks, _long),
    _blanks,
)
_body = st.lists(_line, max_size=12).map(b"\r\n".join)
_end = st.sampled_from([b"", b"\r\n", b"\r\n\r\n", b"\r\n \t\r\n\r\n", b" \r\n"])

# A continuation line of blanks alone is obsolete (RFC 5322 4.2), and verifiers disagree about it.
_word = st.one_of(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=30),
    st.text(st.sampled_from("äöü€漢字🎉"), min_size=1, max_size=8),
)
_fold = st.sampled_from([" ", "  ", "\t", "\r\n ", "\r\n\t", " \r\n  ", "\r\n \t "])
_value = st.builds(
    lambda lead, words, tail: (lead + words + tail).encode(),
    st.sampled_from([" ", "", "  ", "\t", "\r\n "]),
    st.lists(st.tuples(_word, _fold), max_size=8).map(
        lambda pairs: "".join(w + f for w, f in pairs).rstrip("\r\n \t")
    ),
    st.sampled_from(["", " ", "\t", "  "]),
)
_optional = st.lists(
    st.builds(
        lambda name, value: name + b":" + value + b"\r\n",
        st.sampled_from(
            [b"X-Twice", b"x-twice", b"Received", b"Comments", b"Keywords", b"X-Other", b"List-Unsubscribe"]
        ),
        _value,
    ),
    max_size=6,
)
_subject = st.builds(
    lambda name, value: name + b":" + value + b"\r\n", st.sampled_from([b"Subject", b"SUBJECT"]), _value
)
_from = st.sampled_from(
    [
        b"From: app@example.com\r\n",
        b"From:App <app@example.com>\r\n",
        b"FROM: =?utf-8?q?=C3=A4?=\r\n\t<app@EXAMPLE.com>\r\n",
        'From: "Ä, (x) <y@z>" <app@example.com>\r\n'.encode(),
        b"From: (a comment (nested)) app@example.com (the app) \r\n",
    ]
)
_date = st.just(b"Date: Sun, 22 Nov 2026 21:45:01 +0000\r\n")


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Odd messages, each of which a standards-minded verifier takes."""
    fields = [draw(_from), draw(_date), *draw(_optional)]
    if draw(st.booleans()):
        fields.append(draw(_subject))
    if draw(st.booleans()):
        fields.append(b"To: <bob@example.net>,\r\n <eve@example.org>\r\n")
    header = b"".join(draw(st.permutations(fields)))
    return header + b"\r\n" + draw(_body) + draw(_end)
