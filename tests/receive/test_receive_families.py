"""`localhost` is 127.0.0.1 and ::1: we listen on both, or say who else does (security case 106)."""

import json
import smtplib
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from inbound.receiving import CLOSED, PASSWORD, USER, running
from testbed.ports import free_port
from testbed.relay import PASSWORD as RELAY_PASSWORD
from testbed.relay import USERNAME as RELAY_USER
from testbed.relay import Relay

MAIL = "From: a@example.com\r\n\r\nhello\r\n"


def greet(listening: socket.socket) -> None:
    """Until the socket is shut down."""
    with suppress(OSError):
        while True:
            with listening.accept()[0] as client:
                client.sendall(b"220 squatter ESMTP\r\n")


@pytest.fixture
def squatter() -> Iterator[int]:
    """Another program on ::1, at a port that is free on 127.0.0.1; it greets as an SMTP server does."""
    port = free_port()
    with socket.socket(socket.AF_INET6) as listening:
        listening.bind(("::1", port))
        listening.listen()
        greeting = threading.Thread(target=greet, args=(listening,))
        greeting.start()
        yield port
        listening.shutdown(socket.SHUT_RDWR)
        greeting.join()


@pytest.mark.security_case(106)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_both_addresses_of_localhost_take_mail(tmp_path: Path, host: str) -> None:
    with running(tmp_path, replace(CLOSED, host=host)) as receiver:
        assert sorted(address for address, _ in receiver.server.addresses) == ["127.0.0.1", "::1"]
        [port] = {port for _, port in receiver.server.addresses}
        for address in ("127.0.0.1", "::1", "localhost"):
            with smtplib.SMTP(address, port, timeout=60) as client:
                client.login(USER, PASSWORD)
                client.sendmail("a@example.com", ["b@example.net"], MAIL)


@pytest.mark.security_case(106)
def test_another_program_on_the_other_address_is_reported_at_the_start_and_by_doctor(
    relay: Relay, squatter: int
) -> None:
    relay.configure({"smtpPort": squatter})
    with relay.starting("serve") as server:
        server.await_port(squatter)
        with smtplib.SMTP("127.0.0.1", squatter, timeout=60) as client:
            client.login(RELAY_USER, RELAY_PASSWORD)
        assert f"address=[::1]:{squatter}" in server.output().replace('"', "")
        assert "another program listens there" in server.output()
        done = relay.mailer("doctor", "--offline", "--json")
    assert done.returncode == 1
    found = [json.loads(line) for line in done.stdout.splitlines()]
    [told] = [each for each in found if each["about"] == f"[::1]:{squatter}"]
    assert told["grade"] == "problem"
    assert "220 squatter ESMTP; applications that are set to localhost" in told["found"]


def test_an_address_of_the_network_is_not_joined_by_others(tmp_path: Path, elsewhere: str) -> None:
    settings = replace(CLOSED, host=elsewhere, local_only=False)
    with running(tmp_path, settings) as receiver:
        assert [address for address, _ in receiver.server.addresses] == [elsewhere]
