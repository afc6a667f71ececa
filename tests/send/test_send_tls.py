"""TLS to next hops, with real certificates."""

import asyncio
import datetime as dt
import ssl

import pytest
import trustme
from outbound.hostile import DROP, HANG, RESET, Server, drip
from outbound.outgoing import LONG, Letter, Password, hop_to, only, send

from mailer.mail.host_name import is_loopback
from mailer.mail.outcome import Scope, Status
from mailer.send.phase import Phase
from mailer.send.smtp import tls
from mailer.send.smtp.client import Session
from mailer.send.smtp.hop import StartTls
from mailer.send.trouble import HopTrouble

pytestmark = pytest.mark.fault_row(19)

LOGIN = {"username": "user", "password": Password("s3cret")}
PAST = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(autouse=True)
def _trusted(authority, tmp_path, monkeypatch):
    """The authority is the only one we trust; contexts are made anew, since they are kept."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    tls.context.cache_clear()
    yield
    tls.context.cache_clear()


def serving(authority: trustme.CA, name: str = "localhost", **options) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **options).configure_cert(context)
    return context


@pytest.fixture
def good(authority):
    return serving(authority)


@pytest.mark.parametrize("implicit", [True, False])
def test_mail_and_password_go_through_verified_tls(good, implicit):
    with Server(tls=good, implicit_tls=implicit, auth="PLAIN") as server:
        (outcome,) = send(server, Letter(), implicit_tls=implicit, starttls=StartTls.REQUIRED, **LOGIN)
    assert outcome.status is Status.SENT
    assert outcome.tls.startswith("TLSv1.3 TLS_")
    (session,) = server.sessions
    assert session.tls == "TLSv1.3"
    assert bytes(session.clear) == (b"" if implicit else b"EHLO me.example\r\nSTARTTLS\r\n")
    # RFC 3207 4.2: what was said in clear is forgotten and asked again.
    assert [command[:4] for command in session.commands].count(b"EHLO") == (1 if implicit else 2)


@pytest.mark.parametrize(
    ("server_side", "words"),
    [
        (
            lambda ca: serving(ca, not_before=PAST, not_after=PAST + dt.timedelta(days=1)),
            "certificate has expired",
        ),
        (
            lambda ca: serving(ca, "elsewhere.example"),
            "Hostname mismatch, certificate is not valid for 'localhost'.",
        ),
        (lambda _: serving(trustme.CA()), "unable to get local issuer certificate"),
    ],
)
@pytest.mark.parametrize("implicit", [True, False])
def test_a_certificate_that_proves_nothing_costs_the_hop_but_no_password(
    authority, server_side, words, implicit
):
    with Server(tls=server_side(authority), implicit_tls=implicit, auth="PLAIN") as server:
        with pytest.raises(HopTrouble) as raised:
            send(server, Letter(), implicit_tls=implicit, **LOGIN)
        server.wait()
        trouble = raised.value
        assert (trouble.scope, trouble.phase, trouble.temporary) == (Scope.HOST, Phase.TLS, False)
        assert words in trouble.text
        assert b"AUTH" not in server.sessions[0].received
        # insecureSkipVerify, and opportunistic TLS to an MX
        (outcome,) = send(server, Letter(), implicit_tls=implicit, verify=False)
    assert outcome.status is Status.SENT
    assert outcome.tls


def test_tls_before_1_2_is_refused(authority):
    old = serving(authority)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSVersion"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSVersion"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with Server(tls=old) as server, pytest.raises(HopTrouble) as raised:
        send(server, Letter(), verify=False, starttls=StartTls.REQUIRED)
    assert raised.value.phase is Phase.TLS


@pytest.mark.parametrize("injected", [b"220 go\r\n250 injected\r\n", b"220 go\r\n2", b"220 go\r\n\x16"])
def test_anything_in_clear_after_the_220_ends_the_session(good, injected):
    with Server({"starttls": injected}, tls=good) as server:
        with pytest.raises(HopTrouble) as raised:
            send(server, Letter(), starttls=StartTls.REQUIRED)
        server.wait()
    assert raised.value.phase in {Phase.TLS, Phase.STARTTLS}
    assert b"MAIL" not in server.sessions[0].received


@pytest.mark.parametrize("fault", [DROP, RESET, b"garbage instead of a handshake\r\n"])
def test_a_failed_handshake_is_trouble_of_the_hop_and_nothing_is_said_in_clear(good, fault):
    with Server({"handshake": fault}, tls=good, auth="PLAIN") as server:
        with pytest.raises(HopTrouble) as raised:
            send(server, Letter(), **LOGIN)
        server.wait()
    assert (raised.value.scope, raised.value.phase) == (Scope.HOST, Phase.TLS)
    assert raised.value.text.isprintable()
    assert bytes(server.sessions[0].received).startswith(b"EHLO me.example\r\nSTARTTLS\r\n")
    assert b"AUTH" not in server.sessions[0].received


@pytest.mark.parametrize("tarpit", [HANG, drip(b"\x16")])
def test_a_handshake_that_never_ends_costs_one_deadline(good, tarpit):
    with Server({"handshake": tarpit}, tls=good) as server, pytest.raises(HopTrouble) as raised:
        send(server, Letter(), only(tls=0.3), starttls=StartTls.REQUIRED)
    assert raised.value.phase is Phase.TLS


@pytest.mark.parametrize("terms", [{"starttls": StartTls.REQUIRED}, LOGIN])
@pytest.mark.parametrize("fault", [DROP, "454 4.7.0 not now", "501 what", b"???\r\n"])
def test_a_refused_starttls_is_trouble_of_the_hop_that_needs_tls(good, fault, terms):
    with Server({"starttls": fault}, tls=good, auth="PLAIN") as server:
        with pytest.raises(HopTrouble) as raised:
            send(server, Letter(), **terms)
        server.wait()
    assert (raised.value.scope, raised.value.phase) == (Scope.HOST, Phase.STARTTLS)
    assert [b"AUTH" in session.received for session in server.sessions] == [False]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"starttls": DROP}, "none: connection closed by the server"),
        (
            {"starttls": "454 4.7.0 TLS not available due to local problem"},
            "none: 454 4.7.0 TLS not available",
        ),
        ({"handshake": b"garbage instead of a handshake\r\n"}, "none: TLS handshake failed"),
    ],
)
def test_opportunistic_tls_that_fails_is_given_up_and_the_outcome_says_why(good, fault, words):
    """In clear over a connection of its own: what was said on the other one counts for nothing."""
    with Server(fault, tls=good) as server:
        (outcome,) = send(server, Letter(), verify=False)
        server.wait()
    assert outcome.status is Status.SENT
    assert outcome.tls.startswith(words)
    first, second = server.sessions
    assert b"MAIL" not in first.received
    assert b"STARTTLS" not in second.received


def test_tls_that_is_required_and_not_offered_is_trouble_of_the_hop():
    with Server() as server, pytest.raises(HopTrouble) as raised:
        send(server, Letter(), starttls=StartTls.REQUIRED)
    assert (raised.value.scope, raised.value.text) == (Scope.HOST, "STARTTLS is not offered")


@pytest.mark.parametrize("policy", [StartTls.NEVER, StartTls.WHEN_OFFERED])
def test_credentials_are_never_sent_in_clear_to_another_machine(elsewhere, policy):
    with Server(auth="PLAIN LOGIN CRAM-MD5", host=elsewhere) as server:
        with pytest.raises(HopTrouble) as raised:
            send(server, Letter(), address=elsewhere, starttls=policy, **LOGIN)
        server.wait()
    assert (raised.value.scope, raised.value.temporary) == (Scope.PROVIDER, False)
    assert "credentials are not sent in clear" in raised.value.text
    assert b"AUTH" not in server.sessions[0].received


def test_credentials_go_in_clear_to_loopback_only():
    with Server(auth="PLAIN") as server:
        (outcome,) = send(server, Letter(), **LOGIN)
    assert outcome.status is Status.SENT


@pytest.mark.parametrize(
    ("address", "ours"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:7f00:1", True),
        ("localhost", True),
        ("LocalHost.", True),
        ("127.example", False),
        ("localhost.example", False),
        ("192.0.2.1", False),
        ("::ffff:192.0.2.1", False),
        ("fe80::1%eth0", False),
        ("0.0.0.0", False),
    ],
)
def test_what_counts_as_loopback(address, ours):
    assert is_loopback(address) is ours


def test_a_session_over_tls_is_reused_and_closed_like_any_other(good):
    async def run(server):
        session = await Session.open(hop_to(server), LONG)
        letter = Letter()
        for _ in range(3):
            (outcome,) = await session.transact(letter, letter.envelope.recipients, lambda _: None)
            assert outcome.status is Status.SENT
        await session.close()

    with Server(tls=good) as server:
        asyncio.run(run(server))
    assert server.sessions[0].commands[-1] == b"QUIT"
    assert len(server.messages) == 3


def test_a_lost_reply_to_the_dot_leaves_doubt_over_tls_too(good):
    with Server({"dot": DROP}, tls=good) as server:
        (outcome,) = send(server, Letter())
    assert outcome.status is Status.UNCERTAIN


def test_a_large_message_passes_through_tls(good):
    body = b"Subject: large\r\n\r\n" + b"0123456789\r\n" * 200_000
    with Server(tls=good) as server:
        (outcome,) = send(server, Letter(body))
    assert outcome.status is Status.SENT
    assert server.messages[0].body == body
