"""What becomes of mail while a budget is used up, by the real programs."""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import pytest
from outbound.hostile import Server, established
from outbound.internet import Internet
from outbound.runs import Cron
from outbound.sending import TO, found, queue
from testbed.faketime import faketime, fast_clock
from testbed.http_api import DOMAIN, HttpApi, mailgun
from testbed.http_client import ask
from testbed.ports import LOOPBACK
from testbed.relay import ADMIN_TOKEN, Relay
from testbed.waiting import until

from mailer.mail.clock import seconds
from mailer.send import unbudgeted
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.layout import STATE
from mailer.spool.state import provider_state, suppression
from mailer.spool.state.provider_state import ProviderState
from mailer.spool.view.obstacles import ExhaustedBudget, obstacles


def budgeted(server: Server, name: str = "Acme", **keys) -> dict[str, object]:
    return {"name": name, "host": LOOPBACK, "port": server.port, **keys}


def places(relay: Relay, messages: list[str]) -> Counter[str]:
    seen = [found(relay.spool, message) for message in messages]
    return Counter(one.place for one in seen if one)


def test_the_next_provider_gets_what_the_first_has_no_budget_for(relay: Relay) -> None:
    """By recipients: three of five in one message, and the rest of it and the others to the next one."""
    with Server() as first, Server() as second:
        mine = budgeted(first, maxPerDay=3, whenUsedUp="next")
        relay.configure({"forwardSMTP": True, "forwardProviders": [mine, budgeted(second, "Other")]})
        queue(relay.spool, [f"user{number}@example.net" for number in range(5)])
        assert relay.mailer_send("--once").returncode == 0
        queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
    assert [message.recipients for message in first.messages] == [
        ["user0@example.net", "user1@example.net", "user2@example.net"]
    ]
    assert sum(len(message.recipients) for message in second.messages) == 3
    left = [name for name in (relay.spool / STATE).iterdir() if name.name.startswith("budget-run-")]
    assert left == []


def test_mail_waits_in_new_while_a_budget_is_used_up_and_nothing_bounces(relay: Relay) -> None:
    """By messages. What was in hand when it was used up waits in `retry/`, and that was no attempt."""
    with Server() as server:
        mine = budgeted(server, maxPerDay=3, budgetCounts="messages")
        relay.configure({"forwardSMTP": True, "forwardProviders": [mine]})
        messages = [queue(relay.spool, ["a@example.net", "b@example.net"]) for _ in range(5)]
        assert relay.mailer_send("--once").returncode == 0
        assert len(server.messages) == 3
        assert places(relay, messages) == {"retry": 2}
        waiting = next(one for one in (found(relay.spool, m) for m in messages) if one)
        assert waiting.events[-1]["event"] == "deferred"
        assert "the allowance of Acme (3 a day, messages) is used up" in waiting.events[-1]["reply"]
        assert "attempt" not in waiting.events[-1]
        later = [queue(relay.spool) for _ in range(30)]
        assert relay.mailer_send("--once").returncode == 0
        assert places(relay, later) == {"new": 30}
        assert len(server.messages) == 3


def test_what_a_dead_runner_had_in_hand_is_taken_over_while_a_budget_is_used_up(relay: Relay) -> None:
    """Its recipient is on the suppression list by now: it needs no budget, and does not wait for one."""
    with Server() as server:
        relay.configure({"forwardSMTP": True, "forwardProviders": [budgeted(server, maxPerDay=1)]})
        queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        left = queue(relay.spool, ["bob@example.net"])
        assert relay.mailer("suppress", "add", "bob@example.net").returncode == 0
        (relay.spool / "new" / left).rename(relay.spool / "cur" / left)
        assert relay.mailer_send("--once").returncode == 0
        assert places(relay, [left]) == {"failed": 1}
        assert len(server.messages) == 1


def ends(relay: Relay, message: str) -> list[object]:
    """What the journal says became of it, once it has failed."""
    one = found(relay.spool, message)
    return [event["event"] for event in one.events] if one and one.place == "failed" else []


def test_mail_that_is_too_old_or_suppressed_waits_for_no_budget(relay: Relay) -> None:
    """By a fast clock, and by a runner that stays: what came before the budget was used up, and after."""
    with Server() as server, fast_clock(200) as fast:
        mine = budgeted(server, maxPerDay=1, budgetCounts="messages")
        relay.configure(
            {
                "forwardSMTP": True,
                "forwardProviders": [mine],
                "retry": {"schedule": ["5m"], "maxAge": "30m"},
                "bounce": "off",
            }
        )
        before = [queue(relay.spool) for _ in range(3)]
        with relay.watch(under=fast):
            until(lambda: server.messages, "the first message")
            listed, after = queue(relay.spool, ["eve@example.org"]), queue(relay.spool)
            assert relay.mailer("suppress", "add", "eve@example.org").returncode == 0
            until(lambda: "bounced" in ends(relay, listed), "the suppressed one to bounce")
            until(lambda: "expired" in ends(relay, after), "one that came later to expire")
            until(lambda: sum("expired" in ends(relay, m) for m in before) == 2, "the others to expire")
        assert len(server.messages) == 1


def test_only_mail_that_needs_no_budget_is_claimed_while_all_are_used_up(relay: Relay) -> None:
    """The rest stays in `new/`, and what is due in `retry/`."""
    with Server() as server:
        relay.configure(
            {
                "forwardSMTP": True,
                "forwardProviders": [budgeted(server, maxPerDay=2)],
                "retry": {"schedule": ["1m"], "maxAge": "2h"},
            }
        )
        two = [queue(relay.spool, ["a@example.net", "b@example.net"]) for _ in range(2)]
        assert relay.mailer_send("--once", under=faketime("+0h")).returncode == 0
        assert places(relay, two) == {"retry": 1}
        [due] = [message for message in two if found(relay.spool, message)]
        listed, usual = queue(relay.spool, ["eve@example.org"]), queue(relay.spool)
        assert relay.mailer("suppress", "add", "eve@example.org").returncode == 0
        soon = faketime("+3m")
        assert relay.mailer_send("--once", under=soon).returncode == 0
        assert places(relay, [listed]) == {"failed": 1}
        assert (places(relay, [usual]), places(relay, [due])) == ({"new": 1}, {"retry": 1})
        assert relay.mailer("suppress", "add", "a@example.net").returncode == 0
        assert relay.mailer_send("--once", under=soon).returncode == 0
        left = found(relay.spool, due)
        assert left is not None
        assert (left.place, left.statuses["a@example.net"]) == ("retry", "bounced")
        assert left.statuses["b@example.net"] == "deferred"
        for later in ("+3h", "+185m"):  # No mail is given up on one reading of the clock.
            assert relay.mailer_send("--once", under=faketime(later)).returncode == 0
        assert places(relay, [usual, due]) == {"failed": 2}
        assert len(server.messages) == 1


def test_of_a_long_queue_each_look_reads_a_share_and_runs_every_second_minute_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share that follows the clock would leave out half of the mail: no run sees an odd minute."""
    monkeypatch.setattr(unbudgeted, "_ALL_OF", 0)
    with Server() as server:
        settings = {"forwardSMTP": True, "forwardProviders": [budgeted(server, maxPerDay=1)]}
        cron = Cron(tmp_path, settings | {"retry": {"maxAge": "9d"}})
        cron.queue("app@example.com", ["bob@example.net"])
        cron.run()
        assert len(server.messages) == 1
        waiting = {cron.queue("app@example.com", ["eve@example.org"]) for _ in range(30)}
        with Spool.open(cron.spool) as spool:
            suppression.add(spool, [suppression.Entry(address="eve@example.org")])
        left = [len(waiting)]
        while left[-1] and len(left) < 700:
            cron.run(after=120.0)
            left.append(sum(each.place == "new" for each in cron.found().values()))
        assert left[1] > 0 == left[-1]
        assert {each.place for name, each in cron.found().items() if name in waiting} == {"failed"}
        assert len(server.messages) == 1


def test_a_run_that_is_to_end_waits_for_no_budget(relay: Relay) -> None:
    """What waits in hand goes to `retry/` at once, not back to `new/` when the grace is over."""
    with Server() as server:
        relay.configure({"forwardSMTP": True, "forwardProviders": [budgeted(server, maxPerMinute=1)]})
        messages = [queue(relay.spool) for _ in range(3)]

        def waiting() -> int:
            left = [one for one in (found(relay.spool, message) for message in messages) if one]
            return sum(event["event"] == "throttled" for one in left for event in one.events)

        with relay.watch() as watch:
            until(lambda: waiting() == 2, "two of three to wait in hand")
            watch.stop()
        assert len(server.messages) == 1
        assert places(relay, messages) == {"retry": 2}


def test_every_view_says_what_is_used_and_when_it_is_free_again(relay: Relay) -> None:
    """Of a provider and of a domain, beside a message that waits for the provider."""
    with Server() as server:
        mine = budgeted(server, maxPerDay=3, maxPerMinute=100)
        relay.configure(
            {
                "forwardSMTP": True,
                "forwardProviders": [mine],
                "domainBudgets": [{"domains": ["example.net"], "maxPerHour": 4, "budgetCounts": "messages"}],
            }
        )
        queue(relay.spool, ["a@example.net", "b@example.net", "c@example.net"])
        assert relay.mailer_send("--once").returncode == 0
        assert len(server.messages) == 1
    message = queue(relay.spool)
    rows = [json.loads(line) for line in relay.mailer("providers", "--json").stdout.splitlines()]
    [free_at] = [use["freeAt"] for row in rows for use in row["budget"] if use["freeAt"]]
    assert [(row.get("name"), row.get("domains"), row["counts"]) for row in rows] == [
        ("Acme", None, "recipients"),
        (None, "example.net", "messages"),
    ]
    assert rows[0]["budget"][1] | {"freeAt": ""} == {"per": "day", "allowed": 3, "used": 3, "freeAt": ""}
    assert rows[1]["budget"] == [{"per": "hour", "allowed": 4, "used": 1, "freeAt": ""}]
    said = {
        "providers": relay.mailer("providers"),
        "ls": relay.mailer("spool", "ls"),
        "why": relay.mailer("spool", "why", message),
        "dry run": relay.mailer("send", "--dry-run"),
    }
    # Each reads the clocks anew: to the minute they say the same, but for its end.
    told = {name: done.stdout + done.stderr for name, done in said.items()}
    with relay.monitor():
        bearer = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        page = ask(relay.http_port, "/", headers=bearer).body.decode()
        told["page"] = unescape(re.sub(r"<[^>]*>", "", page))
        scraped = ask(relay.http_port, "/metrics", headers={"Accept": "text/plain"}).body.decode()
    for name, text in told.items():
        moments = re.findall(r"(?:before|at) (\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ)", text)
        assert any(abs(seconds(moment) - seconds(free_at)) < 2 for moment in moments), (name, text)
        assert "3 of 3 a day" in text, (name, text)
    assert "mail for example.net: 1 of 4 an hour (messages)" in told["providers"]
    assert "example.net 1 of 4 an hour (messages)" in told["page"]
    assert 'mailer_budget_used{budget="Acme",per="day"} 3.0' in scraped
    assert 'mailer_budget_allowed{budget="example.net",per="hour"} 4.0' in scraped


NOW = datetime(2026, 11, 25, 12, 0, 30, tzinfo=UTC).timestamp()
FIRST, SECOND = "a.example:587", "b.example:587"
WAITS, PASSES = ExhaustedBudget(NOW + 600, True, "5 of 5"), ExhaustedBudget(NOW + 600, False, "5 of 5")
SOONER = ExhaustedBudget(NOW + 300, False, "5 of 5")


@pytest.mark.parametrize(
    ("used_up", "paused", "kept_for", "where"),
    [
        ({}, {}, 0, ""),
        ({FIRST: WAITS}, {}, 600, "Acme"),
        ({FIRST: PASSES}, {}, 0, ""),
        ({SECOND: WAITS}, {}, 0, ""),
        ({FIRST: PASSES, SECOND: SOONER}, {}, 300, "Other"),
        ({FIRST: PASSES, SECOND: WAITS}, {}, 600, "Other"),
        # While a provider is paused nothing waits for its budget.
        ({FIRST: WAITS}, {FIRST: 900}, 0, ""),
        ({FIRST: WAITS, SECOND: SOONER}, {FIRST: 100}, 300, "Other"),
        ({FIRST: PASSES}, {SECOND: 900}, 600, "Acme"),
        ({FIRST: PASSES}, {SECOND: 100}, 0, ""),
    ],
)
def test_mail_is_kept_by_the_budget_that_it_waits_for(
    used_up: Mapping[str, ExhaustedBudget],
    paused: Mapping[str, float],
    kept_for: float,
    where: str,
    tmp_path: Path,
) -> None:
    ways = {FIRST: "Acme", SECOND: "Other"}
    with Spool.open(tmp_path / "spool", create=True) as spool:
        provider_state.write(
            spool,
            {
                account: ProviderState(open_until=datetime.fromtimestamp(NOW + pause, UTC), kind="login")
                for account, pause in paused.items()
            },
        )
        found = obstacles(spool, ways, NOW, lambda _hop: "", used_up)
    told = [(each.until, each.brief) for each in found]
    expected = [(NOW + kept_for, f"the allowance of {where} is used up")] if where else []
    assert told == expected
    assert all(words.moment(NOW + kept_for) in each.said for each in found)


def test_a_domains_budget_keeps_back_its_recipients_alone(relay: Relay) -> None:
    with Server() as server:
        relay.configure(
            {
                "forwardSMTP": True,
                "forwardProviders": [budgeted(server)],
                "domainBudgets": [
                    {"domains": ["elsewhere.example"], "maxSessions": 1},
                    {"domains": ["gmail.example", ".mail.example"], "maxPerHour": 2},
                ],
            }
        )
        limited = ["a@gmail.example", "b@GMAIL.example", "c@eu.mail.example"]
        message = queue(relay.spool, [*limited, "d@example.net", "e@mail.example"])
        assert relay.mailer_send("--once").returncode == 0
    sent = sorted(to for message in server.messages for to in message.recipients)
    assert sent == sorted([*limited[:2], "d@example.net", "e@mail.example"])
    left = found(relay.spool, message)
    assert left is not None
    assert (left.place, left.statuses[limited[2]]) == ("retry", "deferred")
    assert "gmail.example, .mail.example (2 an hour, recipients)" in left.events[-1]["reply"]
    order = ("route", "--json", "--from", "app@example.com", "--to", "x@eu.mail.example", "--to", TO)
    limited_too, other = map(json.loads, relay.mailer(*order).stdout.splitlines())
    used, _, again = limited_too["budget"].partition("; free again at ")
    assert used == "mail for gmail.example, .mail.example: 2 of 2 an hour (recipients)"
    assert 0 < seconds(again) - time.time() < 3600
    assert other["budget"] == ""
    assert f"\n    {used}; free again at {again}\n" in relay.mailer(*order[:1], *order[2:]).stdout


def test_a_damaged_record_is_named_as_the_reason_and_replaced_by_the_next_run(relay: Relay) -> None:
    """Garbage in it: an operator who reads "1,000,000,000 of 2" looks for the mail that nobody sent."""
    with Server() as server:
        relay.configure({"forwardSMTP": True, "forwardProviders": [budgeted(server, maxPerHour=2)]})
        queue(relay.spool, ["a@example.net"])
        assert relay.mailer_send("--once").returncode == 0
        (record,) = (relay.spool / "state").glob("budget-*.json")
        record.write_bytes(b"garbage\n")
        queue(relay.spool, ["b@example.net"])
        shown = relay.mailer("providers")
        assert "not known (its record is or was unreadable), so all of 2 an hour" in shown.stdout
        assert "1,000,000,000" not in shown.stdout + shown.stderr
        assert relay.mailer_send("--once").returncode == 0
        assert json.loads(record.read_bytes())["used"]
    assert len(server.messages) == 1


def test_a_warm_up_allows_more_on_its_second_day(relay: Relay) -> None:
    with Server() as server:
        relay.configure(
            {"forwardSMTP": True, "forwardProviders": [budgeted(server, warmUp=[2, 4], maxPerDay=100)]}
        )
        for day, sent in ((0, 2), (1, 6), (2, 7)):
            under = faketime(f"+{day * 25}h")
            messages = [queue(relay.spool) for _ in range(7 if day == 0 else 0)]
            relay.mailer("spool", "retry", "--all")
            assert relay.mailer_send("--once", under=under).returncode == 0
            assert len(server.messages) == sent
            [row] = relay.mailer("providers", "--json", under=under).stdout.splitlines()
            [use] = json.loads(row)["budget"]
            assert (use["per"], use["allowed"], use["used"]) == ("day", *((2, 2), (4, 4), (100, 1))[day])
            assert bool(use["freeAt"]) is (day < 2)
    assert places(relay, messages) == {}


def test_all_runners_together_have_so_many_connections_to_a_domain(relay: Relay) -> None:
    """Its exchanger sees no more of them, however much mail there is; another domain's does."""
    zone = {("one.test", "MX"): ["10 mx.one.test."], ("mx.one.test", "A"): ["127.0.0.2"]}
    zone |= {("two.test", "MX"): ["10 mx.two.test."], ("mx.two.test", "A"): ["127.0.0.3"]}
    answer, seen = threading.Event(), list[int]()
    with Internet.of(zone) as internet:
        # A destination gets more connections once it has taken something.
        hold = {"mail": [None, None, lambda _session, _line: answer.wait() and None]}
        limited = internet.server(
            "127.0.0.2", hold | {"banner": lambda _session, _line: seen.append(established(limited))}
        )
        other = internet.server("127.0.0.3", hold)
        budget = {"domains": ["one.test"], "maxSessions": 2}
        relay.configure(internet.settings() | {"domainBudgets": [budget]})
        for number in range(8):
            queue(relay.spool, [f"{number}@one.test"])
            queue(relay.spool, [f"{number}@two.test"])
        with relay.watch(), relay.watch():
            until(lambda: established(other) >= 3, "three connections to the other")
            until(lambda: established(limited) == 2, "two connections")
            answer.set()
            until(lambda: len(limited.messages) == len(other.messages) == 8, "all of them")
    assert max(seen) <= 2


def test_what_no_connection_was_made_for_is_not_used(relay: Relay) -> None:
    with Server() as server:
        port = server.port
    relay.configure(
        {
            "forwardSMTP": True,
            "forwardProviders": [{"name": "Acme", "host": LOOPBACK, "port": port, "maxPerDay": 1}],
            "retry": {"schedule": ["1m"]},
        }
    )
    message = queue(relay.spool)
    relay.mailer_send("--once")
    with Server(port=port) as server:
        relay.mailer("providers", "reset", "--all")
        relay.mailer("spool", "retry", message)
        relay.mailer_send("--once")
        assert len(server.messages) == 1


def test_a_request_that_is_answered_429_uses_nothing_and_one_without_an_answer_does(relay: Relay) -> None:
    """When it may be asked again the interface says itself; after 504 the mail may have been sent."""
    with HttpApi(mailgun) as api:
        provider = {
            "api": "mailgun",
            "apiUrl": api.url,
            "username": DOMAIN,
            "password": "key",
            "maxPerDay": 9,
        }
        relay.configure({"forwardSMTP": True, "forwardProviders": [provider]})
        for said, used in ((429, 0), (504, 2)):
            api.script = [(said, {"message": "no"}, {"Retry-After": "60"})]
            queue(relay.spool, ["a@example.net", "b@example.net"])
            relay.mailer("providers", "reset", "--all")
            assert relay.mailer_send("--once").returncode == 0
            [row] = map(json.loads, relay.mailer("providers", "--json").stdout.splitlines())
            assert row["budget"][0]["used"] == used
        assert api.requests == 2


def test_recipients_that_a_servers_limits_leave_for_later_are_not_used(relay: Relay) -> None:
    """Six recipients, one at a time (RFC 9422), use six of an allowance of seven."""
    with Server(extensions=("PIPELINING", "LIMITS RCPTMAX=1")) as server:
        relay.configure({"forwardSMTP": True, "forwardProviders": [budgeted(server, maxPerDay=7)]})
        queue(relay.spool, [f"user{number}@example.net" for number in range(6)])
        assert relay.mailer_send("--once").returncode == 0
        assert len(server.messages) == 6
    [row] = [json.loads(line) for line in relay.mailer("providers", "--json").stdout.splitlines()]
    assert row["budget"][0]["used"] == 6
