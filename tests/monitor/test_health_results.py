"""Health judges by results: mail that should leave and does not is a failure, whatever keeps it."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from outbound.hostile import Server
from outbound.sending import MESSAGE, SENDER, TO, forward_to, queue
from spools.disk_faults import remounted
from testbed.faketime import faketime
from testbed.http_client import PROMETHEUS, ask
from testbed.ports import free_port
from testbed.relay import Relay
from testbed.waiting import until

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Status
from mailer.monitor.results import Stuck, describe
from mailer.spool.message_state import Standing

LATER = faketime("+2h")
"""A night later, by the clock of all programs."""


def unreadable_key(relay: Relay) -> dict[str, Any]:
    """A DKIM key that is damaged: every message waits."""
    key = relay.directory / "example.com.private"
    key.touch(mode=0o600)
    key.write_text("not a key\n")
    dkim = {"enabled": True, "domain": "example.com", "privateKeyPath": str(key)}
    return forward_to(free_port(), dkim=dkim)


def dead_name_server(_: Relay) -> dict[str, Any]:
    dns = {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"}
    return {"directDelivery": {"enabled": True}, "dns": dns}


def dead_provider(_: Relay) -> dict[str, Any]:
    return forward_to(free_port())


SILENT: dict[str, tuple[Callable[[Relay], dict[str, Any]], str]] = {
    "a DKIM key that cannot be used": (unreadable_key, "example.com.private"),
    "a name server that does not answer": (dead_name_server, "127.0.0.1:"),
    "a provider that refuses connections": (dead_provider, "Connection refused"),
}


@pytest.mark.parametrize("fault", SILENT)
def test_nothing_sent_for_an_hour_is_failing_and_the_cause_is_said(fault: str, relay: Relay) -> None:
    """Runs work all the time; one more message that came just now changes nothing."""
    settings, cause = SILENT[fault]
    relay.configure(settings(relay))
    message = queue(relay.spool)
    relay.mailer_send()
    with relay.monitor():
        assert ask(relay.http_port, "/health").json["checks"]["results"]["status"] == "ok"
    relay.mailer_send(under=LATER)
    with relay.monitor(under=LATER):
        told = ask(relay.http_port, "/health")
        page = ask(relay.http_port, "/").body.decode()
    check = told.json["checks"]["results"]
    assert (told.status, told.json["status"], check["status"]) == (503, "failing", "failing"), told.json
    assert cause in check["message"], check
    assert f"mailer spool why {message}" in check["message"]
    assert "@" not in check["message"], "every user of this host may read it"
    assert "none has been sent for an hour" in page


def test_what_leaves_ends_the_failure(relay: Relay) -> None:
    with Server({"rcpt": "450 4.2.1 Try later"}) as server:
        relay.configure(forward_to(server))
        queue(relay.spool)
        relay.mailer_send()
        server.script.clear()
        relay.mailer_send(under=LATER)
        with relay.monitor(under=LATER):
            told = ask(relay.http_port, "/health").json
    assert told["checks"]["results"] == {"status": "ok", "message": "1 recipient sent within the last hour"}


def test_mail_that_the_recipients_servers_defer_raises_no_alert(relay: Relay) -> None:
    """Our side works: the destination was found and reached, and it answers for itself."""
    with Server({"rcpt": "450 4.2.1 Try later"}) as server:
        direct = {"enabled": True, "port": server.port, "allowPrivate": True}
        relay.configure({"directDelivery": direct})
        queue(relay.spool, ["bob@[127.0.0.1]"])
        relay.mailer_send()
        with relay.monitor(under=LATER):
            told = ask(relay.http_port, "/health")
    check = told.json["checks"]["results"]
    assert (told.status, check["status"]) == (200, "degraded"), told.json
    assert "450 4.2.1 Try later" in check["message"]


def test_mail_that_is_requeued_has_an_hour_again(relay: Relay) -> None:
    with Server({"rcpt": "550 5.1.1 unknown"}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool)
        relay.mailer_send()
    assert relay.mailer("spool", "retry", message, under=LATER).returncode == 0
    with relay.monitor(under=LATER):
        assert ask(relay.http_port, "/health").json["checks"]["results"]["status"] == "ok"


def test_a_message_that_kills_its_runners_is_degraded_once_it_is_held(relay: Relay) -> None:
    relay.configure({"enableHealthCheck": True})
    with relay.serve(), relay.connect() as client:
        client.sendmail(SENDER, [TO], MESSAGE)
    [message] = [file.name for file in Path(relay.spool, "new").iterdir()]
    assert relay.mailer("spool", "hold", message).returncode == 0
    with relay.monitor():
        told = ask(relay.http_port, "/health").json
    assert (told["status"], told["checks"]["held"]["status"]) == ("degraded", "degraded")


def test_a_full_mailbox_at_a_provider_raises_no_alert(relay: Relay) -> None:
    """The provider was reached and answers for one mailbox: for days, if nobody makes room there."""
    with Server({"rcpt": "452 4.2.2 The account that you tried to reach is over quota"}) as server:
        relay.configure(forward_to(server))
        queue(relay.spool)
        relay.mailer_send()
        with relay.monitor(under=LATER):
            told = ask(relay.http_port, "/health")
    check = told.json["checks"]["results"]
    assert (told.status, check["status"]) == (200, "degraded"), told.json
    assert "over quota" in check["message"]


def test_a_provider_that_puts_all_mail_off_is_failing(relay: Relay) -> None:
    with Server({"rcpt": "450 4.7.1 Not now"}) as server:
        relay.configure(forward_to(server))
        queue(relay.spool)
        relay.mailer_send()
        with relay.monitor(under=LATER):
            assert ask(relay.http_port, "/health").status == 503


def test_a_receiver_that_has_ended_is_failing(relay: Relay) -> None:
    """Every other check is well: nothing waits, because nothing is accepted."""
    relay.configure({"enableHealthCheck": True})
    with relay.monitor():
        before = ask(relay.http_port, "/health").json
        with relay.serve():
            until(lambda: "it runs" in str(ask(relay.http_port, "/health").json["checks"]), "the receiver")
            with_it = ask(relay.http_port, "/health").json
            assert (
                b"mailer_receiver_up 1.0"
                in ask(relay.http_port, "/metrics", headers={"Accept": PROMETHEUS[0]}).body
            )
        after, ready = ask(relay.http_port, "/health"), ask(relay.http_port, "/readyz")
        page = ask(relay.http_port, "/").body.decode()
        assert (
            b"mailer_receiver_up 0.0"
            in ask(relay.http_port, "/metrics", headers={"Accept": PROMETHEUS[0]}).body
        )
    assert (before["status"], before["checks"]["receiver"]["status"]) == ("degraded", "degraded")
    assert with_it["status"] == "ok"
    assert (after.status, after.json["checks"]["receiver"]["status"], ready.status) == (503, "failing", 503)
    assert "mailer serve has ended: clients wait at its socket or are refused" in page


def test_a_receiver_on_a_spool_that_turned_read_only_has_not_ended(relay: Relay) -> None:
    """It runs, and answers 451: to start it would help nobody."""
    relay.configure({"enableHealthCheck": True})
    with relay.serve(), relay.monitor(under=remounted(relay, "ro")):
        told = ask(relay.http_port, "/health")
    assert told.json["checks"]["spool"]["status"] == "failing"
    assert told.json["checks"]["receiver"] == {"status": "ok", "message": "it runs"}


def test_a_spool_that_was_moved_away_is_failing(relay: Relay) -> None:
    """Nothing that the monitor holds open is wrong; runners and commands open another directory."""
    with relay.monitor():
        relay.spool.rename(relay.directory / "moved")
        relay.spool.mkdir()
        told, ready = ask(relay.http_port, "/health"), ask(relay.http_port, "/readyz")
    assert (told.status, ready.status) == (503, 503)
    assert "another directory open" in told.json["checks"]["spool"]["message"]


def test_a_place_that_cannot_be_changed_is_failing(relay: Relay) -> None:
    """Its attributes or its label forbid it: each mail gets 451, while other files are written as ever."""
    with relay.monitor(under=remounted(relay, "ro", "new")):
        told = ask(relay.http_port, "/health")
        doctor = relay.mailer("doctor", "--offline", under=remounted(relay, "ro", "new"))
    assert told.status == 503
    assert "new/ cannot be changed" in told.json["checks"]["spool"]["message"]
    assert re.search(r"problem access +\S*/new: cannot be changed", doctor.stdout), doctor.stdout


def test_mail_that_waits_during_a_pause_is_not_denied(relay: Relay) -> None:
    relay.configure(forward_to(free_port()))
    queue(relay.spool)
    assert relay.mailer("pause").returncode == 0
    with relay.monitor(under=LATER):
        told = ask(relay.http_port, "/health").json["checks"]["results"]
    assert told == {"status": "ok", "message": "none was sent within the last hour: sending is paused"}


def test_the_message_that_is_named_got_the_reply_that_is_quoted() -> None:
    """The oldest message has trouble of its own; most mail has another."""

    def waiting(message: str, waited: float, reply: str, count: int = 1) -> Stuck:
        hop = "192.0.2.25:587"
        them = (Standing(Recipient(f"{n}@example.net"), Status.DEFERRED, reply, hop) for n in range(count))
        return Stuck(message, waited, tuple(them))

    old = waiting("OLD", 9 * 3600, "452 4.2.2 Over quota")
    new, newer = waiting("NEW", 7200, "454 4.7.1 Not now", 2), waiting("NEWER", 7000, "454 4.7.1 Not now", 3)
    shown = "454 4.7.1 Not now at 192.0.2.25:587 (mailer spool why NEW)"
    assert describe((old, newer, new)) == f"9h; the most frequent cause is {shown}"
    assert describe((newer, new)) == f"2h: {shown}"
    assert describe((replace(old, waiting=()),)) == "9h, and was not tried (mailer spool why OLD)"
