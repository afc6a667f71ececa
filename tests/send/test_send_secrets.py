"""The provider's password: where it is sent, and where it must never be read."""

import json
import os
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from outbound.hostile import Server
from outbound.sending import forward_to, found, queue
from testbed.http_client import ask
from testbed.name_server import NameServer
from testbed.relay import Relay
from testbed.tools import program

from mailer.send.smtp.concealment import Concealment
from mailer.send.smtp.hop import Hop
from mailer.send.smtp.transcript import Transcript

USERNAME, PASSWORD = "relay@example.com", "ya29.s3cret+open/Sesame"
BLOB = b64encode(f"\0{USERNAME}\0{PASSWORD}".encode()).decode()
ALONE = b64encode(PASSWORD.encode()).decode()


@pytest.fixture
def relay(tmp_path: Path) -> Relay:
    return Relay(tmp_path)


def forward(server: Server, host: str) -> dict[str, Any]:
    login = {"username": USERNAME, "password": PASSWORD}
    return {"forwardSMTP": True, "forwardProviders": [{"host": host, "port": server.port, **login}]}


def resolver_of(directory: Path, address: str) -> list[str]:
    """A command that runs others with that name server, in a mount namespace of theirs."""
    resolv_conf = directory / "resolv.conf"
    resolv_conf.write_text(f"nameserver {address}\noptions timeout:1 attempts:2\n")
    bind = f'mount --bind {resolv_conf} /etc/resolv.conf; exec "$@"'
    return [program("unshare"), "--mount", "/bin/sh", "-ec", bind, "sh"]


def test_security_case_109_dns_cannot_have_the_password_sent_in_clear(relay: Relay) -> None:
    """A name that DNS, or whoever answers for it, has point at this host is not this host's."""
    # Port 53 is fixed, so the address must be one that no other test uses.
    host = f"127.53.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"
    zone = {("smtp.provider.test", "A"): ["127.0.0.1"]}
    with NameServer(zone, host=host, port=53) as dns, Server(auth="PLAIN LOGIN CRAM-MD5") as server:
        relay.configure(forward(server, "smtp.provider.test"))
        message_id = queue(relay.spool)
        done = relay.mailer_send("--once", under=resolver_of(relay.directory, host))
        server.wait()
        assert ("smtp.provider.test", "A", "udp") in dns.asked
    assert done.returncode == 0, done.stderr
    assert len(server.sessions) == 1  # It was connected to, so the answer was believed as far as that goes.
    assert b"AUTH" not in server.sessions[0].received
    message = found(relay.spool, message_id)
    assert message is not None
    assert message.place == "retry"
    assert "credentials are not sent in clear" in message.events[-1]["reply"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_server_that_the_operator_wrote_as_this_host_may_be_without_tls(relay: Relay, host: str) -> None:
    with Server(auth="PLAIN") as server:
        relay.configure(forward(server, host))
        queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
    assert [message.accepted for message in server.messages] == [True]


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("localhost.example.com", False),
        ("notlocalhost", False),
        ("127.0.0.1.example.com", False),
        ("localhost.localdomain", False),  # not in RFC 6761's sense: DNS may be asked
        ("192.0.2.1", False),
        ("smtp.example.com", False),
        ("", False),
    ],
)
def test_only_what_is_written_says_that_a_server_is_here(name: str, *, here: bool) -> None:
    assert Hop(name=name, port=25).on_this_host is here


# All that a server may make of what it was told, in one line.
QUOTE = f"{PASSWORD} {ALONE} {BLOB} {BLOB[:-9]} {PASSWORD.upper()} AUTH PLAIN {BLOB.lower()}"
SECRETS = [text.lower() for text in (PASSWORD, ALONE[:12], BLOB[len(BLOB) // 2 :][:12])]


def in_pieces(code: str) -> str:
    """A reply whose lines end within the password."""
    return f"{code}-{PASSWORD[:9]}\n{code} {PASSWORD[9:]}"


def quoting() -> dict[str, Server]:
    """Servers that quote the password, each in another phase; the next one is tried in the same run."""
    scripts: dict[str, dict[str, Any]] = {
        "banner": {"banner": f"554 5.3.2 {QUOTE}"},
        "banner that is none": {"banner": f"{QUOTE} what?\r\n".encode()},
        "EHLO": {"ehlo": f"421 4.3.2 {QUOTE}"},
        "what is offered": {"ehlo": f"250-here {QUOTE}\n250 AUTH {PASSWORD} {BLOB}"},
        "AUTH": {"auth": f"535 5.7.8 wrong: {QUOTE}"},
        "AUTH in pieces": {"auth": in_pieces("454")},
        "a challenge": {"auth": f"334 {PASSWORD}"},
        "garbage in AUTH": {"auth": b"x" * 70 + f"{QUOTE}\r\n".encode()},
        "MAIL": {"mail": f"451 4.3.0 {QUOTE}\n421 4.3.2 {QUOTE}"},
        "MAIL, the account": {"mail": f"535 5.7.8 not logged in as {QUOTE}"},
        "RCPT": {"rcpt": f"421 4.7.0 {QUOTE}"},
        "DATA": {"data": f"421 4.3.2 {QUOTE}"},
        "too much": {"mail": f"250 ok\r\n250 {QUOTE}\r\n".encode()},
    }
    usual = {"rset": f"250 {QUOTE}", "quit": f"221 {QUOTE}", "other": f"500 {QUOTE}"}
    return {name: Server(usual | script, auth="PLAIN LOGIN") for name, script in scripts.items()}


LAST = {
    "refused": {"dot": f"550 5.6.0 virus found in {QUOTE}"},
    "recipient": {"rcpt": f"550 5.1.1 no such user {QUOTE}"},
    "deferred": {"dot": f"451 4.2.0 {QUOTE}"},
    "in doubt": {"dot": f"{QUOTE}\r\n".encode()},
    "sent": {"dot": f"250 2.0.0 queued as {QUOTE}", "after": f"421 4.4.2 {QUOTE}"},
}


def test_security_case_111_a_password_that_a_server_quotes_is_written_nowhere(relay: Relay) -> None:
    """Not in the journal, the ledger, the log, a notification, the providers' state, nor by any program."""
    servers = list(quoting().values())
    for server in servers:
        server.__enter__()
    login = {"username": USERNAME, "password": {"file": "password"}}
    try:
        relay.directory.joinpath("password").touch(mode=0o600)
        relay.directory.joinpath("password").write_text(PASSWORD)
        ids, said = [], ""
        for script in LAST.values():
            with Server(script, auth="LOGIN") as last:
                everyone = forward_to(*servers, last)["forwardProviders"]
                providers = [each | login | {"name": f"p{place}"} for place, each in enumerate(everyone)]
                relay.configure(
                    {"forwardSMTP": True, "forwardProviders": providers, "bounce": "sender", "batchDelay": 0}
                )
                ids.append(queue(relay.spool))
                done = relay.mailer_send("--once")
                said += done.stdout + done.stderr
                assert last.sessions, said
                assert last.messages or script is LAST["recipient"]
        for place in (1, 3, 5, 7):  # garbage, what is offered, AUTH in pieces, a long line of garbage
            said += dialogue(relay, f"p{place}")
    finally:
        for server in servers:
            server.__exit__()
    assert all(server.sessions for server in servers)
    said += shown(relay, ids)
    kept = {path: path.read_bytes().decode("latin-1") for path in relay.spool.rglob("*") if path.is_file()}
    assert any("***" in text for path, text in kept.items() if path.name == "providers.json")
    assert any("***" in text for path, text in kept.items() if path.suffix == ".jsonl")
    assert any("multipart/report" in text and "***" in text for text in kept.values())
    for place, text in {**kept, Path("what programs said"): said}.items():
        told = [secret for secret in SECRETS if secret in text.lower()]
        assert not told, place


def dialogue(relay: Relay, provider: str) -> str:
    """A transcript of a session, in which the password is concealed as well."""
    words = (
        "test",
        "--to",
        "bob@example.net",
        "--from",
        "app@example.com",
        "--provider",
        provider,
        "--dialogue",
    )
    done = relay.mailer(*words)
    assert "***" in done.stdout, done.stderr
    return done.stdout + done.stderr


def shown(relay: Relay, ids: list[str]) -> str:
    """All that the programs have to say about it."""
    said = ""
    for words in (["log"], ["providers"], ["providers", "--json"], ["spool", "ls", "--json"], ["doctor"]):
        done = relay.mailer(*words)
        said += done.stdout + done.stderr
    for message_id in ids:
        for verb in ("show", "why"):
            done = relay.mailer("spool", verb, message_id)
            said += done.stdout + done.stderr
    with relay.monitor():
        for path in ("/metrics", "/health", "/", f"/message/{ids[0]}", "/search?q=bob"):
            said += ask(relay.http_port, path).body.decode()
    assert "***" in said
    return said


@pytest.mark.parametrize(
    ("password", "text", "shown"),
    [
        ("open sesame", "535 5.7.8 open sesame is wrong", "535 5.7.8 *** is wrong"),
        ("open sesame", "OPEN SESAME", "***"),
        ("5.1.1", "550 5.1.1 no", "550 *** no"),
        ("1", "5.1.1 no such user 1", "5.1.1 no such user ***"),
        ("use", "user unknown, use", "user unknown, ***"),
        ("", "nothing to hide", "nothing to hide"),
        ("schlüssel", "der schlüssel", "der ***"),
        ("Zauberspruch", f"AUTH LOGIN {b64encode(b'Zauberspruch').decode()[:10]}", "AUTH LOGIN ***"),
    ],
)
def test_what_is_concealed(password: str, text: str, shown: str) -> None:
    assert Concealment.of_password("user", password).words(text) == shown


def test_a_password_in_latin_1_is_concealed_too() -> None:
    assert (
        Concealment.of_password("user", "schlüssel").octets("der schlüssel".encode("latin-1")) == b"der ***"
    )


def test_an_honest_reply_stays_as_it_is() -> None:
    conceal = Concealment.of_password(USERNAME, PASSWORD)
    for line in (Path(__file__).parents[1] / "data" / "replies.jsonl").read_text().splitlines():
        text = json.dumps(json.loads(line))
        assert conceal.words(text) == text


def test_a_transcript_shows_no_end_of_a_password_whose_beginning_it_has_dropped() -> None:
    """A line that comes in pieces and is longer than what is shown of one."""
    said: list[str] = []
    transcript = Transcript(said.append, Concealment.of_password(USERNAME, PASSWORD))
    transcript.received(f"554 {PASSWORD}{'y' * 1990}".encode())
    transcript.received(b"zzz\r\n")
    assert said[0].startswith("S: 554 ***yyy")
    assert PASSWORD[-8:] not in "".join(said)
