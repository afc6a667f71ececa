"""SMTP smuggling, end to end: through us to Postfix, Exim and OpenSMTPD, and what these pass on.

Each sequence that some server somewhere takes for the end of a message stands in the middle of one, with the
envelope of a second message behind it. Whoever is at the far end may see one message for each that we
accepted, and never the second one.
"""

import smtplib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from inbound.smuggling import SEQUENCES
from outbound import hostile
from testbed.namespaced import Exim, OpenSmtpd
from testbed.postfix import Postfix
from testbed.relay import Relay
from testbed.waiting import until

SMUGGLED = (
    b"MAIL FROM:<smuggler@example.org>\r\nRCPT TO:<v@example.org>\r\nDATA\r\nSubject: smuggled\r\n\r\n.\r\n"
)


@contextmanager
def behind_postfix() -> Iterator:
    with Postfix() as postfix:
        yield postfix.port, lambda: [arrival.sender for arrival in postfix.arrivals()]


@contextmanager
def behind(server) -> Iterator:
    with hostile.Server() as end, server(end.port) as hop:
        yield hop.port, lambda: [message.sender for message in end.messages if message.accepted]


HOPS = {"postfix": behind_postfix, "exim": lambda: behind(Exim), "opensmtpd": lambda: behind(OpenSmtpd)}


@pytest.mark.security_case(17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27)
@pytest.mark.parametrize("hop", HOPS)
def test_what_we_accept_is_one_message_behind_every_next_hop(relay: Relay, hop: str) -> None:
    with HOPS[hop]() as (port, senders):
        relay.configure(
            {
                "forwardSMTP": True,
                "forwardProviders": [{"host": "127.0.0.1", "port": port, "insecureSkipVerify": True}],
            }
        )
        with relay.serve():
            accepted = sum(submitted(relay, sequence) for sequence in SEQUENCES)
        # In chunks a dot is text; of DATA, what is not a trick: two dots, and a dot with a blank.
        assert accepted == 2 + 3
        assert relay.mailer_send("--once").returncode == 0
        until(lambda: len(senders()) >= accepted, "the messages at the far end")
        assert senders() == ["app@example.com"] * accepted


def submitted(relay: Relay, sequence: bytes) -> int:
    """Submit a message with this in the middle by DATA, and one by BDAT; return how many were accepted."""
    message = b"Subject: x\r\n\r\nA" + sequence + SMUGGLED
    accepted = 0
    if sequence != b"\r\n.\r\n":
        with relay.connect() as client:
            envelope(client)
            client.docmd("DATA")
            client.send(message.removesuffix(b".\r\n") + b"\r\n.\r\n")
            accepted += client.getreply()[0] == 250
    with relay.connect() as client:
        envelope(client)
        client.send(b"BDAT %d LAST\r\n" % len(message) + message)
        accepted += client.getreply()[0] == 250
    return accepted


def envelope(client: smtplib.SMTP) -> None:
    client.mail("app@example.com")
    client.rcpt("bob@example.net")
