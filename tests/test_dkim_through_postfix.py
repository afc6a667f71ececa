"""What a real mail server makes of our mail on the way does not break its signatures."""

import smtplib
import time

import pytest
from signing import MESSAGE, name_server, sign, signer, write_key
from testbed.dkim_verifiers import VERIFIERS, mailauth
from testbed.postfix import Postfix

from mailer.send.dkim_keys import KeyType

ODD = {
    "plain": MESSAGE,
    "8-bit": MESSAGE.replace(b"Hello", "Grüße".encode()).replace(b"a subject", "Ä".encode()),
    "dots": MESSAGE + b".\r\n..\r\n.dot\r\n",
    "no end": MESSAGE + b"no end",
    "no body": MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n\r\n",
    "blanks": MESSAGE + b" \t\r\n\r\n \r\n",
    "a long line": MESSAGE + b"x" * 900 + b"\r\n",
}


@pytest.mark.parametrize("what", ODD)
def test_mail_verifies_as_postfix_received_it(postfix: Postfix, tmp_path, what):
    keys = write_key(tmp_path, "rsa", KeyType.RSA2048), write_key(tmp_path, "ed", KeyType.ED25519)
    signed = sign(signer(*keys, now=time.time()), ODD[what])
    with smtplib.SMTP(postfix.host, postfix.port) as client:
        client.sendmail("app@example.com", ["bob@example.net"], signed, ["BODY=8BITMIME"])
    [arrival] = postfix.await_arrivals(1)
    with name_server(*keys) as server:
        assert mailauth([arrival.message], server) == [{"rsa": "pass", "ed": "pass"}]
        for name, verify in VERIFIERS.items():
            [verdict] = verify([arrival.message], server)
            assert "pass" in verdict.values(), f"{name}: {verdict}"
