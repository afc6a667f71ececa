"""Incidents: what is broken, the first command that an operator types, and what its output must contain.

The operator knows an address, or that mail does not go out, and nothing else. Each is staged with the real
programs against scripted servers on loopback. `scripts/incidents` runs them and prints the table.
"""

import contextlib
import smtplib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outbound.hostile import Action, Server
from outbound.sending import SENDER, TO, forward_to
from testbed.faketime import faketime
from testbed.name_server import NameServer
from testbed.ports import LOOPBACK, free_port
from testbed.relay import Relay

LOG = ("log", "--to", TO)
DOCTOR = ("doctor",)
LOGIN = {"username": "relay", "password": "not a secret"}
MAIL = b"From: <app@example.com>\r\nSubject: hello\r\n\r\nhello\r\n"

Stage = Callable[[Relay], Iterator[None]]


@dataclass(frozen=True)
class Incident:
    """One row of the table."""

    name: str
    stage: Stage
    """Breaks something; the command is typed while it is suspended."""
    cause: tuple[str, ...]
    """Words of the output that name what is wrong."""
    action: tuple[str, ...]
    """Words of the output that say what to do."""
    command: tuple[str, ...] = LOG
    never: tuple[str, ...] = ()
    """Orders that would not mend it."""
    by_hand: bool = False
    """Staged by `scripts/incidents` alone; `test_spool_why` holds its words by plain values."""


@dataclass(frozen=True)
class Answer:
    """What the first command said."""

    incident: Incident
    output: str

    @property
    def missing(self) -> list[str]:
        """The words of the cause and of the action that are not there, and the wrong orders that are."""
        wanted = (*self.incident.cause, *self.incident.action)
        wrong = [f"not: {words}" for words in self.incident.never if words in self.output]
        return [words for words in wanted if words not in self.output] + wrong

    @property
    def cause_found(self) -> bool:
        return all(words in self.output for words in self.incident.cause)

    @property
    def action_found(self) -> bool:
        named = all(words in self.output for words in self.incident.action)
        return named and not any(words in self.output for words in self.incident.never)


def ask(incident: Incident, directory: Path) -> Answer:
    """Stage an incident in an empty directory, and type its first command."""
    relay = Relay(directory, {"batchDelay": 0, "hostname": "relay.example.com"})
    with contextmanager(incident.stage)(relay):
        done = relay.mailer(*incident.command)
    return Answer(incident, done.stdout + done.stderr)


# How things are staged.


def submit(relay: Relay, to: tuple[str, ...] = (TO,), mail: bytes = MAIL) -> str:
    """Hand in a message as an application does; return the last reply."""
    with relay.serve(), relay.connect() as client:
        client.mail(SENDER)
        for address in to:
            client.rcpt(address)
        code, text = client.data(mail)
        return f"{code} {text.decode()}"


def send(relay: Relay, to: tuple[str, ...] = (TO,), under: tuple[str, ...] = ()) -> None:
    assert submit(relay, to).startswith("250")
    relay.mailer_send(under=under)


def provider(port: int, **more: Any) -> dict[str, Any]:
    return {"name": "Acme", "host": LOOPBACK, "port": port, **more}


def refused(script: Mapping[str, Action], *, runs: int = 1, login: bool = False) -> Stage:
    """A provider that answers one step so."""

    def stage(relay: Relay) -> Iterator[None]:
        with Server(script, auth="PLAIN" if login else "") as server:
            relay.configure(forward_to(forwardProviders=[provider(server.port, **(LOGIN if login else {}))]))
            send(relay)
            for run in range(1, runs):
                relay.mailer_send(under=faketime(f"+{3 * run}m"))
            yield

    return stage


def direct(script: Mapping[str, Action]) -> Stage:
    """The recipient's own server answers so."""

    def stage(relay: Relay) -> Iterator[None]:
        zone = {("example.net", "MX"): ["10 mx.example.net."], ("mx.example.net", "A"): [LOOPBACK]}
        with Server(script) as server, NameServer(zone) as names:
            relay.configure(to_exchangers(names, server.port))
            send(relay)
            yield

    return stage


def zoned(zone: Mapping[tuple[str, str], list[str]], *, broken: bool = False, **more: Any) -> Stage:
    """DNS says so about the recipient's domain."""

    def stage(relay: Relay) -> Iterator[None]:
        with NameServer(zone) as names:
            names.broken = broken
            relay.configure(to_exchangers(names, free_port(), **more))
            send(relay)
            yield

    return stage


def to_exchangers(names: NameServer, port: int, **more: Any) -> dict[str, Any]:
    return {
        "directDelivery": {"enabled": True, "port": port, "allowPrivate": True, **more},
        "dns": {"nameservers": [str(names)], "timeout": "2s"},
    }


def turned_away(settings: Mapping[str, Any], mail: bytes = MAIL, to: tuple[str, ...] = (TO,)) -> Stage:
    """Our own receiver refuses it."""

    def stage(relay: Relay) -> Iterator[None]:
        relay.configure(settings)
        with relay.serve(), relay.connect() as client, contextlib.suppress(smtplib.SMTPException):
            client.sendmail(SENDER, to, mail)
        yield

    return stage
