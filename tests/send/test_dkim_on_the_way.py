"""What real mail servers make of our mail on the way does not break its signatures."""

import smtplib
import time

import pytest
from outbound.signing import MESSAGE, name_server, sign, signer, write_key
from testbed.dkim_verifiers import VERIFIERS, mailauth
from testbed.exim import Exim
from testbed.postfix import Postfix

from mailer.send.dkim.keys import KeyType

ODD = {
    "plain": MESSAGE,
    "8-bit": MESSAGE.replace(b"Hello", "Grüße".encode()).replace(b"a subject", "Ä".encode()),
    "dots": MESSAGE + b".\r\n..\r\n.dot\r\n",
    "no end": MESSAGE + b"no end",
    "no body": MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n\r\n",
    "blanks": MESSAGE + b" \t\r\n\r\n \r\n",
    "a long line": MESSAGE + b"x" * 900 + b"\r\n",
}


@pytest.fixture
def keys(tmp_path):
    return write_key(tmp_path, "rsa", KeyType.RSA2048), write_key(tmp_path, "ed", KeyType.ED25519)


def signed(keys) -> list[bytes]:
    signing = signer(*keys, now=time.time())
    return [sign(signing, message) for message in ODD.values()]


def assert_all_verify(messages: list[bytes], keys) -> None:
    assert len(messages) == len(ODD)
    with name_server(*keys) as server:
        assert mailauth(messages, server) == [{"rsa": "pass", "ed": "pass"}] * len(ODD)
        for name, verify in VERIFIERS.items():
            for verdict in verify(messages, server):
                assert "pass" in verdict.values(), f"{name}: {verdict}"


def test_mail_verifies_as_postfix_received_it(postfix: Postfix, keys):
    with smtplib.SMTP(postfix.host, postfix.port) as client:
        for message in signed(keys):
            client.sendmail("app@example.com", ["bob@example.net"], message, ["BODY=8BITMIME"])
    assert_all_verify([arrival.message for arrival in postfix.await_arrivals(len(ODD))], keys)


def test_mail_verifies_as_exim_received_it(keys):
    with Exim() as exim:
        received = [exim.receive(message) for message in signed(keys)]
    assert all(message.startswith(b"Received:") for message in received)
    assert_all_verify(received, keys)
