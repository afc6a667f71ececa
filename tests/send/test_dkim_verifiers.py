"""Verifiers that are not ours take our signatures, and refuse what was changed.

`MAILER_DKIM_MESSAGES=10000 pytest tests/send/test_dkim_verifiers.py` is the long form.
"""

import os
import time

import pytest
from hypothesis import given, settings
from hypothesis.database import InMemoryExampleDatabase
from outbound.signing import MESSAGE, messages, name_server, sign, signer, write_key
from testbed.dkim_verifiers import VERIFIERS

from mailer.config.model import Canonicalization
from mailer.send.dkim.keys import KeyType

COUNT = int(os.environ.get("MAILER_DKIM_MESSAGES", "300"))
# Messages that one process of a verifier judges; ten thousand at once would be a gigabyte.
BATCH = 250
# Which signatures each verifier can judge: Debian's Mail::DKIM and OpenDKIM know no Ed25519.
KNOWN = {"Mail::DKIM": ["rsa"], "opendkim-testmsg": [""], "mailauth": ["rsa", "ed"]}


@pytest.fixture
def keys(tmp_path):
    return write_key(tmp_path, "rsa", KeyType.RSA2048), write_key(tmp_path, "ed", KeyType.ED25519)


def refused(verdicts, verifier) -> list[bool]:
    """For each message, whether every signature that the verifier knows was found bad."""
    return [all(verdict.get(name) not in {"pass", None} for name in KNOWN[verifier]) for verdict in verdicts]


def accepted(verdicts, verifier) -> list[bool]:
    return [all(verdict.get(name) == "pass" for name in KNOWN[verifier]) for verdict in verdicts]


@pytest.mark.parametrize("canonicalization", Canonicalization)
def test_every_verifier_takes_odd_messages(keys, canonicalization):
    signing = signer(
        *keys, now=_now(), canonicalization=canonicalization, headers_to_sign=("From", "X-Twice", "Keywords")
    )
    batch = []

    @settings(max_examples=max(1, COUNT // len(Canonicalization)), database=InMemoryExampleDatabase())
    @given(messages())
    def collect(message):
        batch.append(sign(signing, message))
        if len(batch) == BATCH:
            assert_accepted(batch, server)
            batch.clear()

    with name_server(*keys) as server:
        collect()
        assert_accepted(batch, server)


def assert_accepted(signed, server) -> None:
    for name, verify in VERIFIERS.items():
        verdicts = verify(signed, server)
        wrong = [
            (verdict, message)
            for message, verdict, good in zip(signed, verdicts, accepted(verdicts, name), strict=True)
            if not good
        ]
        assert not wrong, f"{name} refuses {len(wrong)} of {len(signed)}, such as {min(wrong, key=_size)}"


TAMPERINGS = {
    "the body": (b"Hello", b"Hallo"),
    "the body's end": (b"Bye.\r\n", b"Bye.\r\nP.S.: pay now\r\n"),
    "From": (b"From: App", b"From: Boss"),
    "To": (b"<bob@example.net>", b"<eve@example.net>"),
    "Subject": (b"a subject", b"the subject"),
    "Date": (b"21:45:01 +0000\r\nMessage", b"21:45:02 +0000\r\nMessage"),
    "Message-ID": (b"<1@example.com>", b"<2@example.com>"),
    "Content-Type": (b"text/plain", b"text/html"),
    "the signatures' expiry": (b"x=1", b"x=2"),
    "the signatures' list of fields": (b"h=From:From:", b"h=From:"),
    "a second From": (b"From: App", b"From: eve@example.net\r\nFrom: App"),
    "a second From at the end": (b"\r\n\r\nHello", b"\r\nFrom: eve@example.net\r\n\r\nHello"),
    "a second Subject": (b"Subject:", b"Subject: another\r\nSubject:"),
    "a second To": (b"To:", b"To: <eve@example.net>\r\nTo:"),
    "a Cc where there was none": (b"To:", b"Cc: <eve@example.net>\r\nTo:"),
    "a Reply-To where there was none": (b"To:", b"Reply-To: <eve@example.net>\r\nTo:"),
    "a transfer encoding": (b"MIME-V", b"Content-Transfer-Encoding: base64\r\nMIME-V"),
    "a List-Unsubscribe-Post": (b"To:", b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nTo:"),
}


@pytest.mark.security_case(79)
@pytest.mark.parametrize("verifier", VERIFIERS)
def test_every_verifier_refuses_what_was_tampered_with(keys, verifier):
    whole = sign(signer(*keys, now=_now()), MESSAGE)
    tampered = []
    for before, after in TAMPERINGS.values():
        assert before in whole
        tampered.append(whole.replace(before, after))
    with name_server(*keys) as server:
        assert accepted(VERIFIERS[verifier]([whole], server), verifier) == [True]
        verdicts = VERIFIERS[verifier](tampered, server)
    taken = [what for what, bad in zip(TAMPERINGS, refused(verdicts, verifier), strict=True) if not bad]
    assert taken == []


@pytest.mark.parametrize("verifier", VERIFIERS)
def test_every_verifier_refuses_a_signature_that_has_expired(keys, verifier):
    day = 86_400
    expired = sign(signer(*keys, now=_now() - 2 * day, signature_expiry=day), MESSAGE)
    valid = sign(signer(*keys, now=_now() - 2 * day, signature_expiry=3 * day), MESSAGE)
    endless = sign(signer(*keys, now=_now() - 365 * day, signature_expiry=0), MESSAGE)
    with name_server(*keys) as server:
        verdicts = VERIFIERS[verifier]([expired, valid, endless], server)
    assert refused(verdicts, verifier) == [True, False, False]
    assert accepted(verdicts[1:], verifier) == [True, True]


def _now() -> float:
    return time.time()


def _size(wrong) -> int:
    return len(wrong[1])
