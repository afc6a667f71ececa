"""Where the end-to-end tests have mail delivered, and what each such place makes of a message by itself."""

import hashlib
import smtplib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import trustme
from real_mail import Mail, submit
from sending import forward_to
from testbed.arrival import Arrival, as_sent, as_taken, path_of, take_field, without_added
from testbed.postfix import Postfix
from testbed.relay import Relay
from testbed.smtp_sink import SmtpSink

Fates = dict[str, tuple[str, str]]
"""For each recipient the sender and the SHA-256 of the message, without the trace field on top."""
_TRACE = b"Received: on the way\r\n"
_USER, _PASSWORD = "relay@postfix.test", "open sesame"


@dataclass(frozen=True)
class Destination:
    """A place that a relay was configured to deliver everything to.

    Attributes:
        arrived: what is there now, once there is something for so many recipients.
        keeps: what is there of some mail when nothing happened to it on the way.
    """

    arrived: Callable[[int], Fates]
    keeps: Callable[[Sequence[Mail]], Fates]


def fates(arrivals: Iterable[Arrival]) -> Fates:
    """Take the fields that the relay adds off each message; fails if somebody got a message twice."""
    found: Fates = {}
    for arrival in arrivals:
        _, message = take_field(arrival.message, b"Received")
        for recipient in arrival.recipients:
            assert recipient not in found, f"{recipient} was delivered to twice"
            found[recipient] = (arrival.sender, hashlib.sha256(without_added(message)).hexdigest())
    return found


def unchanged(mails: Sequence[Mail]) -> Fates:
    """Every byte as it was submitted, in the fields that the relay keeps."""
    return fates(Arrival(mail.sender, mail.recipients, _TRACE + as_taken(mail.message)) for mail in mails)


@contextmanager
def local_maildir(relay: Relay, directory: Path) -> Iterator[Destination]:
    """The relay's own; it is where mail goes unless it is told otherwise."""
    del directory  # it has one in its spool
    relay.configure({"forwardSMTP": False})
    yield Destination(lambda count: fates(kept_locally(relay)), unchanged)


def kept_locally(relay: Relay) -> list[Arrival]:
    """The local Maildir, with the envelopes from the fields that delivery put on top (RFC 5321 4.4)."""
    return [_read_local(stored) for stored in relay.delivered()]


def _read_local(stored: bytes) -> Arrival:
    sender, rest = take_field(stored, b"Return-Path")
    recipients = []
    while rest.startswith(b"Delivered-To:"):
        recipient, rest = take_field(rest, b"Delivered-To")
        recipients.append(recipient.decode())
    return Arrival(path_of(sender), tuple(recipients), as_sent(rest))


@contextmanager
def smtp_sink(relay: Relay, directory: Path) -> Iterator[Destination]:
    """A provider that keeps every byte."""
    with SmtpSink(directory / "provider") as sink:
        relay.configure(forward_to(sink.port))
        yield Destination(lambda count: fates(sink.arrivals()), unchanged)


@contextmanager
def postfix(relay: Relay, directory: Path) -> Iterator[Destination]:
    """A provider that changes some mail: it drops Return-Path, and ends a header where no field stands."""
    del directory  # Postfix makes its own
    with Postfix() as server:
        relay.configure(forward_to(server.port))
        yield Destination(lambda count: fates(server.await_arrivals(count)), kept_by_postfix)


@contextmanager
def secure_postfix(relay: Relay, directory: Path) -> Iterator[Destination]:
    """The same behind STARTTLS and a login; the relay trusts its certificate if told by `trust_provider`."""
    chain = directory / "chain.pem"
    certificate = _AUTHORITY.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(chain))
    # As providers have it: nothing but STARTTLS is taken in clear.
    settings = {"smtpd_tls_chain_files": str(chain), "smtpd_tls_security_level": "encrypt"}
    with Postfix(settings, username=_USER, password=_PASSWORD) as server:
        provider = {"host": "localhost", "port": server.port, "username": _USER, "password": _PASSWORD}
        relay.configure(forward_to(forwardProviders=[provider]))
        yield Destination(lambda count: fates(server.await_arrivals(count)), kept_by_postfix)


_AUTHORITY = trustme.CA()


def trust_provider(directory: Path) -> dict[str, str]:
    """The environment in which the relay trusts `secure_postfix`, and nobody else."""
    bundle = directory / "authorities.pem"
    _AUTHORITY.cert_pem.write_to_path(str(bundle))
    return {"SSL_CERT_FILE": str(bundle)}


def kept_by_postfix(mails: Sequence[Mail]) -> Fates:
    """What Postfix keeps of mail with a trace field on top that came without a relay in between."""
    with Postfix() as server:
        with smtplib.SMTP(server.host, server.port) as client:
            client.ehlo()
            for mail in mails:
                submit(client, replace(mail, message=_TRACE + as_taken(mail.message)))
        return fates(server.await_arrivals(sum(len(mail.recipients) for mail in mails)))


DESTINATIONS: dict[str, Callable[[Relay, Path], AbstractContextManager[Destination]]] = {
    "local Maildir": local_maildir,
    "smtp-sink": smtp_sink,
    "Postfix": postfix,
    "Postfix with STARTTLS and AUTH": secure_postfix,
}
