"""What is advised can be typed as it stands, and no sentence of a verdict is untrue when it is read."""

import re
import shlex
import ssl
import time
from pathlib import Path

import pytest
import trustme
from outbound.hostile import Server, per_address
from outbound.sending import MESSAGE, forward_to, queue
from spools.states import HOP, Queue
from testbed.relay import Relay

from mailer.mail.login_causes import CAUSES
from mailer.send.advice import reply as advice
from mailer.spool.view.examine import space

_LABEL = "Bob's relay"
_REPLIES = (
    "535 5.7.8 Username and Password not accepted",
    "535 5.7.139 Authentication unsuccessful",
    "535 account suspended",
    "535 password expired",
)


def test_a_name_with_blanks_is_one_word_of_each_command() -> None:
    said = [cause.advice(_LABEL) for cause in CAUSES]
    said += [advice.account_trouble(reply, _LABEL) for reply in _REPLIES]
    commands = [command for text in said for command in re.findall(r"`(mailer [^`]+)`", text)]
    naming = [shlex.split(command) for command in commands if "relay" in command]
    assert len(naming) > len(_REPLIES)
    assert all(_LABEL in words for words in naming)


def test_verdicts_of_what_an_operator_held_and_of_what_is_overdue(relay: Relay) -> None:
    states = Queue(relay.spool)
    held, old = states.new(), states.new(received=time.time() - 30 * 86_400)
    assert relay.mailer("spool", "hold", held).returncode == 0
    states.defer(old, "451 4.7.1 later", seconds=1)
    assert "\nHeld by " in relay.mailer("spool", "why", held).stdout
    told = relay.mailer("spool", "why", old).stdout
    assert "given up on" not in told
    assert "given up then unless sent, because its time ended on" in told


def test_sizes_are_printed_in_the_unit_that_fits(tmp_path: Path) -> None:
    (first, *_) = space(tmp_path, 2**60)
    assert "below 1.0 EiB" in first.found


def test_mail_that_a_former_provider_has_not_taken_goes_to_those_of_now(relay: Relay) -> None:
    """Its trouble is not the recipient's domain's, and who runs it now is not asked."""
    relay.configure(forward_to(1))
    states = Queue(relay.spool)
    waiting = states.new()
    states.defer(waiting, "Name or service not known", seconds=600)
    told = relay.mailer("spool", "why", waiting).stdout
    assert f"{HOP} is not a provider in $.forwardProviders any more" in told
    assert f"`mailer spool retry {waiting}`" in told
    relay.configure({"directDelivery": {"enabled": True}})
    assert "any more" not in relay.mailer("spool", "why", waiting).stdout


def test_mail_too_large_for_every_provider_is_not_said_to_be_a_former_providers(relay: Relay) -> None:
    """A limit that the greeting states is our own conclusion, of which the journal has the host alone."""
    with Server(extensions=("SIZE 100",)) as small, Server(extensions=("SIZE 200",)) as other:
        for hops in ((small,), (small, other)):
            relay.configure(forward_to(*hops))
            refused = queue(relay.spool, message=MESSAGE + b"x" * 200 + b"\r\n")
            assert relay.mailer_send("--once").returncode == 0
            told = relay.mailer("spool", "why", refused).stdout
            assert "change it, send it anew" in told
            assert "any more" not in told


def certificate(tmp_path: Path, kind: str) -> ssl.SSLContext:
    """The server's side of TLS for localhost, with a certificate that this host does not accept."""
    context, authority = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), trustme.CA()
    if kind == "self-signed":
        (path := tmp_path / "own.pem").write_bytes(
            authority.private_key_pem.bytes() + authority.cert_pem.bytes()
        )
        context.load_cert_chain(path)
    else:
        authority.issue_cert("mail.example.org" if kind == "other name" else "localhost").configure_cert(
            context
        )
    trusted = authority if kind == "other name" else trustme.CA()
    trusted.cert_pem.write_to_path(tmp_path / "trusted.pem")
    return context


@pytest.mark.parametrize(
    ("kind", "advised"),
    [
        ("other name", "The certificate of acme is for another name: set `host`"),
        ("unknown authority", "install the usual ones (the package ca-certificates)"),
        ("self-signed", "The certificate of acme vouches for itself"),
    ],
)
def test_what_is_advised_about_a_certificate_is_about_its_fault(
    relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, advised: str
) -> None:
    with Server(tls=certificate(tmp_path, kind), auth="PLAIN") as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
        login = {"name": "acme", "username": "u", "password": "p"}
        relay.configure(forward_to(forwardProviders=[{"host": "localhost", "port": server.port, **login}]))
        waiting = queue(relay.spool)
        relay.mailer_send("--once")
        assert advised in relay.mailer("spool", "why", waiting).stdout


def test_each_of_several_pieces_of_advice_names_its_recipients(relay: Relay) -> None:
    to = ["ann@example.net", "bob@example.net", "cat@example.net", "dan@example.net"]
    refused = dict.fromkeys(("bob@example.net", "dan@example.net"), "550 5.1.1 no such user")
    with Server({"rcpt": per_address(refused | {"cat@example.net": "452 4.2.2 mailbox full"})}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool, to)
        relay.mailer_send("--once")
    told = relay.mailer("spool", "why", message).stdout
    assert "\nFor bob@example.net and 1 more: Their server takes no mail for this address" in told
    assert "\nFor cat@example.net: Their mailbox takes nothing now" in told


def test_a_domain_that_does_not_exist_is_not_said_to_have_a_server(relay: Relay) -> None:
    with Server({"rcpt": "550 5.1.2 gmial.test: the domain does not exist (NXDOMAIN)"}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool)
        relay.mailer_send("--once")
    told = relay.mailer("spool", "why", message).stdout
    assert "The domain after the @ does not exist" in told
    assert "Their server" not in told
