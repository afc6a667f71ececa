"""The incidents that are staged, and what the first command must say of each: its cause; what to do."""

import contextlib
import smtplib
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import trustme
from outbound.hostile import DROP, Server, per_address
from outbound.sending import SENDER, TO, forward_to, queue
from spools.poison import LIVES, POISON, Killer
from spools.states import Queue
from testbed.faketime import faketime
from testbed.ports import LOOPBACK, free_port
from testbed.relay import PASSWORD, USERNAME, Relay, mailer_send_command

from incidents.staged import (
    DOCTOR,
    LOGIN,
    MAIL,
    Incident,
    direct,
    provider,
    refused,
    send,
    submit,
    turned_away,
    zoned,
)

ANOTHER = "ann@example.net"


def login_refused_backup_down(relay: Relay) -> Iterator[None]:
    with Server({"auth": "535 5.7.8 Bad credentials"}, auth="PLAIN") as server:
        dead = {"name": "Spare", "host": LOOPBACK, "port": free_port()}
        relay.configure(forward_to(forwardProviders=[provider(server.port, **LOGIN), dead]))
        send(relay)
        yield


def used_up_and_paused(relay: Relay) -> Iterator[None]:
    with Server({"mail": "452 4.5.3 Your daily sending limit is reached"}) as server:
        relay.configure(forward_to(forwardProviders=[provider(server.port)]))
        send(relay)
        assert relay.mailer("pause", "--reason", "moving the spool").returncode == 0
        yield


def one_gone_one_greylisted(relay: Relay) -> Iterator[None]:
    replies = {TO: "550 5.1.1 no such user", ANOTHER: "451 4.7.1 Greylisted, try again later"}
    with Server({"rcpt": per_address(replies)}) as server:
        relay.configure(forward_to(forwardProviders=[provider(server.port)]))
        send(relay, (TO, ANOTHER))
        yield


def no_runner(relay: Relay) -> Iterator[None]:
    relay.configure(forward_to(forwardProviders=[provider(free_port())]))
    submit(relay)
    yield


def paused(relay: Relay) -> Iterator[None]:
    relay.configure(forward_to(forwardProviders=[provider(free_port())]))
    submit(relay)
    assert relay.mailer("pause", "--reason", "moving the spool").returncode == 0
    yield


def held_by_a_colleague(relay: Relay) -> Iterator[None]:
    relay.configure(forward_to(forwardProviders=[provider(free_port())]))
    message = submit(relay).split()[-1]
    assert relay.mailer("spool", "hold", message).returncode == 0
    relay.mailer_send()
    yield


def reply_lost_and_held(relay: Relay) -> Iterator[None]:
    with Server({"dot": DROP}) as server:
        relay.configure(forward_to(forwardProviders=[provider(server.port)], uncertain="hold"))
        send(relay)
        yield


def certificate_of_a_stranger(relay: Relay) -> Iterator[None]:
    with _with_tls() as server:
        relay.configure(forward_to(forwardProviders=[provider(server.port, **LOGIN)]))
        send(relay)
        yield


def _with_tls() -> Server:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("mail.elsewhere.example").configure_cert(context)
    return Server(tls=context, auth="PLAIN")


def tls_demanded_and_not_offered(relay: Relay) -> Iterator[None]:
    with Server() as server:
        policy = [{"destination": LOOPBACK, "level": "encrypt"}]
        relay.configure(forward_to(forwardProviders=[provider(server.port)], tlsPolicies=policy))
        send(relay)
        yield


def ssl_where_starttls_is_spoken(relay: Relay) -> Iterator[None]:
    with Server(auth="PLAIN") as server:
        relay.configure(forward_to(forwardProviders=[provider(server.port, ssl=True, **LOGIN)]))
        send(relay)
        yield


def no_login_offered(relay: Relay) -> Iterator[None]:
    with Server() as server:
        relay.configure(forward_to(forwardProviders=[provider(server.port, **LOGIN)]))
        send(relay)
        yield


def login_not_configured(relay: Relay) -> Iterator[None]:
    with Server({"mail": "530 5.7.0 Authentication required"}, auth="PLAIN") as server:
        relay.configure(forward_to(forwardProviders=[provider(server.port)]))
        send(relay)
        yield


def providers_name_misspelt(relay: Relay) -> Iterator[None]:
    # RFC 6761 6.4: names below .invalid never exist, whichever name server is asked.
    host = {"name": "Acme", "host": "smtp.acmee.invalid", "port": 587}
    relay.configure(forward_to(forwardProviders=[host]))
    send(relay)
    yield


def redirected_to_the_developer(relay: Relay) -> Iterator[None]:
    with Server() as server:
        settings = forward_to(forwardProviders=[provider(server.port)], redirectAllTo="dev@example.com")
        relay.configure(settings)
        send(relay)
        yield


def kept_here(relay: Relay) -> Iterator[None]:
    send(relay)
    yield


def sent_and_not_seen(relay: Relay) -> Iterator[None]:
    with Server({"dot": "250 2.0.0 Ok: queued as 4bQ7kR2zPq"}) as server:
        relay.configure(forward_to(forwardProviders=[provider(server.port)]))
        send(relay)
        yield


def gave_up(relay: Relay) -> Iterator[None]:
    with Server({"rcpt": "452 4.2.2 The mailbox is over quota"}) as server:
        retry = {"maxAge": "1h"}
        relay.configure(forward_to(forwardProviders=[provider(server.port)], retry=retry))
        send(relay)
        for later in ("+2h", "+5h"):
            relay.mailer_send(under=faketime(later))
        yield


def damaged_on_disk(relay: Relay) -> Iterator[None]:
    relay.configure(forward_to(forwardProviders=[provider(free_port())]))
    message = submit(relay).split()[-1]
    file = relay.spool / "new" / message
    file.write_bytes(file.read_bytes().replace(b"hello\r\n", b"hellO\r\n"))
    relay.mailer_send()
    yield


def kills_its_runners(relay: Relay) -> Iterator[None]:
    killer = Killer()
    with Server({"mail": killer}) as server:
        relay.configure(forward_to(forwardProviders=[provider(server.port)]))
        queue(relay.spool, sender=POISON)
        for _ in range(LIVES):
            queue(relay.spool, [ANOTHER])
            with relay._start([*mailer_send_command(), "--once"], "runner") as runner:
                killer.program = runner.pid
                runner.wait()
        assert {to for to, _ in server.delivered()} == {ANOTHER}
        yield


def disk_nearly_full_and_used_up(relay: Relay) -> Iterator[None]:
    with Server({"mail": "452 4.5.3 Your daily sending limit is reached"}) as server:
        relay.configure(forward_to(forwardProviders=[provider(server.port)]))
        send(relay)
        relay.configure({"minFreeSpace": 2**60})
        with relay.serve(), relay.connect() as client, contextlib.suppress(smtplib.SMTPException):
            client.sendmail(SENDER, [TO], MAIL)
        yield


def log_gone_and_timer_never_ran(relay: Relay) -> Iterator[None]:
    relay.configure(forward_to(forwardProviders=[provider(free_port())]))
    states = Queue(relay.spool)
    message = states.new(TO, received=time.time() - 10_800)
    states.defer(message, "451 4.7.1 Greylisted, try again later", TO, seconds=-10_000)
    yield


def leap_and_key_gone(relay: Relay) -> Iterator[None]:
    settings = forward_to(forwardProviders=[provider(free_port())])
    key = {"enabled": True, "domain": "example.com", "privateKeyPath": "keys/gone.private"}
    relay.configure(settings)
    assert submit(relay).startswith("250")
    relay.configure(settings | {"dkim": key})
    relay.mailer_send(under=faketime("+400d"))
    yield


def certificate_expired(relay: Relay) -> Iterator[None]:
    context, authority = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), trustme.CA()
    last_night = datetime.now(UTC) - timedelta(hours=8)
    authority.issue_cert("localhost", not_after=last_night).configure_cert(context)
    bundle = relay.directory / "authorities.pem"
    authority.cert_pem.write_to_path(str(bundle))
    with Server(tls=context, auth="PLAIN") as server:
        acme = provider(server.port, **LOGIN) | {"host": "localhost"}
        relay.configure(forward_to(forwardProviders=[acme]))
        assert submit(relay).startswith("250")
        relay.mailer_send(under=("env", f"SSL_CERT_FILE={bundle}"))
        yield


def leads_back_to_us(relay: Relay) -> Iterator[None]:
    acme = provider(relay.port, username=USERNAME, password=PASSWORD)
    relay.configure(forward_to(forwardProviders=[acme]))
    with relay.serve():
        with relay.connect() as client:
            client.sendmail(SENDER, [TO], MAIL)
        relay.mailer_send()
        yield


def password_file_gone(relay: Relay) -> Iterator[None]:
    with Server(auth="PLAIN") as server:
        secret = relay.directory / "password"
        secret.touch(mode=0o600)
        secret.write_text("not a secret\n")
        acme = provider(server.port, username="relay", password={"file": str(secret)})
        relay.configure(forward_to(forwardProviders=[acme]))
        assert submit(relay).startswith("250")
        secret.unlink()
        relay.mailer_send()
        yield


def clock_at_1986(relay: Relay) -> Iterator[None]:
    context, authority = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), trustme.CA()
    authority.issue_cert("localhost").configure_cert(context)
    bundle = relay.directory / "authorities.pem"
    authority.cert_pem.write_to_path(str(bundle))
    with Server(tls=context, auth="PLAIN") as server:
        acme = provider(server.port, **LOGIN) | {"host": "localhost"}
        relay.configure(forward_to(forwardProviders=[acme]))
        assert submit(relay).startswith("250")
        relay.mailer_send(under=("env", f"SSL_CERT_FILE={bundle}", *faketime("-40y")))
        yield


def handed_in_elsewhere(relay: Relay) -> Iterator[None]:
    relay.configure(forward_to(forwardProviders=[provider(free_port())]))
    submit(relay, ("carol@example.org",))
    yield


def receiver_not_started(relay: Relay) -> Iterator[None]:
    yield from kept_here(relay)


def wrong_password_in_the_application(relay: Relay) -> Iterator[None]:
    with (
        relay.serve(),
        smtplib.SMTP(LOOPBACK, relay.port) as client,
        contextlib.suppress(smtplib.SMTPException),
    ):
        client.login("app@example.com", "wrong")
    yield


def sender_of_another(relay: Relay) -> Iterator[None]:
    relay.mailer("user", "add", "crm", "--allow", "crm@example.com", given="a good password\n")
    with relay.serve(), smtplib.SMTP(LOOPBACK, relay.port) as client:
        client.login("crm", "a good password")
        client.mail("crm@example.com")
        client.rcpt(TO)
        client.data(MAIL)
    yield


def over_the_limit(relay: Relay) -> Iterator[None]:
    relay.configure({"rateLimits": {"enabled": True, "maxPerHour": 1}})
    submit(relay, ("carol@example.org",))
    with relay.serve(), relay.connect() as client, contextlib.suppress(smtplib.SMTPException):
        client.sendmail(SENDER, [TO], MAIL)
    yield


def misspelt_key(relay: Relay) -> Iterator[None]:
    relay.configure({"forwardProvider": []})
    yield


def broken_config(relay: Relay) -> Iterator[None]:
    relay.config.write_text(relay.config.read_text().replace('",', '"', 1))
    yield


def disk_nearly_full(relay: Relay) -> Iterator[None]:
    relay.configure({"minFreeSpace": 2**60})
    yield


INCIDENTS = (
    Incident(
        "our address is on a block list",
        direct(
            {"mail": "554 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using zen.spamhaus.org"}
        ),
        ("blocked using",),
        ("take our address off",),
    ),
    Incident(
        "their mailbox is full",
        direct({"rcpt": "452 4.2.2 The email account is over quota"}),
        ("Their mailbox takes nothing now",),
        ("or reach them in another way",),
    ),
    Incident(
        "the provider insists on TLS",
        refused({"mail": "530 5.7.0 Must issue a STARTTLS command first"}),
        ("Acme wants TLS first",),
        ("STARTTLS (587)",),
    ),
    Incident(
        "larger than the provider takes",
        refused({"dot": "552 5.3.4 Message size exceeds fixed limit"}),
        ("about the mail itself",),
        ("send it anew",),
    ),
    Incident(
        "an attachment is forbidden",
        refused({"dot": "552 5.7.0 This message was blocked because its content is dangerous (.exe)"}),
        ("(.exe)",),
        ("change it",),
    ),
    Incident(
        "DMARC of the sender's domain",
        refused({"dot": "550 5.7.26 Unauthenticated email from example.com fails its DMARC policy"}),
        ("DMARC policy",),
        ("correct what the reply names",),
    ),
    Incident(
        "sender not verified at the provider",
        refused({"dot": "554 Message rejected: Email address is not verified."}),
        ("address is not verified",),
        ("have Acme allow it",),
    ),
    Incident(
        "our account is suspended",
        refused({"mail": "550 5.7.1 Your account has been suspended. Contact support"}, login=True),
        ("Acme has suspended our account",),
        ("have them open it again",),
    ),
    Incident(
        "the provider is in maintenance",
        refused({"connect": "421 4.3.2 Service in maintenance, back at noon"}),
        ("Acme has trouble of its own",),
        ("wait for the next attempt",),
    ),
    Incident(
        "the provider answers nothing",
        refused({"connect": DROP}),
        ("Acme was not reached",),
        ("`mailer doctor` tries it",),
    ),
    Incident(
        "the provider's host is misspelt",
        providers_name_misspelt,
        ("DNS knows no such host",),
        ("correct `host` in $.forwardProviders",),
    ),
    Incident(
        "certificate of a stranger",
        certificate_of_a_stranger,
        ("certificate verify failed",),
        ("the package ca-certificates", "`update-ca-certificates`"),
    ),
    Incident(
        "TLS is demanded, and not offered",
        tls_demanded_and_not_offered,
        ("STARTTLS is not offered",),
        ("`mailer reload`",),
    ),
    Incident(
        "ssl set for a STARTTLS port",
        ssl_where_starttls_is_spoken,
        ("TLS failed: `ssl`",),
        ("is off for one with STARTTLS",),
    ),
    Incident(
        "provider has no AUTH",
        no_login_offered,
        ("Acme offers no login",),
        ("take `username` and `password` out",),
    ),
    Incident(
        "provider wants a login, none configured",
        login_not_configured,
        ("Authentication required",),
        ("correct `username` and `password`",),
    ),
    Incident(
        "recipient's domain does not exist",
        zoned({}),
        ("the domain does not exist",),
        ("is the address right", "Send the mail anew"),
    ),
    Incident(
        "recipient's domain takes no mail",
        zoned({("example.net", "MX"): ["0 ."]}),
        ("null MX",),
        ("is the address right?",),
    ),
    Incident(
        "recipient's MX is a private address",
        zoned(
            {("example.net", "MX"): ["10 mx.example.net."], ("mx.example.net", "A"): ["10.1.2.3"]},
            allowPrivate=False,
        ),
        ("10.1.2.3 is not a public address",),
        ("`directDelivery.allowPrivate`",),
    ),
    Incident("recipient's DNS is broken", zoned({}, broken=True), ("SERVFAIL",), ("its owner can fix it",)),
    Incident(
        "login refused, and the backup is down",
        login_refused_backup_down,
        ("535 5.7.8 Bad credentials", "Connection refused"),
        ("correct `username` and `password`", "Spare was not reached", "`mailer providers reset Acme`"),
    ),
    Incident(
        "quota used up, and sending paused",
        used_up_and_paused,
        ("sending is paused by", "Our allowance at Acme is used up"),
        ("`mailer resume`", "have Acme raise it"),
    ),
    Incident(
        "one recipient gone, another greylisted",
        one_gone_one_greylisted,
        ("others of the same message still wait",),
        ("ask them for the right one",),
    ),
    Incident("no runner", no_runner, ("no runner has claimed it yet",), ("mailer-send --watch",)),
    Incident("sending is paused", paused, ("moving the spool",), ("`mailer resume`",)),
    Incident("held by a colleague", held_by_a_colleague, ("Held by",), ("`mailer spool release 01",)),
    Incident(
        "last reply lost, held",
        reply_lost_and_held,
        ("it may or may not have been delivered",),
        ("Ask Acme whether they have it",),
    ),
    Incident("redirected", redirected_to_the_developer, ("redirectAllTo",), ("remove that key",)),
    Incident("no route configured", kept_here, ("it has not left this host",), ("set $.forwardSMTP",)),
    Incident(
        "sent, and not in the inbox", sent_and_not_seen, ("It is Acme's now",), ("ask them for 4bQ7kR2zPq",)
    ),
    Incident("given up", gave_up, ("Failed: given up",), ("`mailer spool retry 01",)),
    Incident("damaged on disk", damaged_on_disk, ("digest differs",), ("submit it again",)),
    Incident(
        "it kills its runners",
        kills_its_runners,
        ("Held: 3 runners died", "Runners died while they held it: 5 times"),
        ("find in the log of mailer-send what ended the runs", "`mailer spool release 01"),
    ),
    Incident(
        "disk nearly full, and the quota used up",
        disk_nearly_full_and_used_up,
        ("Our allowance at Acme is used up", "less room than minFreeSpace"),
        ("have Acme raise it", "df -h on the spool", "mailer log --status rejected"),
    ),
    Incident(
        "log deleted, and the timer never ran",
        log_gone_and_timer_never_ran,
        ("the log has no line about it", "due since", "No runner has claimed it since"),
        ("mailer-send --once by cron",),
        never=("nothing to do", "no such mail was submitted"),
    ),
    Incident(
        "clock far ahead, and the DKIM key is gone",
        leap_and_key_gone,
        ("gone.private cannot be read", "400d ahead"),
        ("`mailer dkim check` says why", "trust-clock"),
        never=("no route was switched on",),
        by_hand=True,
    ),
    Incident(
        "the provider's certificate expired last night",
        certificate_expired,
        ("certificate of Acme has expired",),
        ("have them renew it",),
        never=("insecureSkipVerify",),
        by_hand=True,
    ),
    Incident(
        "a deploy removed the password's file",
        password_file_gone,
        ("/password: No such file or directory", "Acme is paused"),
        ("correct what is named", "`mailer providers reset Acme`"),
        by_hand=True,
    ),
    Incident(
        "clock in the past, so no certificate is valid",
        clock_at_1986,
        ("certificate is not yet valid", "This host's clock is behind"),
        ("set the clock",),
        never=("insecureSkipVerify",),
        by_hand=True,
    ),
    Incident(
        "a forward leads in a circle",
        refused({"rcpt": "554 5.4.6 Too many hops 31 (25 max)"}),
        ("in a circle behind Acme",),
        ("postmaster",),
        never=("send it anew",),
        by_hand=True,
    ),
    Incident(
        "no way out over IPv6",
        zoned({("example.net", "MX"): ["10 mx.example.net."], ("mx.example.net", "AAAA"): ["2001:db8::25"]}),
        ("no way out over IPv6",),
        ("`directDelivery.ipVersion`",),
        never=("port 25 is open",),
        by_hand=True,
    ),
    Incident(
        "the provider is our own receiver",
        leads_back_to_us,
        ("lead back to this relay",),
        ("set those that Acme tells",),
        by_hand=True,
    ),
    Incident(
        "handed in elsewhere", handed_in_elsewhere, ("no such mail was submitted",), ("mailer log -n 20",)
    ),
    Incident(
        "receiver is not running",
        receiver_not_started,
        ("no program listens there",),
        ("mailer serve",),
        DOCTOR,
    ),
    Incident(
        "wrong password in the application",
        wrong_password_in_the_application,
        ("login failed",),
        ("mailer user check NAME",),
    ),
    Incident(
        "a user sends as another", sender_of_another, ("crm may not send as",), ("mailer user allow crm",)
    ),
    Incident("over the rate limit", over_the_limit, ("1 of 1 messages",), ("raise that key",)),
    Incident(
        "too large for us",
        turned_away({"maxMessageSize": 1024}, MAIL + b"x" * 70 + b"\r\n" * 800),
        ("larger than maxMessageSize",),
        ("raise it",),
    ),
    Incident(
        "too many recipients",
        turned_away({"maxRecipients": 1}, to=(ANOTHER, TO)),
        ("maxRecipients",),
        ("send in parts",),
    ),
    Incident(
        "staging refuses real recipients",
        turned_away({"allowedRecipients": ["example.com"]}),
        ("this is a staging system",),
        ("to allowedRecipients",),
    ),
    Incident(
        "misspelt key", misspelt_key, ("unknown key",), ("nearest known one is forwardProviders",), DOCTOR
    ),
    Incident(
        "configuration does not parse",
        broken_config,
        ("is not JSON at line",),
        ("Expecting ',' delimiter",),
        DOCTOR,
    ),
    Incident("disk nearly full", disk_nearly_full, ("minFreeSpace",), ("make room",), DOCTOR),
)
