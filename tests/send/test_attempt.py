"""One attempt: which route is tried next after what, and what stands in the message's file afterwards."""

from collections.abc import Callable
from pathlib import Path

import pytest
from outbound.scripted_route import NOON, Answer, ScriptedRoute, claimed, statuses
from outbound.sending import queue
from spools.walk import only

from mailer.mail.outcome import Outcome, Scope, Status
from mailer.send.phase import Phase
from mailer.send.trouble import HopTrouble, Resting, SessionLost

BOB, AMY, EVE = "bob@example.net", "amy@example.org", "eve@example.com"


def down(name: str = "first") -> HopTrouble:
    return HopTrouble(f"{name}:25", Phase.CONNECT, "Connection refused")


def first_down_then(*answers: Answer) -> Callable[[], Answer]:
    left = list(answers)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_mail_that_the_first_route_takes_never_reaches_the_second(tmp_path: Path) -> None:
    first, second = ScriptedRoute("first"), ScriptedRoute("second")
    with claimed(tmp_path, queue(tmp_path, [BOB]), first, second) as tries:
        assert statuses(tries.once()) == {BOB: "sent"}
    assert (first.batches, second.batches) == ([[BOB]], [])


@pytest.mark.parametrize(
    "trouble",
    [
        down(),
        HopTrouble("first:25", Phase.AUTH, "535 wrong password", scope=Scope.PROVIDER, temporary=False),
        HopTrouble("first:25", Phase.BANNER, "554 5.7.1 go away", temporary=False),
    ],
    ids=["host is down", "our account is refused", "the host refuses us"],
)
def test_trouble_with_a_hop_sends_the_mail_to_the_next_and_never_bounces_it(
    tmp_path: Path, trouble: HopTrouble
) -> None:
    first, second = ScriptedRoute("first", {"*": trouble}), ScriptedRoute("second")
    with claimed(tmp_path, queue(tmp_path, [BOB]), first, second) as tries:
        state = tries.once()
        assert statuses(state) == {BOB: "sent"}
        assert state.by_address[BOB].hop == "second:25"
    with claimed(tmp_path, queue(tmp_path, [BOB]), ScriptedRoute("first", {"*": trouble})) as tries:
        assert statuses(tries.once()) == {BOB: "deferred"}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("550 5.1.1 no such user", "bounced"),
        ("550 5.3.4 message too big", "sent"),
        ("450 4.2.2 mailbox full", "deferred"),
    ],
)
def test_a_refusal_goes_on_only_where_another_hop_may_judge_otherwise(
    tmp_path: Path, answer: str, status: str
) -> None:
    first, second = ScriptedRoute("first", {BOB: answer}), ScriptedRoute("second")
    with claimed(tmp_path, queue(tmp_path, [BOB, AMY]), first, second) as tries:
        assert statuses(tries.once()) == {BOB: status, AMY: "sent"}
    assert second.batches == ([[BOB]] if status == "sent" else [])


@pytest.mark.parametrize("answer", ["451 4.7.500 Server busy", down()], ids=["busy", "down"])
def test_a_route_is_given_its_attempts_before_the_next_one_gets_the_mail(
    tmp_path: Path, answer: Answer
) -> None:
    first, second = ScriptedRoute("first", {"*": answer}, attempts=3), ScriptedRoute("second")
    with claimed(tmp_path, queue(tmp_path, [BOB]), first, second) as tries:
        assert [statuses(tries.once())[BOB] for _ in range(3)] == ["deferred", "deferred", "sent"]
    assert len(first.batches) == 3


def test_a_permanent_refusal_does_not_wait_for_the_attempts_of_a_route(tmp_path: Path) -> None:
    first = ScriptedRoute("first", {"*": "550 5.7.1 policy"}, attempts=3)
    with claimed(tmp_path, queue(tmp_path, [BOB]), first, ScriptedRoute("second")) as tries:
        assert statuses(tries.once()) == {BOB: "sent"}


def test_an_unclear_refusal_is_believed_the_second_time(tmp_path: Path) -> None:
    only = ScriptedRoute("only", {"*": "550 5.7.1 not today"})
    with claimed(tmp_path, queue(tmp_path, [BOB]), only) as tries:
        state = tries.once()
        assert statuses(state) == {BOB: "deferred"}
        assert state.by_address[BOB].unclear
        assert statuses(tries.once()) == {BOB: "bounced"}


def test_an_exchanger_of_the_recipient_is_believed_the_first_time(tmp_path: Path) -> None:
    only = ScriptedRoute("only", {"*": "550 5.7.1 not today"}, retries_unclear_refusals=False)
    with claimed(tmp_path, queue(tmp_path, [BOB]), only) as tries:
        assert statuses(tries.once()) == {BOB: "bounced"}


def test_recipients_go_in_batches_with_a_pause_between(tmp_path: Path) -> None:
    many = [f"r{number}@example.net" for number in range(5)]
    only = ScriptedRoute("only", batch_size=2, batch_delay=7.0)
    with claimed(tmp_path, queue(tmp_path, many), only) as tries:
        assert set(statuses(tries.once()).values()) == {"sent"}
        assert tries.pauses == [7.0, 7.0]
    assert only.batches == [many[:2], many[2:4], many[4:]]


def test_a_hop_that_fails_between_batches_keeps_what_it_took(tmp_path: Path) -> None:
    many = [f"r{number}@example.net" for number in range(6)]
    first = ScriptedRoute("first", {many[2]: down()}, batch_size=2)
    second = ScriptedRoute("second")
    with claimed(tmp_path, queue(tmp_path, many), first, second) as tries:
        state = tries.once()
    assert [state.by_address[one].hop for one in many] == ["first:25"] * 2 + ["second:25"] * 4
    assert (first.batches, second.batches) == ([many[:2], many[2:4]], [many[2:]])


def test_a_session_that_breaks_at_a_recipient_makes_the_next_batch_smaller(tmp_path: Path) -> None:
    many = [f"r{number}@example.net" for number in range(16)]
    broken = SessionLost("only:25", Phase.RCPT, "connection lost")
    only = ScriptedRoute("only", {many[9]: broken})
    with claimed(tmp_path, queue(tmp_path, many), only) as tries:
        assert {standing.batch for standing in tries.once().by_address.values()} == {4}
        tries.once()
        sizes = [len(batch) for batch in only.batches[1:]]
        state = tries.once()
    assert sizes == [4, 4, 4, 4]
    assert [one for one, status in statuses(state).items() if status != "sent"] == [many[9]]


@pytest.mark.parametrize("problem", [down(), ValueError("a defect")], ids=["down", "defect"])
def test_trouble_at_one_destination_keeps_no_mail_from_the_others(
    tmp_path: Path, problem: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    only = ScriptedRoute("only", {AMY: problem}, by_domain=True)
    with claimed(tmp_path, queue(tmp_path, [BOB, AMY, EVE]), only) as tries:
        state = tries.once()
    assert statuses(state) == {BOB: "sent", AMY: "deferred", EVE: "sent"}
    assert (state.by_address[AMY].hop == "local") == isinstance(problem, ValueError)


def test_what_cannot_be_recorded_is_not_sent(tmp_path: Path) -> None:
    only = ScriptedRoute("only", {"*": OSError(28, "No space left on device")})
    with claimed(tmp_path, queue(tmp_path, [BOB]), only, ScriptedRoute("second")) as tries:
        with pytest.raises(OSError, match="No space left"):
            tries.once()
        assert tries.claim.locked.read().state.by_address[BOB].status is Status.PENDING


def lost(address: str, name: str = "first") -> Outcome:
    return Outcome(address, Status.UNCERTAIN, f"{name}:25", "the final reply was lost", Scope.HOST)


def test_mail_whose_reply_was_lost_is_tried_again_at_that_hop_alone(tmp_path: Path) -> None:
    first = ScriptedRoute("first", {BOB: first_down_then(lost(BOB), down(), "250 2.0.0 ok")})
    second = ScriptedRoute("second")
    with claimed(tmp_path, queue(tmp_path, [BOB]), first, second) as tries:
        # The hop is down at the second attempt; another could take it, and would take it twice.
        assert [statuses(tries.once())[BOB] for _ in range(3)] == ["uncertain", "uncertain", "sent"]
    assert (len(first.batches), second.batches) == (3, [])


def test_mail_whose_reply_was_lost_waits_for_the_operator_when_its_hop_is_gone(tmp_path: Path) -> None:
    first, second = ScriptedRoute("first", {BOB: lost(BOB)}), ScriptedRoute("second")
    with claimed(tmp_path, queue(tmp_path, [BOB]), first) as tries:
        tries.once()
        tries.routes = [second]
        state = tries.once()
    assert (statuses(state), second.batches) == ({BOB: "uncertain"}, [])
    assert "first:25 may have delivered it, and no route leads there any more" in state.held


def test_the_policy_hold_holds_mail_whose_reply_was_lost(tmp_path: Path) -> None:
    first = ScriptedRoute("first", {BOB: lost(BOB)})
    with claimed(tmp_path, queue(tmp_path, [BOB, AMY]), first, hold_uncertain=True) as tries:
        state = tries.once()
    assert statuses(state) == {BOB: "uncertain", AMY: "sent"}
    assert "the final reply of first:25 was lost" in state.held


def test_one_uncertain_recipient_keeps_no_other_from_the_next_hop(tmp_path: Path) -> None:
    first = ScriptedRoute("first", {BOB: first_down_then(lost(BOB), down()), AMY: "450 4.2.2 mailbox full"})
    second = ScriptedRoute("second")
    with claimed(tmp_path, queue(tmp_path, [BOB, AMY]), first, second) as tries:
        tries.once()
        first.script = {"*": down()}
        assert statuses(tries.once()) == {BOB: "uncertain", AMY: "sent"}
    assert second.batches == [[AMY]]


def paused(name: str, hours: float) -> Resting:
    until = NOON + hours * 3600.0
    return Resting(f"{name}:25", Phase.CONNECT, "paused", scope=Scope.HOST, until=until)


def test_paused_hops_count_as_no_attempt_and_the_first_to_end_sets_the_time_of_the_next(
    tmp_path: Path,
) -> None:
    first, second = (
        ScriptedRoute(name, {"*": paused(name, hours)}) for name, hours in (("a", 1.2), ("b", 1.4))
    )
    with claimed(tmp_path, queue(tmp_path, [BOB]), first, second) as tries:
        state = tries.once()
    assert (statuses(state), state.attempts) == ({BOB: "deferred"}, 0)
    assert state.next == pytest.approx(NOON + 1.2 * 3600.0, abs=1.0)


def test_a_paused_hop_does_not_wait_for_the_attempts_of_its_route(tmp_path: Path) -> None:
    first = ScriptedRoute("first", {"*": paused("first", 2)}, attempts=3)
    with claimed(tmp_path, queue(tmp_path, [BOB]), first, ScriptedRoute("second")) as tries:
        assert statuses(tries.once()) == {BOB: "sent"}


def test_a_file_says_that_mail_is_handed_over_before_it_is(tmp_path: Path) -> None:
    """And says who refused before it says who took over: the order in which they happen."""
    first, second = ScriptedRoute("first", {BOB: down()}), ScriptedRoute("second")
    with claimed(tmp_path, queue(tmp_path, [BOB]), first, second) as tries:
        tries.once()
    assert only(tmp_path, "cur")[0].kinds == ["accepted", "trouble", "committing", "sent"]
