"""The clients that people have submit to the relay, and what they sent arrives wherever it delivers to."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from outbound.destinations import DESTINATIONS, Fates, unchanged
from outbound.real_mail import Mail, hard_mail, internationalized, with_large_attachment
from spools.walk import walk
from testbed.clients import CLIENTS, RefusedError, Server, Submission
from testbed.relay import Relay
from testbed.smtp_sink import SmtpSink


def submit_all(client: str, server: Server, mails: list[Mail], directory: Path) -> None:
    """Each in a session of its own, with a login if the server has one."""
    directory.mkdir()
    for mail in mails:
        CLIENTS[client](server, Submission(mail.sender, mail.recipients, mail.message), directory)


def as_the_client_sends_it(client: str, mails: list[Mail], directory: Path) -> list[Mail]:
    """What it sends where no relay is: swaks ends a message as it likes; the others change nothing."""
    if client != "swaks":
        return mails
    directory.mkdir()
    with SmtpSink(directory / "direct") as sink:
        submit_all(client, sink.server, mails, directory / "files")
        sent = {arrival.recipients: arrival.message for arrival in sink.await_arrivals(len(mails))}
    return [replace(mail, message=sent[mail.recipients]) for mail in mails]


@pytest.mark.parametrize("client", CLIENTS)
def test_what_each_client_submits_arrives_byte_for_byte_at_each_destination(
    client: str, relay: Relay, tmp_path: Path
) -> None:
    """It is submitted once; copies of the spool it is accepted into are then delivered."""
    mails = hard_mail()
    with relay.serve():
        submit_all(client, relay.server, mails, tmp_path / "client")
    assert len(walk(relay.spool, ("new",))) == len(mails)
    expected = as_the_client_sends_it(client, mails, tmp_path / "reference")
    for name in ("local Maildir", "smtp-sink", "Postfix"):
        copy = Relay(shutil.copytree(relay.directory, tmp_path / name))
        with DESTINATIONS[name](copy, tmp_path) as destination:
            assert copy.mailer_send("--once").returncode == 0
            assert walk(copy.spool) == {}
            kept = destination.keeps(expected)
            assert destination.arrived(len(kept)) == kept


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_gets_a_20_mb_attachment_through(client: str, relay: Relay, tmp_path: Path) -> None:
    mails = [with_large_attachment()]
    relay.configure({"maxMessageSize": "32MiB"})
    with relay.serve():
        submit_all(client, relay.server, mails, tmp_path / "client")
    with DESTINATIONS["smtp-sink"](relay, tmp_path) as destination:
        assert relay.mailer_send("--once").returncode == 0
        assert destination.arrived(1) == unchanged(mails)
    # pytest would keep them.
    for directory in (relay.directory, tmp_path / "client", tmp_path / "provider"):
        shutil.rmtree(directory)


@pytest.mark.parametrize("client", ["smtplib", "curl", "nodemailer"])
def test_clients_that_know_smtputf8_submit_addresses_beyond_ascii(
    client: str, relay: Relay, tmp_path: Path
) -> None:
    mails = internationalized()
    with relay.serve():
        submit_all(client, relay.server, mails, tmp_path / "client")
    with DESTINATIONS["Postfix"](relay, tmp_path) as destination:
        assert relay.mailer_send("--once").returncode == 0
        assert in_a_labels(destination.arrived(len(mails))) == in_a_labels(unchanged(mails))


def in_a_labels(fates: Fates) -> Fates:
    """Domains as DNS has them (RFC 5890 2.3.2.1), which some clients write and some leave to the server."""
    return {_a_label(to): (_a_label(sender), digest) for to, (sender, digest) in fates.items()}


def _a_label(address: str) -> str:
    local_part, _, domain = address.rpartition("@")
    return f"{local_part}@{domain.encode('idna').decode()}"


@pytest.mark.parametrize("client", ["swaks", "msmtp"])
def test_clients_that_do_not_get_the_reason_and_nothing_is_kept(
    client: str, relay: Relay, tmp_path: Path
) -> None:
    """RFC 6531 3.7.4: without the parameter no such address is taken."""
    with relay.serve(), pytest.raises(RefusedError, match=r"553 5\.6\.7"):
        submit_all(client, relay.server, internationalized()[:1], tmp_path / "client")
    assert walk(relay.spool) == {}


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_says_that_its_password_was_wrong(client: str, relay: Relay, tmp_path: Path) -> None:
    with relay.serve(), pytest.raises(RefusedError, match="535"):
        submit_all(client, replace(relay.server, password="guess"), hard_mail()[:1], tmp_path / "client")
    assert walk(relay.spool) == {}
