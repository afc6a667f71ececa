"""The next message begun behind the dot of the one before: every outcome is as without it."""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest
from outbound.hostile import DROP, HANG, RESET, Server, Session, said
from outbound.outgoing import LONG, Letter, hop_to, only
from testbed.namespaced import Exim
from testbed.postfix import Postfix
from testbed.waiting import until

from mailer.mail.outcome import Status
from mailer.send.phase import Timeouts
from mailer.send.smtp import behind, client
from mailer.send.smtp.client import Letter as Transaction
from mailer.send.smtp.pool import Pool
from mailer.send.trouble import HopTrouble

BOB = "bob@example.net"
BEHIND = b"\r\n.\r\nMAIL"
TAKEN = "250 2.0.0 queued"


def sender(number: int) -> str:
    return f"{number}@example.com"


@dataclass
class Told:
    """What a pool made of some messages, by sender."""

    outcomes: dict[str, str] = field(default_factory=dict)
    commits: Counter[str] = field(default_factory=Counter)


async def tell(
    pool: Pool, server: Server | Postfix | Exim, number: int, told: Told, *, known: bool = True
) -> None:
    """Send one message; args: known: the pool knows it while it waits, so it may be begun behind a dot."""
    letter = Letter(to=[f"{number}@example.net", BOB], sender=sender(number))
    one = letter.envelope.sender
    transaction = Transaction(letter, letter.envelope.recipients) if known else None
    try:
        async with pool.session(hop_to(server), letter=transaction) as session:
            outcomes = await session.transact(
                letter, letter.envelope.recipients, lambda _: told.commits.update([one])
            )
    except HopTrouble as trouble:
        told.outcomes[one] = f"{type(trouble).__name__} {trouble.text}"
    else:
        told.outcomes[one] = " ".join(f"{o.status}:{o.reply}" for o in outcomes)


def run(work: Callable[[Pool], Awaitable[None]], timeouts: Timeouts = LONG, *, limit: int = 1) -> None:
    async def main() -> None:
        async with Pool(lambda hop: client.Session.open(hop, timeouts), limit=limit) as pool:
            await work(pool)

    asyncio.run(main())


def send(
    server: Server, count: int, timeouts: Timeouts = LONG, *, limit: int = 1, known: bool = True
) -> Told:
    """Send messages at the same time, through at most `limit` sessions."""
    told = Told()

    async def work(pool: Pool) -> None:
        await asyncio.gather(*[tell(pool, server, number, told, known=known) for number in range(count)])

    run(work, timeouts, limit=limit)
    return told


def begun_behind(server: Server) -> int:
    return sum(BEHIND in write for session in server.sessions for write in session.writes)


def by_sender(faults: dict[str, object], default: object = None) -> Callable[[Session, bytes], object]:
    """A step's entry by the sender of the message at hand."""

    def entry(session: Session, line: bytes) -> object:
        mails = [command for command in session.commands if command.startswith(b"MAIL")]
        named = mails[-1].partition(b"<")[2].partition(b">")[0].decode()
        return faults.get(named, default)

    return entry


def accepted(server: Server) -> Counter[str]:
    return Counter(message.sender for message in server.messages if message.accepted)


def test_a_message_takes_one_write_once_a_session_has_taken_another():
    with Server() as server:
        told = send(server, 6)
    assert set(told.outcomes.values()) == {"sent:" + TAKEN + " sent:" + TAKEN}
    (session,) = server.sessions
    assert begun_behind(server) == 4, "not behind the first, since nothing was taken then"
    assert not any(write.startswith(b"MAIL") for write in session.writes[4:])


@pytest.mark.parametrize("extensions", [(), ("SIZE", "8BITMIME")])
def test_nothing_is_begun_behind_a_dot_where_pipelining_is_not_offered(extensions: Sequence[str]):
    with Server(extensions=extensions) as server:
        send(server, 6)
    assert begun_behind(server) == 0
    assert not any(session.hasty for session in server.sessions)


FAULTS: dict[str, list[object]] = {
    "mail": ["451 4.3.0 later", "550 5.7.1 no", "421 4.3.2 bye", DROP],
    "rcpt": ["450 4.2.2 full", "550 5.1.1 no such user", "421 4.7.0 too many"],
    "data": ["451 4.3.0 later", "554 5.7.1 no", "421 4.3.2 bye"],
    "dot": ["451 4.3.0 later", "554 5.7.1 spam", "421 4.3.2 bye", DROP, RESET, said(TAKEN, DROP)],
    "after": [DROP, "421 4.4.2 idle"],
}
"""By step; what follows from each depends on the message alone."""


@pytest.mark.parametrize("seed", range(40))
def test_for_any_faults_of_a_server_the_outcomes_are_the_same_as_without(seed: int):
    chance = random.Random(seed)
    script: dict[str, dict[str, object]] = {step: {} for step in FAULTS}
    for number in range(8):
        if chance.random() < 0.6:
            step = chance.choice(list(FAULTS))
            script[step][sender(number)] = chance.choice(FAULTS[step])
    told = []
    for known in (False, True):
        with Server({step: by_sender(faults) for step, faults in script.items()}) as server:
            told.append((send(server, 8, known=known), accepted(server)))
        assert bool(begun_behind(server)) <= known
    assert told[1] == told[0], script


def test_a_lost_connection_leaves_only_the_message_whose_dot_was_sent_in_doubt():
    with Server({"dot": by_sender({sender(3): DROP})}) as server:
        told = send(server, 6)
    assert begun_behind(server) > 2
    doubtful = [one for one, outcome in told.outcomes.items() if "uncertain" in outcome]
    assert doubtful == [sender(3)]
    assert accepted(server) == Counter({sender(n): 1 for n in range(6) if n != 3})
    assert told.commits == Counter({sender(n): 1 for n in range(6)})


def breaks(then: object) -> Callable[[Session, bytes], object]:
    """An entry for a server that does not take commands behind a dot."""
    return lambda session, _line: then if BEHIND in session.writes[-1] else None


@pytest.mark.parametrize("refusal", ["503 5.5.1 out of order", "554 5.5.0 synchronization error", "451 no"])
def test_a_server_that_refuses_what_comes_behind_a_dot_is_tried_once_and_costs_no_mail(refusal: str):
    with Server({"mail": breaks(refusal)}) as server:
        told = send(server, 8)
    assert {outcome.partition(":")[0] for outcome in told.outcomes.values()} == {"sent"}
    assert set(accepted(server).values()) == {1}
    assert begun_behind(server) == 1
    assert len(server.sessions) == 2


def test_a_server_that_drops_what_comes_behind_a_dot_is_tried_once_and_costs_no_mail(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(client, "BEHIND_LIMIT", 0.2)
    with Server(forgets_behind=True) as server:
        told = send(server, 8)
    assert {outcome.partition(":")[0] for outcome in told.outcomes.values()} == {"sent"}
    assert begun_behind(server) == 1


@pytest.mark.parametrize("end", [DROP, RESET])
def test_a_server_that_hangs_up_on_what_comes_behind_a_dot_does_so_once(end: object):
    """The message before is uncertain then, whatever became of it: so no second one is put at stake."""
    with Server({"dot": breaks(end)}) as server:
        told = send(server, 12, limit=3)
    assert sum("uncertain" in outcome for outcome in told.outcomes.values()) == 1
    assert begun_behind(server) == 1
    assert len(accepted(server)) == 11


def test_a_message_does_not_wait_for_the_reply_to_anothers_dot_while_a_session_is_free():
    """What was begun is dropped with the session."""
    with Server({"dot": by_sender({sender(4): HANG})}) as server:
        told = send(server, 12, only(dot=3.0), limit=2)
    assert [one for one, outcome in told.outcomes.items() if "uncertain" in outcome] == [sender(4)]
    assert list(told.outcomes)[-1] == sender(4), "all others were sent meanwhile"
    assert accepted(server) == Counter({sender(n): 1 for n in range(12) if n != 4})


def test_with_a_server_that_needs_its_time_for_each_message_one_session_is_lost_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(behind, "PATIENCE", 0.05)
    with Server({"dot": lambda *_: time.sleep(0.3)}) as server:
        told = send(server, 8)
    assert set(told.outcomes.values()) == {f"sent:{TAKEN} sent:{TAKEN}"}
    assert len(server.sessions) == 2


REFUSED_BEHIND = b"\r\n".join([TAKEN.encode(), b"250 ok", b"550 no", b"550 no", b"554 none", b""])


@pytest.mark.parametrize("reply", [TAKEN, REFUSED_BEHIND], ids=["taken", "refused"])
def test_a_message_that_is_given_up_behind_a_dot_changes_nothing_for_the_others(reply: str | bytes):
    """No other message gets the replies that were meant for it, even if they come with the one before's."""

    async def work(pool: Pool) -> None:
        tasks = [asyncio.create_task(tell(pool, server, number, told)) for number in range(6)]
        await asyncio.to_thread(held.wait, 30)
        tasks[3].cancel()
        go_on.set()
        await asyncio.wait(tasks)

    def hold(session: Session, _line: bytes) -> str | bytes | None:
        if session.messages[-1].sender != sender(2):
            return None
        assert BEHIND in session.writes[-1]
        held.set()
        go_on.wait(30)
        return reply

    told, held, go_on = Told(), threading.Event(), threading.Event()
    with Server({"dot": hold}) as server:
        run(work)
    assert told.outcomes == {sender(n): f"sent:{TAKEN} sent:{TAKEN}" for n in range(6) if n != 3}
    assert [one.sender for one in server.messages] == [sender(n) for n in range(6) if n != 3]


def test_no_more_is_begun_than_the_server_allows_in_one_session():
    with Server(extensions=("PIPELINING", "LIMITS MAILMAX=3")) as server:
        send(server, 8)
    assert [len([c for c in session.commands if c[:4] == b"MAIL"]) for session in server.sessions] == [
        3,
        3,
        2,
    ]


def test_a_message_that_the_hop_would_not_take_is_not_begun_behind_a_dot():
    """It is refused unasked, by the usual way, and those behind it are not held up."""
    with Server(extensions=("PIPELINING", "SIZE 20")) as server:
        told = send(server, 4)
    assert begun_behind(server) == 0
    assert all("552 5.3.4" in outcome for outcome in told.outcomes.values())


def test_after_a_server_has_asked_to_slow_down_nothing_is_begun_behind_a_dot():
    slow = "451 4.7.1 too many messages, slow down"
    with Server({"dot": by_sender({sender(2): slow})}) as server:
        told = send(server, 5)
    assert slow in told.outcomes[sender(2)]
    assert sum("sent" in outcome for outcome in told.outcomes.values()) == 4
    assert begun_behind(server) <= 2


def test_each_message_has_its_own_words_in_the_trace_of_a_failure():
    """What was read in one piece is divided between the two."""
    traces: list[list[str]] = []

    async def main() -> None:
        async with Pool(
            lambda hop: client.Session.open(hop, LONG),
            limit=1,
            on_failure=lambda conversation, *_: traces.append([line for _, line in conversation.lines()]),
        ) as pool:
            await asyncio.gather(*[tell(pool, server, number, told) for number in range(6)])

    told = Told()
    with Server(
        {"dot": by_sender({sender(2): "554 5.7.1 spam"}), "rcpt": rcpt_of({"3@example.net": "550 5.1.1 no"})}
    ) as server:
        asyncio.run(main())
    assert begun_behind(server) > 1
    first, second = traces
    assert [line for line in first if "MAIL" in line] == [f"C: MAIL FROM:<{sender(2)}> SIZE=24"]
    assert "S: 554 5.7.1 spam" in first[-1]
    assert [line for line in second if "MAIL" in line] == [f"C: MAIL FROM:<{sender(3)}> SIZE=24"]
    assert not [line for line in second if "spam" in line]


def rcpt_of(faults: dict[str, str]) -> Callable[[Session, bytes], object]:
    return lambda _session, line: faults.get(line.partition(b"<")[2].partition(b">")[0].decode())


def test_all_of_a_message_is_sent_though_its_recipients_are_refused_one_by_one():
    with Server({"rcpt": rcpt_of({BOB: "550 5.1.1 no"})}) as server:
        told = send(server, 6)
    assert begun_behind(server) == 4
    assert set(told.outcomes.values()) == {f"{Status.SENT}:{TAKEN} {Status.BOUNCED}:550 5.1.1 no"}
    assert [message.recipients for message in server.messages] == [[f"{n}@example.net"] for n in range(6)]


def sent_through(server: Postfix | Exim) -> list[str]:
    """Send messages through one session, most of them begun behind a dot; return their senders."""
    told = Told()

    async def work(pool: Pool) -> None:
        await asyncio.gather(*[tell(pool, server, number, told) for number in range(20)])
        assert pool.known.get(f"localhost:{server.port}"), "the server did not take it"

    run(work)
    assert {outcome.count("sent:") for outcome in told.outcomes.values()} == {2}
    return list(told.outcomes)


def test_postfix_takes_messages_behind_dots():
    with Postfix() as server:
        sent = dict.fromkeys(sent_through(server), 2)
        arrived = Counter(one.sender for one in server.await_arrivals(40))
    assert arrived == sent


def test_exim_takes_messages_behind_dots():
    with Server() as onward, Exim(onward.port) as server:
        sent = dict.fromkeys(sent_through(server), 1)
        until(lambda: accepted(onward).total() >= 20, "every message to be passed on")
    assert accepted(onward) == sent
