"""Counters against an independent count of the ledger, while every program is killed again and again."""

import json
import os
import random
import smtplib
import threading
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from outbound.hostile import DROP, Server
from prometheus_client.parser import text_string_to_metric_families
from testbed.http_client import ask
from testbed.ports import LOOPBACK
from testbed.relay import PASSWORD, USERNAME, Relay
from testbed.waiting import until

MESSAGES = int(os.environ.get("MAILER_COUNTED_MESSAGES", "150"))
"""10,000 is the number that is promised; it takes some minutes."""
ROUNDS = max(3, MESSAGES // 400)
RUNNERS = 2
OUTCOMES = ("sent", "deferred", "bounced", "expired", "uncertain")
ANSWERS = {b"later": "450 4.2.2 full", b"never": "550 5.1.1 unknown"}


class Count:
    """What the ledger says, read with nothing but json: for each (id, recipient, attempt) what came of it."""

    def __init__(self, log: Path) -> None:
        self.lines: Counter[str] = Counter()
        self.recipients: Counter[str] = Counter()
        self.bytes = 0
        self.twice = 0
        envelopes: dict[str, set[str]] = {}
        sent: dict[str, set[str]] = {}
        self.delivered: set[str] = set()
        self.failed: set[tuple[str, int]] = set()
        told: set[tuple[str, str, int]] = set()
        for day in sorted(log.glob("*.jsonl")):
            for line in map(json.loads, day.read_bytes().splitlines()):
                event, id_ = line["event"], line.get("id", "")
                self.lines[event] += 1
                if event == "accepted":
                    envelopes[id_] = set(line["to"])
                    self.bytes += line["size"]
                if event not in OUTCOMES:
                    continue
                for address in line["to"]:
                    self.twice += (id_, address, line["attempt"]) in told
                    self.recipients[event] += (id_, address, line["attempt"]) not in told
                    told.add((id_, address, line["attempt"]))
                    if event == "sent":
                        sent.setdefault(id_, set()).add(address)
                if line.get("message") == "delivered":
                    self.delivered.add(id_)
                elif "message" in line:
                    self.failed.add((id_, line["attempt"]))
        self.accepted_recipients = sum(map(len, envelopes.values()))
        by_recipient = {id_ for id_, to in envelopes.items() if sent.get(id_) == to}
        assert self.delivered & envelopes.keys() == by_recipient

    def as_prometheus(self) -> dict[str, float]:
        """The samples that the monitor should show."""
        return {
            "mailer_messages_accepted_total": self.lines["accepted"],
            "mailer_messages_delivered_total": len(self.delivered),
            "mailer_messages_failed_total": len(self.failed),
            "mailer_recipients_accepted_total": self.accepted_recipients,
            "mailer_accepted_bytes_total": self.bytes,
            "mailer_rejected_total": self.lines["rejected"],
            "mailer_limited_total": self.lines["limited"],
            "mailer_logins_failed_total": self.lines["login-failed"],
            "mailer_delivery_delay_seconds_count": self.recipients["sent"],
            **{f"mailer_recipients_total {event}": self.recipients[event] for event in OUTCOMES},
            **{
                f"mailer_actions_total {event}": self.lines[event]
                for event in ("held", "released", "requeued", "recovered", "removed")
            },
        }


class Submitter(threading.Thread):
    """Submits mail of every fate until it is told to stop, and comes back when the receiver dies."""

    def __init__(self, relay: Relay, seed: int) -> None:
        super().__init__(daemon=True)
        self.relay = relay
        self.chance = random.Random(seed)
        self.done = threading.Event()
        self.accepted = 0
        self.wanted = 0
        """Accepted messages after which it rests."""

    def run(self) -> None:
        while not self.done.is_set():
            with suppress(smtplib.SMTPException, OSError), smtplib.SMTP(LOOPBACK, self.relay.port) as session:
                session.login(USERNAME, PASSWORD)
                while not self.done.is_set():
                    if self.accepted < self.wanted:
                        self._submit(session)
                    else:
                        self.done.wait(0.02)

    def _submit(self, session: smtplib.SMTP) -> None:
        fates = self.chance.choices(["sent", "later", "never"], [8, 1, 1], k=self.chance.choice((1, 1, 1, 3)))
        session.mail("app@example.com")
        for number, fate in enumerate(fates):
            session.rcpt(f"{fate}.{number}@example.net")
        if self.chance.random() < 0.1:
            session.docmd("RCPT", "TO:<no address>")
        if session.data(b"Subject: x\r\n\r\n" + b"x" * self.chance.randrange(900))[0] == 250:
            self.accepted += 1


def shown(port: int) -> dict[str, float]:
    """Every counter of the monitor."""
    text = ask(port, "/metrics", headers={"Accept": "text/plain"}).body.decode()
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if family.type in {"counter", "histogram"} and not sample.name.startswith("process_")
    }


def test_counters_are_those_of_an_independent_count_and_never_go_back(relay: Relay) -> None:
    chance = random.Random(6)
    script = {
        "rcpt": lambda _, line: next((ANSWERS[word] for word in ANSWERS if b"<" + word in line), None),
        "dot": lambda *_: DROP if chance.random() < 0.05 else None,
    }
    seen: dict[str, float] = {}
    with Server(script) as server:
        relay.configure(
            {
                "forwardSMTP": True,
                "forwardProviders": [{"host": LOOPBACK, "port": server.port}],
                "batchDelay": 0,
                "batchSize": 2,
            }
        )
        relay.mailer("user", "add", "limited", "--max-per-hour", "1", given=f"{PASSWORD}\n")
        submitter = Submitter(relay, 1)
        submitter.start()
        for number in range(ROUNDS):
            _one_round(relay, submitter, MESSAGES * (number + 1) // ROUNDS, seen, chance)
        submitter.done.set()
        submitter.join()
        del server.script["dot"]
        _acts_of_an_operator(relay)
    counted = Count(relay.spool / "log")
    with relay.monitor():
        final = shown(relay.http_port)
        told = ask(relay.http_port, "/metrics").json
    assert_not_less(final, seen)
    expected = counted.as_prometheus()
    assert {name: final[name] for name in expected} == expected
    assert (told["total_emails"], told["total_recipients"]) == (
        counted.lines["accepted"],
        counted.accepted_recipients,
    )
    assert (told["successful_emails"], told["failed_emails"]) == (len(counted.delivered), len(counted.failed))
    for event in ("sent", "deferred", "bounced", "uncertain"):
        assert counted.recipients[event], f"the test makes {event} mail"
    for event in (
        "accepted",
        "rejected",
        "limited",
        "login-failed",
        "requeued",
        "held",
        "removed",
    ):
        assert counted.lines[event], f"the test makes lines that say {event}"
    print(f"{counted.lines}, {counted.recipients}, {counted.twice} told twice")  # noqa: T201


def _one_round(
    relay: Relay, submitter: Submitter, wanted: int, seen: dict[str, float], chance: random.Random
) -> None:
    """Run everything until so many messages were accepted, and kill all of it, in any order."""
    with ExitStack() as running:
        processes = [running.enter_context(relay.serve())]
        processes += [running.enter_context(relay.watch()) for _ in range(RUNNERS)]
        processes.append(running.enter_context(relay.monitor()))

        def enough() -> bool:
            now = shown(relay.http_port)
            assert_not_less(now, seen)
            seen.update(now)
            return submitter.accepted >= wanted

        submitter.wanted = wanted + 20  # so that they die at work
        _be_refused(relay)
        until(enough, "messages to be accepted")
        for process in chance.sample(processes, len(processes)):
            process.kill()


def _be_refused(relay: Relay) -> None:
    """Log in wrongly, and submit more than this user may."""
    with smtplib.SMTP(LOOPBACK, relay.port) as session:
        with pytest.raises(smtplib.SMTPAuthenticationError):
            session.login(USERNAME, "wrong")
        session.login("limited", PASSWORD)
        while (code := session.mail("app@example.com")[0]) == 250:
            session.rcpt("sent@example.net")
            session.data(b"Subject: x\r\n\r\n")
        assert code == 451


def _acts_of_an_operator(relay: Relay) -> None:
    for command in (
        ("--once",),
        ("spool", "retry", "--all"),
        ("--once",),
        ("spool", "hold", "--all", "--state", "failed"),
        ("spool", "rm", "--all", "--state", "hold"),
    ):
        done = relay.mailer_send(*command) if command[0] == "--once" else relay.mailer(*command)
        assert done.returncode == 0, done.stderr


def assert_not_less(now: dict[str, float], before: dict[str, float]) -> None:
    less = {name: (value, now.get(name)) for name, value in before.items() if now.get(name, -1) < value}
    assert not less
