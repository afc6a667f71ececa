"""Requests to submit mail that are unusual, or that two servers may read differently."""

import socket

import pytest
from inbound.submitting import (
    MESSAGE,
    RAW_HEAD,
    TOKEN,
    Door,
)

# Octets as they are sent, and the status; every one ends the connection but those that are 202.
SMUGGLED: dict[str, tuple[str, int]] = {
    "both lengths": (
        f"{RAW_HEAD}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        400,
    ),
    "two lengths": (f"{RAW_HEAD}Content-Length: 5\r\nContent-Length: 6\r\n\r\nFrom:x", 400),
    "one length twice": (f"{RAW_HEAD}Content-Length: 5\r\nContent-Length: 5\r\n\r\nFrom:", 400),
    "lengths in a list": (f"{RAW_HEAD}Content-Length: 5, 5\r\n\r\nFrom:", 400),
    "a signed length": (f"{RAW_HEAD}Content-Length: +5\r\n\r\nFrom:", 400),
    "a hexadecimal length": (f"{RAW_HEAD}Content-Length: 0x5\r\n\r\nFrom:", 400),
    "another coding": (f"{RAW_HEAD}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "an unknown coding": (f"{RAW_HEAD}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "a coding twice": (
        f"{RAW_HEAD}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a coding behind a tab": (
        f"{RAW_HEAD}Transfer-Encoding:\tchunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a name with a blank": (f"{RAW_HEAD}Content-Length : 5\r\n\r\nFrom:", 400),
    "a folded field": (f"{RAW_HEAD}X: y\r\n Transfer-Encoding: chunked\r\n\r\n", 400),
    "bare line feeds": (f"{RAW_HEAD}Content-Length: 5\r\n\r\nFrom:".replace("\r\n", "\n"), 400),
    "a chunk without a size": (f"{RAW_HEAD}Transfer-Encoding: chunked\r\n\r\nx\r\nFrom:\r\n0\r\n\r\n", 400),
    "a chunk of minus one": (f"{RAW_HEAD}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n0\r\n\r\n", 400),
    "a chunk that overflows": (f"{RAW_HEAD}Transfer-Encoding: chunked\r\n\r\n{'f' * 17}\r\n", 400),
    "chunks in HTTP/1.0": (
        f"{RAW_HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".replace("HTTP/1.1", "HTTP/1.0"),
        400,
    ),
    "two hosts": (f"{RAW_HEAD}Host: localhost\r\nContent-Length: 0\r\n\r\n", 400),
    "a whole address as target": (RAW_HEAD.replace("POST ", "POST http://localhost") + "\r\n", 400),
    "another protocol": ("EHLO client.example\r\nMAIL FROM:<a@example.com>\r\n\r\n", 400),
    "a head without end": (RAW_HEAD + "".join(f"X-{at}: {'y' * 4000}\r\n" for at in range(10)), 431),
    "a field that is too long": (f"{RAW_HEAD}X: {'y' * 10_000}\r\n\r\n", 400),
    "a hundred fields": (RAW_HEAD + "".join(f"X-{at}: y\r\n" for at in range(100)) + "\r\n", 400),
    "a NUL in a field": (f"{RAW_HEAD}X: \0\r\n\r\n", 400),
}


@pytest.mark.security_case(128)
def test_a_request_that_two_servers_may_read_differently_is_refused_and_ends_the_connection(
    door: Door,
) -> None:
    for name, (request, status) in SMUGGLED.items():
        with door.connect() as connection:
            connection.sendall(request.encode())
            with connection.makefile("rb") as answers:
                said = answers.read()
        # Once: what stands behind it is nobody's request.
        assert said.count(b"HTTP/1.") == 1, (name, said)
        assert said[:12].split()[1:] == [str(status).encode()], (name, said)
        assert b"application/problem+json" in said, name
    assert door.receiver.messages() == []
    assert door.receiver.leftovers() == []


def test_requests_that_are_unusual_and_clear_are_answered(door: Door) -> None:
    """Pipelined, of HTTP/1.0, half closed, or with a body that waits to be asked for."""
    whole = f"{RAW_HEAD}Content-Length: {len(MESSAGE)}\r\n\r\n".encode() + MESSAGE
    with door.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(whole * 3)
        connection.shutdown(socket.SHUT_WR)
        assert answers.read().count(b"HTTP/1.1 202 Accepted") == 3
    assert door.exchange(whole.replace(b"HTTP/1.1", b"HTTP/1.0")).status == 202
    waiting = f"{RAW_HEAD}Expect: 100-continue\r\nContent-Length: {len(MESSAGE)}\r\n\r\n".encode()
    with door.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(waiting)
        assert answers.readline() == b"HTTP/1.1 100 Continue\r\n"
        connection.sendall(MESSAGE)
        assert answers.readline() == b"\r\n"
        assert answers.readline() == b"HTTP/1.1 202 Accepted\r\n"
    # Who may not send is told so before the message is on its way.
    stranger = waiting.replace(TOKEN.encode(), b"mt_x").replace(b"b@example.net", b"b@-example")
    assert door.exchange(stranger).status == 401
    with door.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(waiting.replace(b"b@example.net", b"b@-example"))
        # Unprocessable Entity, or Content: so it is since RFC 9110, and in Python since 3.13.
        assert answers.readline().startswith(b"HTTP/1.1 422 Unprocessable ")
    # Nothing comes of what ends too early, and that is said at once.
    assert door.exchange(whole[:-1], half_close=True).status == 400
    assert len(door.receiver.messages()) == 5
