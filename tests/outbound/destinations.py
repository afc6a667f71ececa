"""Where the end-to-end tests have mail delivered, and what each such place makes of a message by itself."""

import contextlib
import hashlib
import re
import smtplib
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import trustme
from testbed.aiosmtpd_hop import AiosmtpdHop
from testbed.arrival import Arrival, as_sent, as_taken, path_of, take_field, without_added
from testbed.namespaced import Exim, OpenSmtpd
from testbed.ports import LOOPBACK
from testbed.postfix import Postfix
from testbed.relay import Relay
from testbed.smtp_server import SmtpServer
from testbed.smtp_sink import SmtpSink
from testbed.waiting import until

from outbound import hostile
from outbound.real_mail import Mail, Refused, submit
from outbound.sending import forward_to

Fates = dict[str, tuple[str, str]]
"""For each recipient the sender and the SHA-256 of the message, without the trace field on top."""
_TRACE = b"Received: on the way\r\n"
_USER, _PASSWORD = "relay@postfix.test", "open sesame"


@dataclass(frozen=True)
class Destination:
    """A place that a relay was configured to deliver everything to.

    Attributes:
        arrived: what is there now, once there is something for so many recipients.
        keeps: what is there of some mail when nothing happened to it on the way; what it refuses is missing.
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


@contextmanager
def npm_smtp_server(relay: Relay, directory: Path) -> Iterator[Destination]:
    """A provider that keeps every byte, behind STARTTLS."""
    chain = directory / "chain.pem"
    chain.write_bytes(_chain())
    with SmtpServer(directory / "smtp-server", chain) as server:
        relay.configure(forward_to(forwardProviders=[{"host": "localhost", "port": server.port}]))
        yield Destination(lambda count: fates(server.arrivals()), unchanged)


@contextmanager
def aiosmtpd(relay: Relay, directory: Path) -> Iterator[Destination]:
    """Another one, without PIPELINING."""
    del directory  # it keeps no files
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _AUTHORITY.issue_cert("localhost").configure_cert(context)
    with AiosmtpdHop(context) as server:
        relay.configure(forward_to(forwardProviders=[{"host": "localhost", "port": server.port}]))
        yield Destination(lambda count: fates(server.arrivals()), unchanged)


@contextmanager
def exim(relay: Relay, directory: Path) -> Iterator[Destination]:
    """A provider behind STARTTLS; what it makes of mail is seen at the hop that it passes all on to."""
    del directory
    with hostile.Server() as end, Exim(end.port, _chain()) as server:
        yield _passing_on(relay, server, end)


@contextmanager
def opensmtpd(relay: Relay, directory: Path) -> Iterator[Destination]:
    """The same with OpenSMTPD, which offers neither STARTTLS here nor SMTPUTF8."""
    del directory
    with hostile.Server() as end, OpenSmtpd(end.port) as server:
        yield _passing_on(relay, server, end)


def _passing_on(relay: Relay, server: Exim | OpenSmtpd, end: hostile.Server) -> Destination:
    relay.configure(forward_to(forwardProviders=[{"host": "localhost", "port": server.port}]))
    return Destination(
        lambda count: fates(_passed_on(end, count)), lambda mails: _kept_by(type(server), mails)
    )


def _passed_on(end: hostile.Server, count: int) -> list[Arrival]:
    """What the hop behind it was given, without the field that it put on top, once it is all there."""

    def arrived() -> list[Arrival]:
        taken = [message for message in end.messages if message.accepted]
        return [Arrival(m.sender, tuple(m.recipients), _below_trace(m.body)) for m in taken]

    until(lambda: sum(len(each.recipients) for each in arrived()) >= count, f"{count} recipients' mail")
    return arrived()


def _below_trace(message: bytes) -> bytes:
    return as_sent(take_field(message.replace(b"\r\n", b"\n"), b"Received")[1])


def _kept_by(kind: type[Exim | OpenSmtpd], mails: Sequence[Mail]) -> Fates:
    with hostile.Server() as end, kind(end.port) as server:
        complete = [replace(mail, message=_missing(mail.message) + mail.message) for mail in mails]
        return fates(_passed_on(end, _submit_all(server.port, complete)))


def _missing(message: bytes) -> bytes:
    """The fields that the relay adds on top, which OpenSMTPD would add elsewhere."""
    header = message.partition(b"\r\n\r\n")[0]
    fields = {b"message-id": b"Message-ID: <%b@x>\r\n" % (b"0" * 26), b"date": b"Date: +0000\r\n"}
    return b"".join(
        line for name, line in fields.items() if not re.search(rb"(?im)^%b[ \t]*:" % name, header)
    )


def _submit_all(port: int, mails: Sequence[Mail]) -> int:
    """As a client, with the trace field on top and without the fields that the relay drops.

    Returns:
        How many recipients have been accepted with their message.
    """
    accepted = 0
    with smtplib.SMTP(LOOPBACK, port) as client:
        client.ehlo()
        for mail in mails:
            with contextlib.suppress(Refused):
                submit(client, replace(mail, message=_TRACE + as_taken(mail.message)))
                accepted += len(mail.recipients)
    return accepted


def _chain() -> bytes:
    return _AUTHORITY.issue_cert("localhost").private_key_and_cert_chain_pem.bytes()


def kept_by_postfix(mails: Sequence[Mail]) -> Fates:
    """What Postfix keeps of mail with a trace field on top that came without a relay in between."""
    with Postfix() as server:
        return fates(server.await_arrivals(_submit_all(server.port, mails)))


DESTINATIONS: dict[str, Callable[[Relay, Path], AbstractContextManager[Destination]]] = {
    "local Maildir": local_maildir,
    "smtp-sink": smtp_sink,
    "Postfix": postfix,
    "Postfix with STARTTLS and AUTH": secure_postfix,
    "Exim with STARTTLS": exim,
    "OpenSMTPD": opensmtpd,
    "npm smtp-server with STARTTLS": npm_smtp_server,
    "aiosmtpd with STARTTLS": aiosmtpd,
}
