"""Sessions kept between messages."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
from outbound.hostile import DROP, HANG, Server, reached
from outbound.outgoing import LONG, Letter, hop_to, only

from mailer.mail.outcome import Status
from mailer.send.phase import Timeouts
from mailer.send.smtp.client import Session
from mailer.send.smtp.pool import Pool
from mailer.send.trouble import HopTrouble, SessionLost


def run(server: Server, work: Callable[[Pool], Awaitable[None]], timeouts: Timeouts = LONG, **terms) -> None:
    async def main():
        async with Pool(lambda hop: Session.open(hop, timeouts), **{"limit": 2, **terms}) as pool:
            await work(pool)

    asyncio.run(main())


async def one(pool: Pool, server: Server, commits: list | None = None) -> Status:
    letter, commits = Letter(), [] if commits is None else commits
    async with pool.session(hop_to(server)) as session:
        (outcome,) = await session.transact(letter, letter.envelope.recipients, commits.append)
    return outcome.status


def test_messages_share_a_session_and_the_pool_says_quit():
    async def work(pool):
        for _ in range(3):
            assert await one(pool, server) is Status.SENT

    with Server() as server:
        run(server, work)
        server.wait()
    (session,) = server.sessions
    assert len(session.messages) == 3
    assert session.commands[-1] == b"QUIT"


def test_no_more_than_the_limit_are_open_to_one_hop_and_everybody_gets_a_turn():
    async def work(pool):
        outcomes = await asyncio.gather(*[one(pool, server) for _ in range(20)])
        assert set(outcomes) == {Status.SENT}

    with Server() as server:
        run(server, work)
    assert len(server.sessions) == 2
    assert len(server.messages) == 20


def test_other_hops_do_not_wait_for_a_busy_one():
    async def work(pool):
        async with (
            pool.session(hop_to(server)),
            pool.session(hop_to(server, ehlo_domain="other.example")) as other,
        ):
            letter = Letter()
            await other.transact(letter, letter.envelope.recipients, lambda _: None)

    with Server() as server:
        run(server, work, limit=1)
    assert len(server.sessions) == 2


@pytest.mark.parametrize("end", [DROP, "421 4.4.2 idle for too long"])
def test_a_session_that_died_between_messages_is_replaced_without_a_word(end):
    """The server hangs up right after its final reply, or when the next MAIL comes."""

    async def work(pool):
        for _ in range(4):
            assert await one(pool, server, committed) is Status.SENT

    committed: list = []
    with Server({"after": [None, end, None]}) as server:
        run(server, work)
    assert len(server.messages) == len(committed) == 4
    with Server({"mail": [None, end, None]}) as server:
        run(server, work)
    assert len(server.messages) == 4
    assert len(server.sessions) == 2


def test_an_old_session_that_no_longer_answers_is_replaced_too():
    async def work(pool):
        for _ in range(2):
            assert await one(pool, server) is Status.SENT

    with Server({"mail": [None, HANG, None]}) as server:
        run(server, work, only(mail=0.3))
    assert len(server.messages) == 2


@pytest.mark.parametrize("fault", [DROP, "421 4.3.2 no"])
def test_a_fresh_session_that_dies_is_trouble_of_the_hop(fault):
    async def work(pool):
        with pytest.raises(SessionLost):
            await one(pool, server)

    with Server({"mail": fault}) as server:
        run(server, work)
    assert len(server.sessions) == 1


def test_a_successor_that_dies_as_well_is_trouble_of_the_hop():
    async def work(pool):
        assert await one(pool, server) is Status.SENT
        with pytest.raises(SessionLost):
            await one(pool, server)

    with Server({"mail": [None, DROP, DROP]}) as server:
        run(server, work)
    assert len(server.sessions) == 2


@pytest.mark.parametrize("step", ["rcpt", "data"])
def test_a_loss_after_mail_was_answered_is_never_hidden(step):
    async def work(pool):
        assert await one(pool, server) is Status.SENT
        with pytest.raises(SessionLost):
            await one(pool, server)

    # Without pipelining, so that the reply to MAIL cannot get lost with the connection.
    with Server({step: [None, DROP]}, extensions=()) as server:
        run(server, work)
    assert len(server.sessions) == 1


def test_a_lost_final_reply_of_an_old_session_is_not_tried_again():
    async def work(pool):
        assert await one(pool, server) is Status.SENT
        assert await one(pool, server) is Status.UNCERTAIN

    with Server({"dot": [None, DROP]}) as server:
        run(server, work)
    assert len(server.messages) == 2


def test_a_lease_goes_on_with_the_next_batch_when_the_server_hangs_up_between_them():
    async def work(pool):
        letter = Letter()
        async with pool.session(hop_to(server)) as session:
            for _ in range(3):
                (outcome,) = await session.transact(letter, letter.envelope.recipients, lambda _: None)
                assert outcome.status is not Status.UNCERTAIN

    with Server({"dot": ["421 4.3.2 enough", None]}) as server:
        run(server, work)
    assert len(server.sessions) == 2


def test_trouble_on_the_way_in_gives_the_place_to_the_next():
    async def work(pool):
        first, second = await asyncio.gather(one(pool, server), one(pool, server), return_exceptions=True)
        assert isinstance(first, HopTrouble)
        assert second is Status.SENT

    with Server({"banner": ["554 no", "220 yes"]}) as server:
        run(server, work, limit=1)


def test_an_idle_session_is_closed_with_quit_and_its_hop_forgotten():
    async def work(pool):
        assert await one(pool, server) is Status.SENT
        await asyncio.to_thread(left.wait, 30)
        assert left.is_set()
        assert not pool._lines

    left = threading.Event()
    with Server({"quit": reached(left, None)}) as server:
        run(server, work, idle=0.05)


def test_leaving_the_pool_drops_what_is_still_in_use():
    async def main():
        async with Pool(lambda hop: Session.open(hop, LONG), limit=1) as pool:
            stuck = asyncio.ensure_future(one(pool, server))
            await asyncio.to_thread(begun.wait, 30)
        with pytest.raises(SessionLost, match="aborted"):
            await stuck

    begun = threading.Event()
    with Server({"mail": reached(begun, HANG)}) as server:
        asyncio.run(main())


def test_a_quit_that_is_never_answered_delays_a_run_only_briefly():
    async def work(pool):
        assert await one(pool, server) is Status.SENT

    with Server({"quit": HANG}) as server:
        run(server, work, only(quit=0.1))
