"""The journal of a message is bounded, however many recipients fail however often in however many words."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from outbound.hostile import Server
from outbound.sending import MESSAGE, forward_to, queue
from spools.walk import walk
from testbed.faketime import faketime
from testbed.relay import Relay

from mailer.config.model import Config
from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Scope, Status
from mailer.maillog.events import MailLog
from mailer.send import outcome_lines
from mailer.send.backoff import Backoff
from mailer.send.context import RunContext
from mailer.send.record import Record
from mailer.send.routes.directions import Directions, Own
from mailer.send.routes.table import Table
from mailer.spool.directory import Spool
from mailer.spool.run.claim import Claim, Claims

DAY = 86_400.0
HOUR = 3600.0


def try_to_the_end(root: Path, name: str, decide: Callable[[str, int], Outcome]) -> int:
    """Try a message each hour, recording what `decide` says, until nobody is open; return how often that
    was."""
    hours = 0.0
    context = RunContext(
        routes=Table(Directions(Config()), {Own.LOCAL: None}),  # type: ignore[dict-item]  # nothing is sent
        backoff=Backoff(delays=(HOUR,), max_age=5 * DAY),
        hold_uncertain=False,
        log=MailLog(lambda: hours * HOUR, lambda *_: None),
        clock=lambda: hours * HOUR,
        random=lambda: 0.0,
    )
    with Spool.open(root) as spool:
        claims = Claims(spool, context.clock, "boot", lambda *_: None, lambda *_: None)
        claim = claims.claim(name)
        assert claim
        with claim.locked:
            while (record := Record(claim, context)).state.open:
                hours += 1.1
                record = Record(claim, context)
                outcomes = [decide(standing.address, record.attempt) for standing in record.due]
                for outcome in outcomes:
                    record.trouble(outcome.hop, outcome.reply, outcome.scope, [Recipient(outcome.address)])
                record.outcomes(outcomes)
                record.end_attempt()
                claim = Claim(claim.locked, claim.locked.read())
        return record.state.attempts


@pytest.mark.fault_row(33)
@pytest.mark.parametrize("words", ["the same", "others each time"])
def test_dead_recipients_until_the_maximum_age_leave_a_bounded_journal(tmp_path: Path, words: str) -> None:
    """With a hundredth of the recipients and a hundredth of each bound."""
    root, count = tmp_path / "spool", 200
    name = queue(root, [f"r{number}@d{number}.example.net" for number in range(count)], received=0.0)

    def decide(address: str, attempt: int) -> Outcome:
        text = f"450 4.2.2 {address} {attempt if words == 'others each time' else ''} ".ljust(1500, "x")
        return Outcome(address, Status.DEFERRED, f"mx[192.0.2.{attempt % 9}]:25", text, Scope.RECIPIENT)

    with pytest.MonkeyPatch.context() as patch:
        for bound in ("REPLIES", "SOFT", "HARD"):
            patch.setattr(outcome_lines, bound, getattr(outcome_lines, bound) // 100)
        attempts = try_to_the_end(root, name, decide)
        longest = 2 * outcome_lines.HARD
    (path,) = (root / "cur").iterdir()
    assert attempts > 100, "the whole five days"
    assert path.stat().st_size < longest
    assert set(walk(root)[name].statuses.values()) == {"expired"}


def test_a_message_whose_journal_is_full_is_given_up_early_and_says_so(tmp_path: Path) -> None:
    """Where even an attempt in few words is too much: who was handed over each time, and deferred after
    that."""
    root = tmp_path / "spool"
    name = queue(root, [f"r{number}@example.net" for number in range(100)], received=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcome_lines, "HARD", 20_000)
        attempts = try_to_the_end(
            root,
            name,
            lambda address, _: Outcome(address, Status.DEFERRED, "mx:25", "450 x " + address, Scope.HOST),
        )
    assert attempts < 100
    last = walk(root)[name].events[-1]
    assert last["event"] == "expired"
    assert str(last["reply"]).startswith("given up early: the journal of this message has reached")


def test_who_is_deferred_again_in_the_same_words_shares_one_line(relay: Relay) -> None:
    """And once they are taken, each is sent once."""
    recipients = [f"r{number}@example.net" for number in range(2 * outcome_lines.MANY)]
    with Server({"rcpt": "450 4.2.2 " + "full " * 200}) as server:
        relay.configure(forward_to(server, retry={"schedule": ["1m"], "maxAge": "5d"}))
        name = queue(relay.spool, recipients, MESSAGE)
        sizes = []
        for minute in range(0, 12, 3):
            assert relay.mailer_send("--once", under=faketime(f"+{minute}m")).returncode == 0
            found = walk(relay.spool)[name]
            (path,) = relay.spool.glob(f"retry/*/{name}")
            sizes.append(path.stat().st_size)
            assert set(found.kinds[-1:]) == {"deferred" if not minute else "as-before"}
    assert max(later - earlier for earlier, later in pairwise(sizes)) < 500
    why = relay.mailer("spool", "why", name)
    assert "4 attempts" in why.stdout or "attempt 4" in why.stdout, why.stdout
    with Server() as server:
        relay.configure(forward_to(server, retry={"schedule": ["1m"], "maxAge": "5d"}))
        assert relay.mailer_send("--once", under=faketime("+20m")).returncode == 0
        taken = [address for address, _ in server.delivered()]
    assert sorted(taken) == sorted(recipients)
    assert walk(relay.spool) == {}
