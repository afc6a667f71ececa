"""What becomes of mail while a budget is used up, by the real programs."""

from collections import Counter

from hostile import Server
from sending import found, queue
from testbed.ports import LOOPBACK
from testbed.relay import Relay

from mailer.spool.layout import STATE


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


def test_a_domains_budget_keeps_back_its_recipients_alone(relay: Relay) -> None:
    with Server() as server:
        relay.configure(
            {
                "forwardSMTP": True,
                "forwardProviders": [budgeted(server)],
                "domainBudgets": [{"domains": ["gmail.example", ".mail.example"], "maxPerHour": 2}],
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
