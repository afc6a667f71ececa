"""A server that answers in the middle of the message has answered the message, and nothing else."""

import asyncio
import select
import socket
import ssl
import struct
from collections.abc import Callable

import pytest
import trustme
from outbound.hostile import DROP, RESET, Server, said
from outbound.outgoing import Letter, deliver, hop_to
from outbound.sending import MESSAGE, TO, forward_to, found, outcomes, queue
from spools.walk import walk
from testbed.relay import Relay

from mailer.mail.outcome import Scope, Status
from mailer.send.smtp.hop import StartTls
from mailer.send.smtp.read_first import ReadFirst

TOO_BIG = "552 5.3.4 message too big"
LARGE = MESSAGE + b"line\r\n" * 3_500_000
"""More than the kernel's buffers take (up to 4 MB here and 6 MB there, tcp(7)): the dot is still with us when
the server has had enough."""
WAYS: dict[str, Callable[[str], object]] = {
    "and closes": lambda reply: said(reply, DROP),
    "and resets": lambda reply: said(reply, RESET),
    "and reads on": lambda reply: reply,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (TOO_BIG, "bounced"),
        ("554 5.6.0 no such content here", "bounced"),
        ("451 4.7.1 look again later", "deferred"),
    ],
)
def test_a_refusal_in_the_middle_of_the_message_is_about_this_message(
    relay: Relay, reply: str, outcome: str, way: str
) -> None:
    """Not trouble of the host, which would be tried again for days, and no doubt: the dot was not sent."""
    with Server({"body": WAYS[way](reply)}, body_after=10_000) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool, message=LARGE)
        assert relay.mailer_send("--once").returncode == 0
        server.wait()
        assert server.messages == [], "the dot was sent nevertheless"
        assert queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        assert server.delivered() == [(TO, MESSAGE)], "the provider is taken to be well"
    left = found(relay.spool, message)
    assert left is not None
    assert outcomes(left) == [(outcome, (TO,))]
    assert (left.events[-1]["reply"], left.events[-1]["scope"]) == (reply, "message")


def test_what_was_too_big_for_one_provider_goes_to_the_next(relay: Relay) -> None:
    with Server({"body": said(TOO_BIG, RESET)}, body_after=10_000) as first, Server() as second:
        relay.configure(forward_to(first, second))
        message = queue(relay.spool, message=LARGE)
        assert relay.mailer_send("--once").returncode == 0
        assert second.delivered() == [(TO, LARGE)]
    assert found(relay.spool, message) is None


def test_the_servers_own_trouble_in_the_middle_of_the_message_stays_the_servers(relay: Relay) -> None:
    with Server({"body": said("452 4.3.1 disk full", DROP)}, body_after=10_000) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool, message=LARGE)
        assert relay.mailer_send("--once").returncode == 0
    left = found(relay.spool, message)
    assert left is not None
    assert outcomes(left) == [("deferred", (TO,))]
    assert left.events[-1]["scope"] == "host"


def test_a_second_answer_to_one_message_is_not_taken_for_an_answer_to_the_next(relay: Relay) -> None:
    """The dot was under way when the server refused, and it refuses once more when it comes to the dot."""

    def refuse_again(_session: object, _line: bytes) -> str:
        (client,) = server._open
        client.recv(1, socket.MSG_PEEK)  # Until the next transaction has begun.
        return TOO_BIG

    script = {"body": [TOO_BIG, None], "dot": [refuse_again, None]}
    with Server(script, body_after=10) as server:
        relay.configure(forward_to(server, sending={"maxSessionsPerHop": 1}))
        queue(relay.spool)
        queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        assert server.delivered() == [(TO, MESSAGE)]
    assert sorted(message.place for message in walk(relay.spool).values()) == ["failed"]


@pytest.mark.parametrize("tls", ["clear", "TLS"])
@pytest.mark.parametrize("way", WAYS)
def test_a_refusal_is_read_though_writing_fails_first(way: str, tls: str) -> None:
    """The reply and the reset may both arrive between two looks at the socket."""
    context, terms = None, {}
    if tls == "TLS":
        terms = {"starttls": StartTls.REQUIRED, "verify": False}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert("127.0.0.1").configure_cert(context)
    with Server({"body": WAYS[way](TOO_BIG)}, body_after=10_000, tls=context) as server:
        for _ in range(10):
            [outcome] = asyncio.run(deliver(hop_to(server, **terms), Letter(LARGE)))
            assert (outcome.status, outcome.scope, outcome.reply) == (Status.BOUNCED, Scope.MESSAGE, TOO_BIG)


@pytest.mark.parametrize("write", ["send", "sendmsg"])
def test_what_a_peer_said_before_it_reset_the_connection_is_read_before_a_write_fails(write: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ReadFirst() as client:
        client.connect(listener.getsockname())
        peer, _ = listener.accept()
        peer.sendall(TOO_BIG.encode())
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        poll = select.poll()
        poll.register(client, 0)
        assert poll.poll(60_000)
        with pytest.raises(BlockingIOError):
            client.send(b"x") if write == "send" else client.sendmsg([b"x"])
        assert client.recv(100) == TOO_BIG.encode()
        with pytest.raises(ConnectionError):
            client.send(b"x") if write == "send" else client.sendmsg([b"x"])
