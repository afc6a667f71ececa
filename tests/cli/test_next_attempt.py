"""When mail is tried next, and what keeps it until then: every listing, page and command says the same."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from outbound.hostile import Server
from outbound.sending import queue
from spools.states import Queue
from testbed.http_client import ask
from testbed.relay import ADMIN_TOKEN, Relay
from testbed.waiting import until

from mailer.cli.obstacles import current_obstacles
from mailer.cli.outlook import outlook
from mailer.cli.spool.ls import line
from mailer.cli.spool.records import record
from mailer.config.load import load
from mailer.config.model import Config
from mailer.mail import clock
from mailer.mail.duration import duration
from mailer.spool import words
from mailer.spool.journal import Event, Kind
from mailer.spool.layout import Place, full_minute
from mailer.spool.scan import spots
from mailer.spool.state import pause, provider_state
from mailer.spool.state.provider_state import ProviderState
from mailer.spool.view.inspect import look
from mailer.spool.view.obstacles import next_attempt
from mailer.spool.view.verdict import verdict

NOW = datetime(2026, 11, 25, 12, 0, 30, tzinfo=UTC)
SOON, LATER = NOW + timedelta(minutes=7), NOW + timedelta(minutes=31)
ACME, OTHER = "a.example:587 as relay", "b.example:587"


def both(**more: Any) -> dict[str, Any]:
    first = {"name": "Acme", "host": "a.example", "username": "relay", "password": "p"}
    return {"forwardSMTP": True, "forwardProviders": [first, {"host": "b.example"}], **more}


def paused(until: datetime) -> ProviderState:
    return ProviderState(open_until=until, opened=NOW, kind="login", trouble="535 5.7.8 no", at=NOW)


def load_of(directory: Path, settings: Mapping[str, Any]) -> Config:
    file = directory / "config.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(settings | {"spoolDir": "spool", "defaultPassword": "p" * 20}))
    return load(file, {}).config


def throttle(states: Queue, stack: ExitStack, first: datetime, *hops: str) -> None:
    """Have a living runner hold a message for each of these hops, for its turn there."""
    for number, hop in enumerate(hops):
        held = stack.enter_context(states.claim(states.new()))
        due = clock.rfc3339((first + timedelta(minutes=number)).timestamp())
        reason = "at most 1 a minute there"
        held.append(Event(at=due, event=Kind.THROTTLED, hop=hop, next=due, reason=reason))


class Case:
    """What is so, and what every surface is to say of mail that could be tried now."""

    def __init__(self, expected: str, *, more: Mapping[str, Any] | None = None, **states: Any) -> None:
        self.expected = expected
        self.config = both(**(more or {}))
        self.providers: dict[str, ProviderState] = states.get("providers", {})
        self.operator: bool = states.get("operator", False)
        self.hops: tuple[str, ...] = states.get("hops", ())
        self.first_turn: datetime = states.get("first_turn", SOON)


ALL = {ACME: paused(LATER), OTHER: paused(SOON)}
SOONEST = f"not before {words.moment(SOON.timestamp())}: "
CASES = {
    "nothing": Case("next at the next run"),
    "one of two is paused": Case("next at the next run", providers={ACME: paused(LATER)}),
    "all are paused": Case(f"{SOONEST}all providers are paused", providers=ALL),
    "mail may leave without": Case(
        "next at the next run", providers=ALL, more={"directDelivery": {"enabled": True}}
    ),
    "the pause was set by a wrong clock": Case(
        "next at the next run", providers=dict.fromkeys(ALL, paused(NOW + timedelta(days=9)))
    ),
    "the pause is over": Case("next at the next run", providers=dict.fromkeys(ALL, paused(NOW))),
    "the operator": Case("next after `mailer resume`: sending is paused", operator=True),
    "both": Case("next after `mailer resume`: sending is paused", operator=True, providers=ALL),
    "turns at one of two": Case("next at the next run", hops=("a.example[192.0.2.1]:587",)),
    "turns that are over": Case(
        "next at the next run", hops=("a.example[192.0.2.1]:587", "b.example:587"), first_turn=NOW
    ),
    "turns at both": Case(
        f"{SOONEST}mail to Acme waits for its turn", hops=("a.example[192.0.2.1]:587", "b.example:587")
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_whatever_keeps_mail_each_view_says_the_same_time_and_cause(name: str, tmp_path: Path) -> None:
    case, now = CASES[name], NOW.timestamp()
    states = Queue(tmp_path / "spool")
    spool = states.spool
    loaded = load_of(tmp_path, case.config)
    provider_state.write(spool, case.providers)
    if case.operator:
        pause.pause(spool, now, "alice", "moving")
    with ExitStack() as stack:
        throttle(states, stack, case.first_turn, *case.hops)
        states.new(received=now - 60)
        keeps = current_obstacles(loaded, spool, now)
        expected = next_attempt(None, keeps)
        assert expected.words(now) == case.expected
        [seen] = [seen for spot in spots(spool, (Place.NEW,)) if (seen := look(spool, spot))]
        told = verdict(seen, [], outlook(loaded, spool, now))[0]
        kept = expected.obstacle
        if kept is None:
            assert (keeps, "Waiting for its first attempt, for 1m: no runner" in told) == ((), True)
            assert "keptBy" not in record(seen, keeps)
            return
        assert f"; {case.expected}" in line(seen, now, keeps)
        shown = record(seen, keeps)
        not_before = None if kept.until is None else clock.rfc3339(kept.until)
        assert (shown["keptBy"], shown["notBefore"]) == (kept.brief, not_before)
        for each in keeps:
            assert each.said in told


@pytest.mark.parametrize(("minutes", "waits"), [(3, "kept"), (6.4, "kept"), (8, ""), (60, "")])
def test_what_is_due_later_than_the_end_of_a_pause_is_kept_by_its_own_schedule(
    minutes: float, waits: str, tmp_path: Path
) -> None:
    states = Queue(tmp_path / "spool")
    provider_state.write(states.spool, ALL)
    due = (NOW + timedelta(minutes=minutes)).timestamp()
    config = load_of(tmp_path, both())
    told = next_attempt(due, current_obstacles(config, states.spool, NOW.timestamp())).words(NOW.timestamp())
    own = f"next in {duration(full_minute(due) - NOW.timestamp())}"
    assert told == (f"{SOONEST}all providers are paused" if waits else own)


@contextmanager
def surfaces(relay: Relay, message: str) -> Iterator[Callable[..., dict[str, str]]]:
    """Give a function that reads every page, and these commands or all, that show a message or the queue."""
    commands = {
        "ls": ("spool", "ls"),
        "ls as JSON": ("spool", "ls", "--json"),
        "stats": ("spool", "stats"),
        "why": ("spool", "why", message),
        "dry run": ("send", "--dry-run"),
        "providers": ("providers",),
        "top": ("top", "--once"),
    }
    pages = ("/", "/queue/new", "/queue/retry", f"/message/{message}", "/search?q=example")

    def read(*only: str) -> dict[str, str]:
        found = {}
        for name in only or commands:
            done = relay.mailer(*commands[name])
            found[name] = done.stdout + done.stderr
        for path in pages:
            answer = ask(relay.http_port, path, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
            found[path] = unescape(re.sub(r"<[^>]*>", "", answer.body.decode()))
        return found

    with relay.monitor():
        yield read


def test_commands_and_pages_say_one_time_and_one_cause(relay: Relay) -> None:
    relay.configure(both())
    states = Queue(relay.spool)
    message, deferred = states.new(), states.new()
    states.defer(deferred, "450 later", seconds=60)
    soon = datetime.now(UTC) + timedelta(minutes=20)
    provider_state.write(states.spool, {ACME: paused(soon + timedelta(minutes=9)), OTHER: paused(soon)})
    with surfaces(relay, message) as read:
        for name, text in read().items():
            when = clock.rfc3339(soon.timestamp()) if "JSON" in name else words.moment(soon.timestamp())
            assert when in text, (name, text)
            assert "paused" in text, (name, text)
        relay.mailer("pause", "--reason", "moving")
        for name, text in read("dry run", "providers").items():
            assert "paused" in text, (name, text)
            assert "mailer resume" in text, (name, text)
            assert "next in" not in text.replace(" next in 0s", ""), (name, text)


def turns_of(relay: Relay) -> dict[str, str]:
    """Which message waits for which turn."""
    waits = r"^(\S+) .*waits for its turn at 127\.0\.0\.1:\d+, about (\S+ \S+Z)"
    listed = relay.mailer("spool", "ls").stdout
    return {when: message for message, when in re.findall(waits, listed, re.MULTILINE)}


def test_mail_that_waits_for_its_turn_says_so_and_so_does_what_waits_behind_it(relay: Relay) -> None:
    """`ratePerHop`: the messages in hand have a turn each, and no view calls the runner missing."""
    with Server() as server:
        provider = {"name": "Acme", "host": "127.0.0.1", "port": server.port}
        relay.configure({"forwardSMTP": True, "forwardProviders": [provider], "sending": {"ratePerHop": 1}})
        for _ in range(4):
            queue(relay.spool)
        with relay.watch() as watch:
            turns = until(lambda: len(seen := turns_of(relay)) == 3 and seen, "all to be in hand")
            last = max(turns)
            message = turns[last]
            with surfaces(relay, message) as read:
                for name, text in read().items():
                    assert last in text, (name, text)
                    assert " turn" in text, (name, text)
                    assert "start one (mailer-send" not in text
            watch.kill()
            assert " turn" not in relay.mailer("spool", "ls").stdout
