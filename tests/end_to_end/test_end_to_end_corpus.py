"""Real mail goes through the relay in one session, and arrives with every byte it had."""

import re
import shutil
from pathlib import Path

import pytest
from outbound.destinations import DESTINATIONS, trust_provider
from outbound.real_mail import (
    Mail,
    hard_mail,
    internationalized,
    python_corpus,
    submit,
    with_large_attachment,
)
from spools.walk import walk
from testbed.relay import Relay

QUEUED = re.compile(r"2\.0\.0 Ok: queued as ([0-9A-Z]{26})")


def submit_in_one_session(relay: Relay, mails: list[Mail]) -> None:
    """Submit them, and see that each is in the spool by the id that the relay answered with."""
    with relay.serve(), relay.connect() as client:
        replies = [QUEUED.fullmatch(submit(client, mail)) for mail in mails]
    assert walk(relay.spool, ("new",)).keys() == {reply[1] for reply in replies if reply}
    assert all(replies)


def run(relay: Relay) -> None:
    """One run, without a word of warning."""
    done = relay.mailer_send("--once")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(autouse=True)
def _trusting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in trust_provider(tmp_path).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("name", DESTINATIONS)
def test_every_message_of_pythons_corpus_and_all_hard_mail_arrives_byte_for_byte(
    name: str, relay: Relay, tmp_path: Path
) -> None:
    mails = python_corpus() + hard_mail()
    assert len(mails) > 50
    with DESTINATIONS[name](relay, tmp_path) as destination:
        submit_in_one_session(relay, mails)
        done = relay.mailer_send("--once")
        expected = destination.keeps(mails)
        assert destination.arrived(len(expected)) == expected
    # OpenSMTPD refuses messages whose header is none, from anybody.
    refused = {recipient for mail in mails for recipient in mail.recipients} - expected.keys()
    assert (done.returncode, bool(done.stderr)) == (0, bool(refused))
    assert len(refused) < 5 if name == "OpenSMTPD" else not refused
    left = [status for message in walk(relay.spool).values() for status in message.statuses.items()]
    assert sorted(left) == [(recipient, "bounced") for recipient in sorted(refused)]


UNDERSTOOD = [
    *("local Maildir", "Postfix", "Exim with STARTTLS"),
    *("npm smtp-server with STARTTLS", "aiosmtpd with STARTTLS"),
]


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_addresses_and_headers_beyond_ascii_arrive_where_they_are_understood(
    name: str, relay: Relay, tmp_path: Path
) -> None:
    mails = internationalized()
    with DESTINATIONS[name](relay, tmp_path) as destination:
        submit_in_one_session(relay, mails)
        run(relay)
        assert walk(relay.spool) == {}
        expected = destination.keeps(mails)
        assert destination.arrived(len(expected)) == expected


@pytest.mark.parametrize("name", ["smtp-sink", "OpenSMTPD"])
def test_mail_beyond_ascii_is_not_sent_to_a_provider_without_smtputf8_and_the_operator_sees_why(
    name: str, relay: Relay, tmp_path: Path
) -> None:
    mails = internationalized()
    with DESTINATIONS[name](relay, tmp_path) as destination:
        submit_in_one_session(relay, mails)
        assert relay.mailer_send("--once").returncode == 0
        assert destination.arrived(0) == {}
    left = walk(relay.spool)
    assert {message.recipients for message in left.values()} == {mail.recipients for mail in mails}
    for message in left.values():
        assert (message.place, set(message.statuses.values())) == ("failed", {"bounced"})
        assert "SMTPUTF8" in relay.mailer("spool", "why", message.name).stdout


@pytest.mark.parametrize("name", ["local Maildir", "Postfix"])
def test_a_20_mb_attachment_arrives_byte_for_byte(name: str, relay: Relay, tmp_path: Path) -> None:
    relay.configure({"maxMessageSize": "32MiB"})
    mails = [with_large_attachment()]
    with DESTINATIONS[name](relay, tmp_path) as destination:
        submit_in_one_session(relay, mails)
        run(relay)
        expected = destination.keeps(mails)
        assert destination.arrived(1) == expected
    shutil.rmtree(relay.directory)  # pytest would keep it
