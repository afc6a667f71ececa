"""A provider that leads back to us is found out before a message goes there, whatever it is called."""

from typing import Any

import pytest
from outbound.hostile import Server
from outbound.sending import MESSAGE, TO, forward_to, found, outcomes, queue
from testbed.relay import PASSWORD, USERNAME, Relay

from mailer.spool.directory import Spool
from mailer.spool.state import identity

WORDS = "this is mailer's own receiver"


def itself(relay: Relay, **more: Any) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": relay.port, "username": USERNAME, "password": PASSWORD, **more}


@pytest.mark.parametrize("login", [{}, {"username": "", "password": ""}])
def test_the_first_message_does_not_go_round(relay: Relay, login: dict[str, str]) -> None:
    nobody = {"nameservers": ["127.0.0.1:1"], "timeout": "20ms"}
    relay.configure(forward_to(forwardProviders=[itself(relay, **login)], dns=nobody))
    with relay.serve():
        message = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        found_by_doctor = relay.mailer("doctor").stdout
    left = found(relay.spool, message)
    assert left is not None
    assert (outcomes(left), WORDS in left.events[-1]["reply"]) == ([("deferred", (TO,))], True)
    assert list((relay.spool / "new").iterdir()) == []
    assert WORDS in found_by_doctor
    assert "name the server that is to take the mail" in found_by_doctor


def test_another_provider_takes_the_mail(relay: Relay) -> None:
    with Server() as server, relay.serve():
        relay.configure(
            forward_to(forwardProviders=[itself(relay), {"host": "127.0.0.1", "port": server.port}])
        )
        queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        assert server.delivered() == [(TO, MESSAGE)]


def test_another_mailer_takes_our_mail(relay: Relay, tmp_path) -> None:
    directory = tmp_path / "other"
    directory.mkdir()
    other = Relay(directory)
    relay.configure(forward_to(forwardProviders=[itself(other)]))
    with relay.serve(), other.serve():
        queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        (arrived,) = (other.spool / "new").iterdir()
    assert arrived


def test_the_word_is_made_once_and_mended_when_it_is_damaged(tmp_path) -> None:
    with Spool.open(tmp_path / "spool", create=True) as spool:
        assert identity.known(spool) == ""
        word = identity.made(spool)
        assert word == identity.made(spool) == identity.known(spool)
        (tmp_path / "spool" / "state" / "identity").write_text("x")
        assert identity.known(spool) == ""
        assert len(identity.made(spool)) == 16
