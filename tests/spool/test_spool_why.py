"""`mailer spool why` says cause, whose turn it is, what to do first, and until when."""

import re
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from outbound.hostile import DROP, HANG, Action, Server, reached
from outbound.sending import TO, at, forward_to, queue
from spools.disk_faults import full, remounted
from spools.states import Queue
from testbed.faketime import faketime
from testbed.ports import free_port
from testbed.relay import Relay

from mailer.config.hops import DirectDelivery, Provider
from mailer.config.model import Config
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Status
from mailer.send.advice.recipient import advise
from mailer.send.smtp.opening import OwnReceiver
from mailer.spool.layout import Place, Spot
from mailer.spool.message_state import Standing
from mailer.spool.view.inspect import look
from mailer.spool.view.verdict import Outlook
from mailer.spool.view.verdict import verdict as verdict_of

LOGIN = {"username": "relay", "password": "wrong"}


def why(relay: Relay, message: str, **how: Any) -> str:
    done = relay.mailer("spool", "why", message, **how)
    assert done.returncode == 0, done.stderr
    return done.stdout


def verdict(relay: Relay, message: str, **how: Any) -> str:
    return why(relay, message, **how).partition("\n\n")[0]


def named(server: Server, **more: Any) -> dict[str, Any]:
    return forward_to(forwardProviders=[{"name": "Acme", "host": "127.0.0.1", "port": server.port, **more}])


FIRST: dict[str, tuple[dict[str, Action], tuple[str, ...]]] = {
    "greylisted": (
        {"rcpt": "451 4.7.1 Greylisted, please try again in 300 seconds"},
        ("Usual (greylisting", "nothing to do", "next in", "given up on 20"),
    ),
    "no such user": (
        {"rcpt": "550 5.1.1 <bob@example.net>: no such user here"},
        ("Failed: given up after 1 attempt", "ask them for the right one"),
    ),
    "SPF": (
        {"dot": "550 5.7.23 The message was rejected: SPF check failed for example.com"},
        ("SPF", "then `mailer spool retry 01"),
    ),
    "quota": (
        {"mail": "450 4.2.1 Daily user sending quota exceeded"},
        ("allowance at Acme is used up", "wait until it is renewed"),
    ),
    "login": (
        {"auth": "535 5.7.8 Username and Password not accepted"},
        ("our account at Acme", "`mailer providers reset Acme`", "Acme is paused"),
    ),
    "login switched off": (
        {"auth": "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled"},
        ("whatever the password", "`mailer providers reset Acme`"),
    ),
    "spam": (
        {"dot": "554 5.7.1 Message content rejected as spam"},
        ("the mail itself", "change it"),
    ),
}


@pytest.mark.parametrize("case", FIRST)
def test_the_verdict_says_what_to_do_first(case: str, relay: Relay) -> None:
    script, expected = FIRST[case]
    needs_login = "auth" in script
    with Server(script, auth="PLAIN" if needs_login else "") as server:
        relay.configure(named(server, **(LOGIN if needs_login else {})))
        message = queue(relay.spool)
        relay.mailer_send()
        told = verdict(relay, message)
    for words in expected:
        assert words in told, (words, told)
    if "139" in str(script):
        assert "correct `username`" not in told, "another password would not help"


def test_a_provider_that_took_it_is_named_with_its_own_id_and_what_250_does_not_promise(relay: Relay) -> None:
    with Server({"dot": "250 2.0.0 Ok: queued as 4bQ7kR2zPq"}) as server:
        relay.configure(named(server))
        message = queue(relay.spool)
        relay.mailer_send()
        told = verdict(relay, message)
    assert "It is Acme's now: ask them for 4bQ7kR2zPq." in told
    assert "does not say that it reached the mailbox" in told


def test_a_first_reply_that_was_lost_is_said_to_have_perhaps_sent_it_twice(relay: Relay) -> None:
    with Server({"dot": DROP}) as server:
        relay.configure(named(server))
        message = queue(relay.spool)
        relay.mailer_send()
        assert "may arrive twice: Acme knows" in verdict(relay, message)
        server.script.clear()
        relay.mailer_send(under=faketime("+3m"))
        told = verdict(relay, message)
    assert f"Sent, perhaps twice: the reply of an earlier attempt at {at(server)} was lost" in told


def test_every_hop_that_was_tried_is_named_with_its_trouble(relay: Relay) -> None:
    dead = free_port()
    with Server({"mail": "451 4.3.0 Disk trouble"}) as server:
        relay.configure(forward_to(dead, server))
        message = queue(relay.spool)
        relay.mailer_send()
        told = verdict(relay, message)
    assert f"at {at(dead)}: Connection refused" in told
    assert f"at {at(server)}: 451 4.3.0 Disk trouble" in told
    assert "not tried yet" not in told


def test_a_name_server_that_does_not_answer_is_named(relay: Relay) -> None:
    server = f"127.0.0.1:{free_port()}"
    dns = {"nameservers": [server], "timeout": "1s"}
    relay.configure({"directDelivery": {"enabled": True}, "dns": dns})
    message = queue(relay.spool)
    relay.mailer_send()
    told = verdict(relay, message)
    assert f"did not answer in time ({server})" in told
    assert "`dns.nameservers`" in told


def test_what_was_due_hours_ago_says_since_when(relay: Relay) -> None:
    relay.configure(forward_to(free_port()))
    message = queue(relay.spool)
    relay.mailer_send()
    later = faketime("+2h")
    assert re.search(
        r"; due since 20\d\d-\d\d-\d\d \d\d:\d\d:00Z; given up on", verdict(relay, message, under=later)
    )
    listed = relay.mailer("spool", "ls", under=later).stdout
    assert "due since 20" in listed


def test_nine_postponements_of_one_kind_are_one_line(relay: Relay) -> None:
    with Server({"rcpt": "450 4.2.2 The mailbox is full"}) as server:
        relay.configure(forward_to(server, retry={"schedule": ["1m"], "maxAge": "5d"}))
        message = queue(relay.spool)
        for attempt in range(9):
            relay.mailer_send(under=faketime(f"+{3 * attempt}m"))
        story = why(relay, message)
    steps = story.partition("\n\n")[2].splitlines()
    assert len(steps) == 2, story
    assert "(attempts 1 to 9, alike, since 20" in steps[1]
    # At a full minute, as the bucket: nothing is tried before.
    assert re.search(r"\): 450 4.2.2 The mailbox is full; next attempt 20\S+ \d\d:\d\d:00Z", steps[1])


def test_a_message_that_kills_its_runners_says_how_often_and_where(relay: Relay) -> None:
    at_the_dot = threading.Event()
    with Server({"dot": reached(at_the_dot, HANG)}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool)
        for _ in range(3):
            at_the_dot.clear()
            with relay.watch() as runner:
                assert at_the_dot.wait(60)
                runner.kill()
        told = verdict(relay, message)
    assert "Its runner ended before it was finished" in told
    assert (
        f"Runners died while they held it: 2 times while it was handed to {at(server)}. "
        "Do first: find in the log" in told
    )


NOT_TRIED = "not tried before 2026-11-30 22:21:05Z, since"
"""What mail says that met a provider on its pause."""
SAID: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "its certificate expired": (
        "127.0.0.1:587",
        "certificate verify failed: certificate has expired",
        ("certificate of Acme has expired: have them renew it",),
    ),
    "its certificate is another's": (
        "127.0.0.1:587",
        "certificate verify failed: Hostname mismatch",
        ("`insecureSkipVerify`",),
    ),
    "no password": ("127.0.0.1:587", "$.forwardProviders[0].password: /x: No such file", ("config check`",)),
    "our clock": (
        "127.0.0.1:587",
        "certificate verify failed: certificate is not yet valid",
        ("set the clock",),
    ),
    "a loop": ("127.0.0.1:587", "554 5.4.6 Too many hops 31 (25 max)", ("in a circle behind Acme",)),
    "our own receiver": (
        "127.0.0.1:587",
        OwnReceiver("127.0.0.1:587").text,
        ("lead back to this relay", "Acme tells its customers"),
    ),
    "only TLS 1.0": (
        "127.0.0.1:587",
        "TLS handshake failed: tlsv1 alert protocol version",
        ("Acme has no version of TLS at that port that we use (1.2 or later)",),
    ),
    "TLS at the wrong time": (
        "127.0.0.1:587",
        "TLS handshake failed: wrong version number",
        ("`ssl` in $.forwardProviders is for a port that begins with TLS",),
    ),
    "only tokens": (
        "127.0.0.1:587",
        "no AUTH mechanism in common (offered: NTLM XOAUTH2)",
        ("Acme takes no password at that port", "`auth` of type oauth2"),
    ),
    "no login": (
        "127.0.0.1:587",
        "no AUTH mechanism in common (offered: NTLM)",
        ("Acme offers no login that we know",),
    ),
    "no SMTPUTF8": (
        "127.0.0.1:587",
        "550 5.6.7 127.0.0.1:587 does not offer SMTPUTF8, which this mail needs",
        ("Acme takes no address beyond ASCII", "xn--"),
    ),
    "no IPv6": ("mx.example.net[2001:db8::25]:25", "Network is unreachable", ("`directDelivery.ipVersion`",)),
    "no route": ("mx.example.net[192.0.2.25]:25", "No route to host", ("port 25 is open for us",)),
    "firewall": ("127.0.0.1:587", "Permission denied", ("This host forbids the connection", "SELinux")),
    "paused, password expired": (
        "127.0.0.1:587",
        f"{NOT_TRIED} it refuses our login: 535 5.7.139 Authentication unsuccessful, password expired",
        ("Acme does not let this mailbox log in", "`mailer providers reset Acme`"),
    ),
    "paused, suspended": (
        "127.0.0.1:587",
        f"{NOT_TRIED} it refuses our login: 550 5.7.1 Your account has been suspended. Contact support",
        ("Acme has suspended our account",),
    ),
    "paused, quota": (
        "127.0.0.1:587",
        f"{NOT_TRIED} it accepts no more mail from us for now: 550 5.4.5 Daily user sending limit exceeded",
        ("allowance at Acme is used up",),
    ),
    "paused, not reached": (
        "127.0.0.1:587",
        f"{NOT_TRIED} it does not work: Connection refused",
        ("Acme was not reached",),
    ),
    "key gone": ("local", "the DKIM key k cannot be read: No such file", ("`mailer dkim check` says why",)),
}


@pytest.mark.parametrize("case", SAID)
def test_what_we_say_ourselves_has_its_own_advice(case: str) -> None:
    hop, text, expected = SAID[case]
    acme = Provider(name="Acme", host="127.0.0.1", port=587)
    direct = DirectDelivery(enabled=hop.startswith("mx."))
    config = Config(forward_smtp=True, forward_providers=(acme,), direct_delivery=direct)
    told = advise(config, Standing(Recipient(TO), Status.DEFERRED, text, hop))
    assert all(words in told for words in expected), told


_WAITS = re.compile("by itself|next attempt|: wait|nothing to do", re.IGNORECASE)
GIVEN_UP = [text for case, (_, text, _) in SAID.items() if case != "paused, quota"] + [
    "450 4.7.1 Greylisted",
    "451 4.3.0 Temporary failure",
    "452 4.2.2 Mailbox full",
    "452 4.5.3 Too many recipients",
]


@pytest.mark.parametrize("hop", ["127.0.0.1:587", "mx.example.net[192.0.2.25]:25"])
def test_advice_about_mail_that_was_given_up_promises_no_further_attempt(hop: str) -> None:
    """It is in `failed/`: what is repaired afterwards sends it only after the operator's word."""
    acme = Provider(name="Acme", host="127.0.0.1", port=587)
    direct = DirectDelivery(enabled=hop.startswith("mx."))
    config = Config(forward_smtp=True, forward_providers=(acme,), direct_delivery=direct)
    for text in GIVEN_UP:
        told = advise(config, Standing(Recipient(TO), Status.EXPIRED, text, hop))
        assert not _WAITS.search(told), told
        assert "reload`" not in told or "`mailer spool retry" in told, told


@pytest.mark.parametrize("reply", ["550 5.2.2 Over quota", "552 5.2.2 x", "554 The mailbox is full"])
def test_a_full_mailbox_does_not_make_its_address_a_wrong_one(reply: str) -> None:
    told = advise(Config(), Standing(Recipient(TO), Status.BOUNCED, reply, "mx.example.net[192.0.2.25]:25"))
    assert "mailbox is full" in told
    assert "right one" not in told


def test_a_runner_that_does_nothing_for_an_hour_is_suspected_to_be_stopped(tmp_path: Path) -> None:
    states = Queue(tmp_path / "spool")
    message = states.new()
    with states.claimed(message):
        seen = look(states.spool, Spot(Place.CUR, message))
        assert seen
        now, later = (
            verdict_of(seen, [], Outlook(now=time.time() + hours * 3600))[0] for hours in (0.5, 1.5)
        )
    assert now == "Claimed by a runner, which is delivering it now."
    assert "nothing has happened since 20" in later
    assert "is stopped" in later


DISKS = {"is mounted read-only": partial(remounted, options="ro"), "is full": full}


@pytest.mark.parametrize("disk", DISKS)
def test_a_disk_that_takes_nothing_is_named_before_a_missing_runner(disk: str, relay: Relay) -> None:
    message = queue(relay.spool)
    told = verdict(relay, message, under=DISKS[disk](relay))
    assert f"sending is stopped, because the filesystem of {relay.spool} {disk}" in told
    assert "start one" not in told


def test_mail_that_waits_for_its_final_reply_is_not_said_to_have_lost_it(relay: Relay) -> None:
    """Servers that scan before they answer take minutes for that; once the runner has died, it is lost."""
    dot = threading.Event()
    with Server({"dot": reached(dot, HANG)}) as server:
        relay.configure(named(server))
        message = queue(relay.spool)
        with relay.watch() as runner:
            assert dot.wait(60)
            told = verdict(relay, message)
            runner.kill()
        assert f"{TO}: being sent at {at(server)} (no final reply yet)" in told
        assert "lost" not in told
        assert "twice" not in told
        assert "may arrive twice" in verdict(relay, message)


def test_mail_that_a_former_provider_may_have_is_not_said_to_be_tried_there_again(relay: Relay) -> None:
    with Server({"dot": DROP}) as former, Server() as present:
        relay.configure(named(former))
        message = queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        relay.configure(named(present))
        assert relay.mailer_send("--once", under=faketime("+3m")).returncode == 0
        told = verdict(relay, message)
    assert "no route leads there any more" in told
    assert f"Ask {at(former)} whether they have it." in told
    assert "tried again at the same hop, and may" not in told


def test_mail_that_a_copy_by_hard_links_keeps_from_runs_is_reported(relay: Relay, tmp_path: Path) -> None:
    """Every command said to start a runner, and doctor was content."""
    message = queue(relay.spool)
    copy = tmp_path / "copy"
    copy.hardlink_to(relay.spool / "new" / message)
    assert relay.mailer_send("--once").returncode == 0
    told = verdict(relay, message)
    assert "a path outside of the spool names the same file" in told
    assert "start one" not in told
    found = relay.mailer("doctor", "--offline").stdout
    assert "1 message with a name outside of the spool, too: no run takes such mail" in found
    copy.unlink()
    assert "outside" not in verdict(relay, message) + relay.mailer("doctor", "--offline").stdout
    (relay.spool / "cur" / message).hardlink_to(relay.spool / "new" / message)
    assert "outside" not in verdict(relay, message) + relay.mailer("doctor", "--offline").stdout
