"""What next hops do wrong, through the whole program, each fault at a server of its own.

One message goes to each server, in one run of `mailer-send`. What must hold is read from what the servers
were told, octet for octet, and from the spool's files by a reader that shares no code with the product.
"""

import re
import ssl
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import trustme
from outbound.hostile import DROP, EXTENSIONS, HANG, RESET, STALL, Message, Server, drip, flood, pour
from outbound.internet import Internet
from outbound.sending import PLACES, forward_to, queue
from spools.walk import Found, walk
from testbed.faketime import faketime
from testbed.relay import Relay

pytestmark = pytest.mark.fault_row(13, 14, 15, 16, 18, 19)

LOCKSTEP = tuple(extension for extension in EXTENSIONS if extension != "PIPELINING")
MODES = {
    "pipelining": (EXTENSIONS, False),
    "lockstep": (LOCKSTEP, False),
    "pipelining and TLS": (EXTENSIONS, True),
    "lockstep and TLS": (LOCKSTEP, True),
}
BACKUP = "127.0.2.1"
SPEED = 60
"""How fast the clock goes where a test is about patience: RFC 5321's five minutes take 5 s."""

Table = Mapping[str, tuple[dict[str, Any], str]]
"""For each fault the server's script, and what becomes of the recipients in the first attempt."""


def each(steps: Iterable[str], faults: Mapping[str, Any], fate: str) -> Table:
    """Every fault at every step: the first time only, so that the next attempt goes well."""
    return {
        f"{name} at {step}": ({step: [fault, None]}, fate) for step in steps for name, fault in faults.items()
    }


def at_the_second_rcpt(faults: Mapping[str, Any], fate: str) -> Table:
    return {
        f"{name} at the second rcpt": ({"rcpt": [None, fault, None]}, fate) for name, fault in faults.items()
    }


LOSSES = {"drop": DROP, "reset": RESET}
GOING, NUL = "421 4.3.2 going down", b"250 o\0k\r\n"
NONSENSE = {"garbage": b"\xff\xfb garbage\r\n", "NUL": NUL, "6xx": "620 what"}
TABLE: Table = {
    "nothing": ({}, "sent"),
    # Lost before the dot.
    **each(("connect", "banner", "ehlo", "mail", "rcpt", "data", "body"), LOSSES, "deferred"),
    **at_the_second_rcpt(LOSSES, "deferred"),
    # Lost after the dot.
    **each(("dot",), LOSSES, "uncertain"),
    # Lost after the final reply.
    **each(("after",), LOSSES, "sent"),
    **each(("quit",), {**LOSSES, **NONSENSE, "421": GOING}, "sent"),
    # Out of step.
    **each(("banner", "ehlo", "mail", "data"), NONSENSE | {"421": GOING}, "deferred"),
    **at_the_second_rcpt(NONSENSE | {"421": GOING, "354": "354 go"}, "deferred"),
    **each(("mail", "rcpt"), {"354": "354 go"}, "deferred"),
    **each(("data",), {"250": "250 ok", "354 and early 250": "354 go\n250 early"}, "deferred"),
    **each(("banner",), {"early 250": "220 hi\n250 early"}, "deferred"),
    **each(("ehlo",), {"early 250": "250-hi\n250 PIPELINING\n250 early"}, "deferred"),
    **each(("mail",), {"early 250": "250 ok\n250 early"}, "deferred"),
    **each(("dot",), NONSENSE | {"354": "354 go on"}, "uncertain"),
    **each(("dot",), {"421": GOING}, "deferred"),
}
# Opportunistic TLS (direct delivery): where it fails the mail goes in clear, in the same run.
TLS_TABLE: Table = {
    **each(("starttls",), {**LOSSES, **NONSENSE, "421": GOING, "454": "454 4.7.0 not now"}, "sent"),
    **each(("starttls",), {"plain text behind the 220": "220 go\n250 injected"}, "sent"),
    **each(("handshake",), LOSSES | {"garbage": b"no TLS here\r\n"}, "sent"),
}
PITS = {
    "silence": HANG,
    "a byte a minute": drip(b"2", 60 / SPEED),
    "endless 250-": flood(b"250-x"),
    "a line of 1 GB": pour(b"x"),
}
PIT_TABLE: Table = {
    "nothing": ({}, "sent"),
    **each(("banner", "ehlo", "mail", "rcpt", "data"), PITS, "deferred"),
    **each(("body",), {"zero window": STALL}, "deferred"),
    **each(("dot",), PITS, "uncertain"),
    **each(("quit",), PITS, "sent"),
}
TLS_PIT_TABLE = each(("starttls", "handshake"), PITS, "sent")


@dataclass
class Case:
    """One fault, the server that has it, and the message that meets it."""

    name: str
    server: Server
    fate: str
    """What becomes of the recipients in the first attempt."""
    to: list[str]
    message: bytes
    id: str = ""
    backup: list[Message] = field(default_factory=list)

    @property
    def taken(self) -> list[Message]:
        """All copies that were accepted, here and at the backup."""
        return [message for message in (*self.server.messages, *self.backup) if message.accepted]


def letter(name: str, size: int = 0) -> bytes:
    """A message like no other, with what a client can get wrong; at least so many octets long."""
    head = f"From: <app@example.com>\r\nSubject: {name}\r\n\r\n.\r\n..dots\r\nGrüße\r\n".encode()
    return head + (b"x" * 998 + b"\r\n") * (size // 1000) + b".last\r\n"


@contextmanager
def cases(relay: Relay, table: Table, mode: str, *, backup: bool = False) -> Iterator[list[Case]]:
    """A server for each fault, and one message in the spool for each."""
    extensions, encrypted = MODES[mode]
    context = certificate() if encrypted else None
    with Internet.of({("backup.test", "A"): [BACKUP]}) as internet:
        internet.dns_timeout = "10m"  # of a clock that may be fast
        made = []
        for number, (name, (script, fate)) in enumerate(table.items(), start=1):
            address, domain = f"127.0.1.{number}", f"f{number}.test"
            internet.dns.zone |= {(f"mx.{domain}", "A"): [address]}
            internet.dns.zone[domain, "MX"] = [f"10 mx.{domain}.", *["20 backup.test."] * backup]
            server = internet.server(address, script, extensions=extensions, tls=context, body_after=10_000)
            to = [f"{who}@{domain}" for who in ("ann", "bob", "eve")]
            made.append(Case(name, server, fate, to, letter(name, 5_000_000 if "body" in script else 0)))
        spare = internet.server(BACKUP, extensions=extensions, tls=context)
        relay.configure(
            internet.settings() | {"security": {"logAllEmails": True}, "sending": {"concurrency": 100}}
        )
        for case in made:
            case.id = queue(relay.spool, case.to, case.message)
        yield made
        for case in made:
            case.backup = [message for message in spare.messages if set(message.recipients) <= set(case.to)]


def certificate(
    name: str = "mx.example", authority: trustme.CA | None = None, **options: Any
) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate that no system trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority = authority or trustme.CA(key_type=trustme.KeyType.ECDSA)
    authority.issue_cert(name, key_type=trustme.KeyType.ECDSA, **options).configure_cert(context)
    return context


def attempted(relay: Relay, *, under: tuple[str, ...] = ()) -> dict[str, Found]:
    """Run once; return every file of the spool, archived ones included."""
    done = relay.mailer_send("--once", under=under)
    assert (done.returncode, done.stdout) == (0, "")
    # What an operator should look at, and nothing else.
    for line in done.stderr.splitlines():
        assert " event=uncertain " in line or 'reason="it refuses our login' in line, line
    assert list((relay.spool / "tmp").iterdir()) == []  # I6
    return walk(relay.spool, PLACES)


def check_first(case: Case, found: Found) -> None:
    """The attempt's own result."""
    assert found.intact, case.name
    assert set(found.statuses.values()) == {case.fate}, (case.name, found.events)
    assert found.place == ("sent" if case.fate == "sent" else "retry"), case.name
    # I1 as the journal has it: each recipient has its outcome, and the hop that gave it.
    said = [event for event in found.events if event["event"] == case.fate]
    assert sorted(address for event in said for address in event["to"]) == case.to, case.name  # type: ignore[attr-defined]
    assert all(event.get("hop") for event in said), case.name


def check_last(case: Case, found: Found) -> None:
    """What must hold when the fault has ended."""
    assert found.place == "sent", (case.name, found.events)  # I7
    assert set(found.statuses.values()) == {"sent"}, case.name
    doubtful = [message for message in case.server.messages if not re.match("[245]", message.reply)]
    # I2, I5: one copy, whole; more only if the remote's last word was lost, and then the file says so.
    # A recipient at whom the session may have broken is tried alone.
    copies = [[address] for address in case.to] if is_divided(found) else [case.to]
    assert sorted(sorted(message.recipients) for message in case.taken) == copies, case.name
    assert len(doubtful) == (case.fate == "uncertain"), case.name
    assert ("uncertain" in found.kinds) == bool(doubtful), case.name
    for message in (*case.taken, *doubtful):
        assert sha256(message.body).digest() == sha256(case.message).digest(), case.name
    # I3: who stands on the wire was accepted, byte for byte.
    named = re.findall(rb"RCPT TO:<([^>]*)>", b"\n".join(c for s in case.server.sessions for c in s.commands))
    assert {address.decode() for address in named} <= set(case.to), case.name


def is_divided(found: Found) -> bool:
    """Whether the next transactions had fewer recipients, since the session broke at one."""
    return any("batch" in event for event in found.events)


def run_twice(
    relay: Relay, made: list[Case], first: tuple[str, ...], second: tuple[str, ...]
) -> Mapping[str, Found]:
    """Each fault has the result it must have, and the next attempt mends it; return the files at the end."""
    files = attempted(relay, under=first)
    for case in made:
        check_first(case, files[case.id])
    files = attempted(relay, under=second)
    for case in made:
        check_last(case, files[case.id])
    return files


@pytest.mark.parametrize("mode", MODES)
def test_every_fault_of_a_server_is_survived_by_the_next_attempt(relay: Relay, mode: str) -> None:
    table = {**TABLE, **(TLS_TABLE if "TLS" in mode else {})}
    with cases(relay, table, mode) as made:
        files = run_twice(relay, made, (), faketime("+3m"))
    for case in made:
        if "TLS" in mode and case.name not in TLS_TABLE:
            assert all(session.tls for session in case.server.sessions if session.messages), case.name
        if "lockstep" in mode:
            assert not any(session.hasty for session in case.server.sessions), case.name
            # What goes wrong at MAIL may show at RCPT only, or look as if it had.
            if not case.name.endswith("at mail"):
                assert is_divided(files[case.id]) == ("rcpt" in case.name), case.name


@pytest.mark.parametrize("mode", MODES)
def test_every_fault_before_the_dot_sends_the_mail_to_the_next_exchanger_and_none_after_it(
    relay: Relay, mode: str
) -> None:
    """In the same run; what is uncertain waits, and is tried where it may have arrived."""
    with cases(relay, TABLE, mode, backup=True) as made:
        files = attempted(relay)
        for case in made:
            fate = "uncertain" if case.fate == "uncertain" else "sent"
            assert set(files[case.id].statuses.values()) == {fate}, (case.name, files[case.id].events)
        files = attempted(relay, under=faketime("+3m"))
    for case in made:
        check_last(case, files[case.id])
        assert bool(case.backup) == (case.fate == "deferred"), case.name


@pytest.mark.parametrize("mode", ["pipelining", "lockstep and TLS"])
def test_a_tarpit_costs_the_patience_of_its_phase_and_no_memory(relay: Relay, mode: str) -> None:
    """With the time-outs that RFC 5321 4.5.3.2 asks for, a fast clock, and 150 MB for the whole run."""
    # The run outlasts the pauses of the usual schedule.
    relay.configure({"retry": {"schedule": ["1d"], "maxAge": "30d"}})
    table = {**PIT_TABLE, **(TLS_PIT_TABLE if "TLS" in mode else {})}
    with cases(relay, table, mode) as made:
        bounded = ("prlimit", "--data=150000000", *faketime(f"+0 x{SPEED}"))
        run_twice(relay, made, bounded, faketime("+2d"))


THEN = datetime(2001, 1, 1, tzinfo=UTC)
LOGIN = {"username": "relay@example.com", "password": "open sesame"}


def of_old_version(authority: trustme.CA) -> ssl.SSLContext:
    context = certificate("localhost", authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    return context


def worthless(authority: trustme.CA) -> dict[str, ssl.SSLContext]:
    """Server's sides of TLS that prove nothing, or protect nothing."""
    return {
        "expired": certificate("localhost", authority, not_before=THEN, not_after=THEN + timedelta(1)),
        "wrong name": certificate("elsewhere.example", authority),
        "self-signed": certificate("localhost"),
        "old version": of_old_version(authority),
    }


def test_direct_mail_is_encrypted_whatever_the_certificate_says_and_the_journal_tells_how(
    relay: Relay,
) -> None:
    contexts = worthless(trustme.CA(key_type=trustme.KeyType.ECDSA))
    with Internet.of({}) as internet:
        servers = {}
        for number, (name, context) in enumerate(contexts.items(), start=1):
            internet.dns.zone[f"{name.replace(' ', '-')}.test", "A"] = [f"127.0.1.{number}"]
            servers[name] = internet.server(f"127.0.1.{number}", tls=context)
        relay.configure(internet.settings() | {"security": {"logAllEmails": True}})
        ids = {name: queue(relay.spool, [f"bob@{name.replace(' ', '-')}.test"]) for name in contexts}
        files = attempted(relay)
    for name, server in servers.items():
        [sent] = [event for event in files[ids[name]].events if event["event"] == "sent"]
        [session] = [session for session in server.sessions if session.messages]
        assert str(sent["tls"]).startswith(
            "none: TLS handshake failed" if name == "old version" else "TLSv1.3 TLS_"
        )
        assert session.tls == ("" if name == "old version" else "TLSv1.3")


def test_a_password_is_sent_to_no_provider_whose_tls_proves_nothing_and_the_mail_to_none_that_fails(
    relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain of providers, each with a fault before the login is done, but the last."""
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    good = certificate("localhost", authority)
    unproven = [
        *(Server(tls=tls, implicit_tls=implicit, auth="PLAIN LOGIN CRAM-MD5")
          for tls in worthless(authority).values() for implicit in (False, True)),
        *(Server(script, tls=good, auth="PLAIN LOGIN") for script, _ in TLS_TABLE.values()),
        Server({"handshake": DROP}, tls=good, implicit_tls=True, auth="PLAIN"),
        Server({"handshake": b"220 in clear\r\n"}, tls=good, implicit_tls=True, auth="PLAIN"),
    ]  # fmt: skip
    failing = [
        *(Server({"auth": fault}, tls=good, auth="PLAIN")
          for fault in (*LOSSES.values(), *NONSENSE.values(), GOING, "535 5.7.8 no", "454 4.7.0 later")),
        *(Server({"challenge": fault}, tls=good, auth="LOGIN")
          for fault in (*LOSSES.values(), *NONSENSE.values(), GOING, "334 not base64!")),
    ]  # fmt: skip
    with ExitStack() as running:
        last = running.enter_context(Server(tls=good, auth="PLAIN"))
        chain = [running.enter_context(server) for server in (*unproven, *failing)]
        relay.configure(
            forward_to(
                forwardProviders=[
                    {"host": "localhost", "port": server.port, "ssl": server.implicit_tls, **LOGIN}
                    for server in (*chain, last)
                ],
                security={"logAllEmails": True},
            )
        )
        message = queue(relay.spool)
        found = attempted(relay)[message]
    assert set(found.statuses.values()) == {"sent"}
    assert [taken.recipients for taken in last.messages] == [list(found.recipients)]
    troubles = [event for event in found.events if event["event"] == "trouble"]
    assert [str(event["hop"]).rpartition(":")[2] for event in troubles] == [str(s.port) for s in chain]
    assert all(str(event["reply"]).isprintable() for event in troubles)
    assert [server.messages for server in chain] == [[]] * len(chain)
    for server in unproven:
        for session in server.sessions:
            assert b"AUTH" not in session.received
    for server in (*failing, last):
        assert all(session.tls for session in server.sessions)
    assert LOGIN["password"] not in str(found.events)
