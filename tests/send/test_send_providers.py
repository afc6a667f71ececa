"""All runs skip a provider whose circuit breaker is open; no mail is lost or bounced by it."""

import json
import os
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outbound.hostile import DROP, Server
from outbound.sending import LOGIN, TO, at, forward_to, found, outcomes, queue
from testbed.faketime import faketime
from testbed.ports import LOOPBACK
from testbed.relay import Relay

from mailer.mail.outcome import Scope, Status
from mailer.mail.reply import Reply
from mailer.maillog.events import MailLog
from mailer.send.phase import Phase
from mailer.send.quota import quota_of
from mailer.send.routes import breaker, providers
from mailer.send.routes.breaker import Ailment
from mailer.send.routes.turns import Turns
from mailer.send.trouble import judge
from mailer.spool.directory import Spool
from mailer.spool.state import provider_state
from mailer.spool.state.provider_state import Health, ProviderState, Witness

REFUSED = "535 5.7.8 bad credentials"
LATER = faketime("+3m")
NOW = datetime(2026, 11, 25, tzinfo=UTC)

QUOTAS = [
    "550 5.4.5 Daily user sending limit exceeded. For more information on Gmail sending limits",
    "550 5.4.5 Daily SMTP relay sending limit exceeded for customer",
    "421 4.7.0 Try again later, closing connection.",
    "421 4.7.28 Gmail has detected an unusual rate of mail originating from your DKIM domain",
    "454 4.7.0 Too many login attempts, please try again later.",
    "421 4.4.5 Server busy, try again later.",
    "450 4.2.1 Peak SMTP relay limit exceeded for customer.",
    "454 Throttling failure: Daily message quota exceeded.",
    "454 Throttling failure: Maximum sending rate exceeded.",
    "554 Reject by behaviour spam ANTISPAM_BAT[01201311R196xxxxx]: too frequently sending",
    "526 Daily quota exceeded",
    "552 Sending quota exceeded",
    "451 4.7.500 Server busy. Please try again later",
    "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients",
    "451 You have exceeded your messaging limits",
    "450 4.7.1 Error: rate limit exceeded",
    "550 5.7.1 Sending quota exceeded",
]

NO_QUOTA = [
    "452 4.2.2 The email account that you tried to reach is over quota",
    "552 5.2.2 mailbox quota exceeded, daily limit",
    "552 Mailbox limit exceeded",
    "552 5.3.4 Message size limit exceeded",
    "451 4.7.1 Greylisted, try again later",
    "450 4.2.1 The user you are trying to contact is receiving mail too quickly",
    "550 5.7.1 you are listed",
    "550 5.7.1 rejected for its high spam rate",
    "250 2.0.0 daily limit exceeded",
]


@pytest.mark.parametrize("reply", QUOTAS)
def test_a_used_up_quota_is_known_by_its_words_and_never_bounces(reply: str) -> None:
    assert quota_of(reply)
    code, _, text = reply.partition(" ")
    for phase in (Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT):
        assert judge(phase, Reply(int(code), (text,))) == (Status.DEFERRED, Scope.PROVIDER)


@pytest.mark.parametrize("reply", NO_QUOTA)
def test_a_full_mailbox_a_large_message_and_greylisting_are_no_quota_of_ours(reply: str) -> None:
    assert quota_of(reply) is None


@pytest.mark.parametrize(
    "text", ["Connection refused", "Connection timed out", "connection closed by the server"]
)
def test_an_error_of_the_system_is_no_refusal_of_our_host(text: str) -> None:
    """The provider has said nothing."""
    assert Ailment.of(Scope.HOST, text).kind is breaker.Kind.DOWN


def test_a_provider_that_is_down_is_not_said_to_refuse_our_host(relay: Relay, free_port: int) -> None:
    relay.configure(forward_to(free_port))
    ids = [queue(relay.spool) for _ in range(3)]
    assert relay.mailer_send("--once").returncode == 0
    why = "it does not work: Connection refused"
    assert f"is paused, {why}" in relay.mailer("spool", "why", ids[0]).stdout
    assert "it does not work\n" in relay.mailer("providers").stdout


@pytest.mark.parametrize(("scope", "text"), [(Scope.PROVIDER, REFUSED), (Scope.HOST, QUOTAS[0])])
def test_login_and_quota_open_at_once_where_no_mail_had_a_part_in_it(scope: Scope, text: str) -> None:
    state = breaker.failed(ProviderState(), Ailment.of(scope, text), NOW)
    assert provider_state.health(state, NOW) is Health.OPEN
    assert breaker.next_try(state, NOW)


def mail(number: int, *, sender: str = "", domain: str = "") -> Witness:
    return Witness(f"M{number}", sender or f"a@{number}.example", (domain or f"{number}.example.net",))


LOST, UNCLEAR_421 = "connection closed by the server", "421 closing"


@pytest.mark.parametrize("text", [REFUSED, *QUOTAS, LOST, UNCLEAR_421, "550 helo rejected"])
@pytest.mark.parametrize("scope", [Scope.HOST, Scope.PROVIDER])
def test_one_mail_never_opens_it_whatever_is_said_however_often(scope: Scope, text: str) -> None:
    state = ProviderState()
    for _ in range(10):
        state = breaker.failed(state, Ailment.of(scope, text, mail(1)), NOW)
    assert provider_state.health(state, NOW) is Health.CLOSED


@pytest.mark.parametrize(
    ("text", "others", "opens"),
    [
        ("535 5.7.8 bad credentials", [mail(2)], True),
        ("550 5.4.5 daily quota exceeded", [mail(2)], True),
        # Of one sender, as with an application that has only one; or to one domain, as with its operator.
        ("550 5.4.5 daily quota exceeded", [mail(2, sender="a@1.example")], True),
        ("550 5.4.5 daily quota exceeded", [mail(2, domain="1.example.net")], True),
        ("550 5.4.5 daily quota exceeded", [mail(2, sender="a@1.example", domain="1.example.net")], False),
        (UNCLEAR_421, [mail(2)], False),
        (UNCLEAR_421, [mail(2), mail(3)], True),
        (UNCLEAR_421, [mail(n, sender="a@1.example") for n in range(2, 9)], False),
        (UNCLEAR_421, [mail(n, domain="1.example.net") for n in range(2, 9)], False),
        (LOST, [mail(2), mail(3)], True),
    ],
)
def test_other_mails_open_it_that_share_no_more_than_the_words_allow(
    text: str, others: list[Witness], *, opens: bool
) -> None:
    scope = Scope.PROVIDER if text[0] == "5" else Scope.HOST
    state = ProviderState()
    for one in (mail(1), *others):
        state = breaker.failed(state, Ailment.of(scope, text, one), NOW)
    assert (provider_state.health(state, NOW) is Health.OPEN) == opens


def test_the_probe_is_another_mail_than_those_that_opened_it_for_as_long_as_there_may_be_one() -> None:
    state = ProviderState()
    for number in (1, 2, 3):
        state = breaker.failed(state, Ailment.of(Scope.HOST, LOST, mail(number)), NOW)
    over = state.open_until
    assert over
    assert breaker.next_try(state, over, "M4") is None
    assert [breaker.next_try(state, over, f"M{n}") for n in (1, 2, 3)] == [
        over + timedelta(seconds=breaker.PROBE)
    ] * 3
    assert breaker.next_try(state, over + timedelta(seconds=breaker.PROBE), "M1") is None


def test_a_connection_that_fails_opens_the_third_time_in_a_row() -> None:
    state = ProviderState()
    for expected in (Health.CLOSED, Health.CLOSED, Health.OPEN):
        state = breaker.failed(state, Ailment.of(Scope.HOST, "Connection refused"), NOW)
        assert provider_state.health(state, NOW) is expected
    assert (
        breaker.succeeded(breaker.failed(ProviderState(), Ailment.of(Scope.HOST, "x"), NOW), NOW).failures
        == 0
    )


def test_one_message_that_breaks_every_session_does_not_keep_it_open() -> None:
    ailment = Ailment.of(Scope.HOST, LOST, mail(1))
    half_open = ProviderState(open_until=NOW, trips=1, failures=3, witnesses=(mail(1),), probe_until=NOW)
    after = breaker.failed(half_open, ailment, NOW + timedelta(seconds=1))
    assert breaker.next_try(after, NOW + timedelta(seconds=1), "M2") is None


def test_half_open_lets_one_message_through_at_a_time() -> None:
    state = ProviderState(open_until=NOW, trips=1)
    later = NOW + timedelta(seconds=5)
    assert provider_state.health(state, later) is Health.HALF_OPEN
    assert breaker.next_try(state, later) is None
    probed = breaker.probing(state, later)
    assert breaker.next_try(probed, later)
    after = later + timedelta(seconds=breaker.PROBE)
    assert breaker.next_try(probed, after) is None, "a probe whose runner died"
    assert provider_state.health(breaker.succeeded(probed, later), later) is Health.CLOSED


@given(st.integers(0, 30), st.sampled_from([REFUSED, *QUOTAS]))
def test_pauses_grow_and_are_bounded(trips: int, text: str) -> None:
    state = ProviderState(open_until=NOW, trips=trips)
    again = breaker.failed(state, Ailment.of(Scope.PROVIDER, text), NOW)
    assert again.open_until
    assert 60 <= (again.open_until - NOW).total_seconds() <= breaker.LONGEST


@pytest.mark.parametrize("wrong", [timedelta(days=3650), timedelta(days=-3650)])
def test_a_pause_that_a_wrong_clock_set_is_over(wrong: timedelta) -> None:
    state = breaker.failed(ProviderState(), Ailment.of(Scope.PROVIDER, REFUSED), NOW + wrong)
    assert breaker.next_try(state, NOW) is None


def test_what_succeeds_after_it_opened_began_before_and_closes_nothing() -> None:
    state = breaker.failed(ProviderState(), Ailment.of(Scope.PROVIDER, REFUSED), NOW)
    assert breaker.succeeded(state, NOW) == state


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\0" * 100,
        b"[]",
        b'{"a": 1, "b": {"openUntil": "soon"}}',
        b'{"a": {"trips": 9999}, "b": {"trips": -1}}',
        b"{" * 99_999,
    ],
)
def test_a_damaged_state_file_is_as_good_as_none(tmp_path: Path, damage: bytes) -> None:
    with Spool.open(tmp_path / "spool", create=True) as spool:
        (tmp_path / "spool" / "state" / "providers.json").write_bytes(damage)
        assert provider_state.read(spool) == {}
        state = ProviderState(open_until=NOW, trouble=REFUSED)
        assert provider_state.change(spool, "a:1", lambda _: state) == {"a:1": state}
        assert provider_state.read(spool) == {"a:1": state}


class Way:
    """As much of a route as `Turns` looks at."""

    def __init__(self, name: str) -> None:
        self.name = name


@given(st.lists(st.integers(0, 9), min_size=2, max_size=5), st.floats(0, 1, exclude_max=True))
def test_equals_share_by_weight_however_few_messages_there_are(weights: list[int], start: float) -> None:
    group = [(Way(f"{at}"), weight) for at, weight in enumerate(weights)]
    turns = Turns([[(Way("direct"), 0)], group], lambda: start)  # type: ignore[list-item]
    orders = [turns.next() for _ in range(200)]
    assert all(order[0].name == "direct" and len({*order}) == len(weights) + 1 for order in orders)
    firsts = Counter(order[1].name for order in orders)
    if not any(weights):
        assert set(firsts) == {"0"}
        return
    for name, weight in ((way.name, weight) for way, weight in group):
        assert abs(firsts[name] - 200 * weight / sum(weights)) <= 8


def providers_of(relay: Relay) -> list[dict[str, Any]]:
    done = relay.mailer("providers", "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def health(relay: Relay) -> list[str]:
    return [row["health"] for row in providers_of(relay)]


def changes(relay: Relay) -> list[tuple[str, str]]:
    """What the ledger says of providers, in order."""
    lines = [
        json.loads(line)
        for log in (relay.spool / "log").glob("*.jsonl")
        for line in log.read_text().splitlines()
    ]
    return [(line["name"], line["state"]) for line in lines if line["event"] == "provider"]


def logins(*servers: Server, **more: Any) -> dict[str, Any]:
    names = ("first", "second")
    providers = [
        {"name": name, "host": LOOPBACK, "port": server.port, **LOGIN, **more}
        for name, server in zip(names, servers, strict=False)
    ]
    return forward_to(forwardProviders=providers)


@pytest.mark.fault_row(21)
def test_with_every_login_refused_mail_waits_and_the_operator_sees_why(relay: Relay) -> None:
    """Over several runs nothing bounces, no attempt is spent, and nobody is asked in vain."""
    with Server({"auth": REFUSED}, auth="PLAIN") as first, Server({"auth": REFUSED}, auth="PLAIN") as second:
        relay.configure(logins(first, second))
        tried = queue(relay.spool)
        done = relay.mailer_send("--once")
        assert done.returncode == 0
        assert f'event=provider name=first state=open reason="it refuses our login: {REFUSED}"' in done.stderr
        asked = len(first.sessions), len(second.sessions)
        later = [queue(relay.spool) for _ in range(5)]
        assert relay.mailer_send("--once").returncode == 0
        assert (len(first.sessions), len(second.sessions)) == asked == (1, 1)
        assert health(relay) == ["open", "open"]
        shown = relay.mailer("providers").stdout
        assert re.search(r"^first: .*paused until 20.*: it refuses our login$", shown, re.MULTILINE)
        assert f": {REFUSED}" in shown
        for message in later:
            left = found(relay.spool, message)
            assert left is not None
            assert (left.place, left.statuses) == ("retry", {TO: "deferred"})
            assert "attempt" not in left.events[-1]
            assert left.events[-1]["next"] > left.events[-1]["at"]
        story = relay.mailer("spool", "why", later[0]).stdout
        assert "Not tried yet; next in" in story
        assert f"since it refuses our login: {REFUSED} (not delivered yet)" in story
        assert "No provider gets mail before 20" in story
        assert "No provider gets mail before 20" in relay.mailer("spool", "ls").stderr
        assert "No provider gets mail before 20" in relay.mailer_send("--dry-run").stderr
        assert "(all 2 providers are)" in story
        assert f"since it refuses our login: {REFUSED}" in story
        assert changes(relay) == [("first", "open"), ("second", "open")]

        second.script.clear()  # The password is mended at one of them.
        assert relay.mailer_send("--once", under=LATER).returncode == 0
        assert len(second.messages) == 6
        assert len(first.sessions) == 2, "one probe, not six"
        assert Counter(to for to, _ in second.delivered()) == {TO: 6}
    assert all(found(relay.spool, message) is None for message in [tried, *later])
    assert changes(relay)[-3:] == [("first", "half-open"), ("first", "open"), ("second", "closed")] or (
        sorted(changes(relay)[2:]) == [("first", "open"), ("second", "closed")]
    )


@pytest.mark.parametrize("how", ["reset", "retry"])
def test_the_operator_has_a_provider_tried_before_its_time(relay: Relay, how: str) -> None:
    with Server({"auth": REFUSED}, auth="PLAIN") as server:
        relay.configure(logins(server))
        ids = [queue(relay.spool) for _ in range(4)]
        relay.mailer_send("--once")
        assert health(relay) == ["open"]
        server.script.clear()
        if how == "reset":
            assert relay.mailer("providers", "reset", "nobody").returncode == 66
            assert relay.mailer("providers", "reset").returncode == 2
            done = relay.mailer("providers", "reset", "first")
            assert (done.returncode, done.stdout) == (0, "first: as if there had been no trouble\n")
            ids = [queue(relay.spool)]
        else:
            relay.mailer("spool", "retry", "--all")
            assert health(relay) == ["half-open"]
        relay.mailer_send("--once")
        assert len(server.messages) == len(ids)
        assert health(relay) == ["closed"]
    assert all(found(relay.spool, message) is None for message in ids)


def test_mail_goes_to_the_next_provider_while_the_quota_of_one_is_used_up(relay: Relay) -> None:
    quota = "550 5.4.5 Daily user sending limit exceeded"
    with Server({"mail": quota}) as first, Server() as second:
        relay.configure(forward_to(first, second, security={"logAllEmails": True}))
        asked = [queue(relay.spool, [to]) for to in ("bob@example.net", "eve@example.org")]
        relay.mailer_send("--once")
        ids = [*asked, *(queue(relay.spool) for _ in range(3))]
        relay.mailer_send("--once")
        assert len(first.sessions) <= 2, "the second mail shows that it is not the first one's quota"
        assert len(second.delivered()) == 5
        [row, good] = providers_of(relay)
        assert (row["health"], row["trouble"], good["health"]) == ("open", quota, "closed")
        until, since = (datetime.fromisoformat(row[key]) for key in ("openUntil", "openSince"))
        assert until - since == timedelta(hours=1)
    for message in ids:
        kept = found(relay.spool, message)
        assert kept is not None
        assert [kind for kind, _ in outcomes(kept)] == ["trouble", "committing", "sent"]
        assert quota in str(kept.events[1]["reply"])
        assert "going on to another next hop" in relay.mailer("spool", "why", message).stdout


def test_a_provider_that_drops_after_the_dot_keeps_its_doubtful_mail_and_gets_no_more(relay: Relay) -> None:
    with Server({"dot": DROP}) as first, Server() as second:
        relay.configure(forward_to(first, second))
        people = [f"bob@{number}.example.net" for number in range(3)]
        ids = [queue(relay.spool, [to], sender=f"app@{to[4:]}") for to in people]
        relay.mailer_send("--once", "--limit", "1")
        relay.mailer_send("--once", "--limit", "1")
        relay.mailer_send("--once", "--limit", "1")
        assert second.messages == []
        other = queue(relay.spool)
        relay.mailer_send("--once")
        assert len(second.messages) == 1
        assert len(first.messages) == 3
        for message, to in zip(ids, people, strict=True):
            left = found(relay.spool, message)
            assert left is not None
            assert left.statuses == {to: "uncertain"}
            assert "the final reply was lost" in relay.mailer("spool", "why", message).stdout
        assert found(relay.spool, other) is None
        first.script.clear()
        relay.mailer_send("--once", under=LATER)
        assert len(first.messages) == 6
        assert len(second.messages) == 1, "who may have it already must not get it from elsewhere"


def test_providers_of_equal_priority_share_by_weight_and_fail_over_to_each_other(relay: Relay) -> None:
    with Server() as heavy, Server() as light, Server({"banner": "554 5.3.2 no"}) as broken:
        shares = ((heavy, 3), (light, 1), (broken, 0))
        providers = [
            {"host": LOOPBACK, "port": server.port, "priority": 1, "weight": weight}
            for server, weight in shares
        ]
        relay.configure(forward_to(forwardProviders=providers))
        for _ in range(40):
            queue(relay.spool)
        relay.mailer_send("--once")
        assert broken.sessions == []
        assert abs(len(heavy.messages) - 30) <= 3
        assert len(heavy.messages) + len(light.messages) == 40
        heavy.script["mail"] = "421 4.3.2 closing"
        queue(relay.spool)
        relay.mailer_send("--once")
        assert len(light.delivered()) + len(heavy.delivered()) == 41
        listed = relay.mailer("providers").stdout
        assert f"{at(heavy)}, priority 1, weight 3: " in listed


def test_a_state_that_cannot_be_written_stops_no_mail(relay: Relay) -> None:
    with Server({"auth": REFUSED}, auth="PLAIN") as first, Server() as second:
        relay.configure(logins(first, second))
        ids = [queue(relay.spool) for _ in range(3)]
        (relay.spool / "state" / "providers.json").mkdir()
        done = relay.mailer_send("--once")
        assert done.returncode == 0
        assert "state/providers.json cannot be written; no mail depends on it" in done.stderr
        assert len(first.sessions) <= 3
        assert all(found(relay.spool, message) for message in ids) or len(second.messages) == 3


def test_a_reset_is_seen_by_a_run_that_could_not_write_what_it_found(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the file had nothing of that provider; until then the run goes by what it knows."""
    monkeypatch.setattr(providers, "_LOOK", 0.0)
    relay.configure(forward_to(forwardProviders=[{"name": "acme", "host": LOOPBACK, "port": 9}]))
    account, said = f"{LOOPBACK}:9", list[str]()
    with Spool.open(relay.spool, create=True) as spool:
        log = MailLog(NOW.timestamp, lambda _level, text, _fields: said.append(text))
        run = providers.Providers(spool, log, NOW.timestamp)
        in_the_way = relay.spool / "state" / f".providers.json.{os.getpid()}"
        in_the_way.mkdir()  # This process cannot write; the operator's can.
        ailment = Ailment.of(Scope.PROVIDER, REFUSED, None)
        run.change(account, "acme", partial(breaker.failed, ailment=ailment, now=NOW))
        assert said[0] == "state/providers.json cannot be written; no mail depends on it"
        run.look()
        assert run.state(account).open_until
        assert relay.mailer("providers", "reset", "acme").returncode == 0
        run.look()
        assert run.state(account) == ProviderState()


def test_explain_trouble_prints_the_table_and_what_it_says_of_a_reply(relay: Relay) -> None:
    rows = [json.loads(line) for line in relay.mailer("explain-trouble", "--json").stdout.splitlines()]
    assert len(rows) == 10
    assert all(row["reason"] and row["source"].startswith("RFC") for row in rows)
    said, *rules = (
        json.loads(line)
        for line in relay.mailer(
            "explain-trouble", "--json", "--phase", "mail", "550 5.4.5 Daily limit exceeded"
        ).stdout.splitlines()
    )
    assert (said["scope"], said["hardness"]) == ("provider", "temporary")
    assert (said["about"], said["evidence"]) == ("quota", 'words "daily limit exceeded"')
    assert [row["action"] for row in rules] == ["next hop", "retry"]
    for phase, reply, scope in (
        ("auth", "535 5.7.8 bad credentials", "provider"),
        ("banner", "554 5.3.2 no", "host"),
        ("rcpt", "421 closing", "host"),
    ):
        told = relay.mailer("explain-trouble", "--phase", phase, reply).stdout
        assert f"to {phase}: scope {scope}, " in told
        assert "-> bounce" not in told
    told = relay.mailer("explain-trouble", "550 5.1.1 no such user").stdout
    assert "-> bounce" in told
    assert 'about recipient, by its words "no such user"' in told
    told = relay.mailer("explain-trouble", "550-we know\n550 nothing of it (#5.7.1)").stdout
    assert "550 we know nothing of it (#5.7.1)\n    about unknown\n" in told
    assert relay.mailer("explain-trouble", "550-one\n554 two").returncode == 2
    assert relay.mailer("explain-trouble", "hello").returncode == 2
