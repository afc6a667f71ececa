"""After an attempt a message goes to where its journal says, and its sender hears of it where that is due."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from outbound.scripted_route import HOUR, NOON, Answer, ScriptedRoute, Tries, claimed
from outbound.sending import PLACES, SENDER, queue
from spools.walk import walk

from mailer.mail.outcome import Outcome, Scope, Status
from mailer.maillog.events import MailLog
from mailer.send.dsn.notify import NotificationSettings, Notifier
from mailer.send.settle import Settler
from mailer.spool.background_close import BackgroundClose
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool
from mailer.spool.layout import bucket_for, day_for
from mailer.spool.message_state import Disposition
from mailer.spool.run.claim import Claim

BOB, AMY = "bob@example.net", "amy@example.org"
LOST = Outcome(BOB, Status.UNCERTAIN, "hop:25", "the final reply was lost", Scope.HOST)


@pytest.fixture
def committer(tmp_path: Path) -> Iterator[Committer]:
    with Spool.open(tmp_path, create=True) as spool:
        running = Committer(spool).start()
        try:
            yield running
        finally:
            running.close()


def settle(tries: Tries, committer: Committer, *, archive: bool = False, to: str = "") -> Disposition:
    """Settle the message of `tries` at the time of its last attempt; `to` gets notifications."""
    now, spool = NOON + tries.hours * HOUR, tries.claim.locked.spool
    settings = NotificationSettings(lambda _sender: to, "relay.example.com", 0.0, 100 * HOUR)
    notifier = Notifier(spool, committer, settings, MailLog(lambda: now, lambda *_: None))

    async def settling() -> Disposition:
        background = BackgroundClose()
        settler = Settler(committer, background, notifier, horizon=HOUR, archive=archive)
        try:
            return await settler.settle(tries.claim, tries.claim.entry.state, now)
        finally:
            background.close_all()

    return asyncio.run(settling())


@pytest.mark.parametrize(
    ("script", "disposition", "place", "bucket"),
    [
        ({}, Disposition.FINISH, "", ""),
        ({BOB: "450 4.2.2 mailbox full"}, Disposition.WAIT, "retry", bucket_for(NOON + 1.5 * HOUR)),
        ({BOB: "550 5.1.1 no such user"}, Disposition.FAIL, "failed", ""),
        ({BOB: LOST}, Disposition.HOLD, "hold", ""),
    ],
    ids=["all sent", "one deferred", "one bounced", "one uncertain, held"],
)
def test_a_message_goes_to_where_its_journal_says(
    tmp_path: Path,
    committer: Committer,
    script: dict[str, Answer],
    disposition: Disposition,
    place: str,
    bucket: str,
) -> None:
    name = queue(tmp_path, [BOB, AMY])
    with claimed(tmp_path, name, ScriptedRoute("hop", script), hold_uncertain=True) as tries:
        tries.once()
        assert settle(tries, committer) is disposition
    found = [(each.place, each.bucket, each.name) for each in walk(tmp_path, PLACES).values()]
    assert found == ([(place, bucket, name)] if place else [])


def test_mail_that_is_archived_keeps_its_history(tmp_path: Path, committer: Committer) -> None:
    name = queue(tmp_path, [BOB])
    with claimed(tmp_path, name, ScriptedRoute("hop")) as tries:
        tries.once()
        settle(tries, committer, archive=True)
    kept = walk(tmp_path, ("sent",))[name]
    assert kept.bucket == day_for(NOON + HOUR)
    assert kept.kinds == ["accepted", "committing", "sent"]


def test_a_message_that_cannot_move_stays_in_cur_and_its_sender_hears_of_it_once(
    tmp_path: Path, committer: Committer
) -> None:
    name = queue(tmp_path, [BOB])
    with claimed(tmp_path, name, ScriptedRoute("hop", {BOB: "550 5.1.1 no such user"})) as tries:
        tries.once()
        (tmp_path / "failed" / name).touch()
        with pytest.raises(FileExistsError):
            settle(tries, committer, to=SENDER)
        (tmp_path / "failed" / name).unlink()
        assert walk(tmp_path)[name].place == "cur"
        # The next run settles what the file says.
        tries.claim = Claim(tries.claim.locked, tries.claim.locked.read())
        assert settle(tries, committer, to=SENDER) is Disposition.FAIL
    found = walk(tmp_path)
    message, [notification] = found.pop(name), found.values()
    assert (message.place, notification.place, notification.sender) == ("failed", "new", "")
    assert message.kinds == ["accepted", "bounced", "notified"]
    assert message.events[-1]["notice"] == notification.name


def test_what_could_not_be_tried_goes_back_without_a_trace_of_a_dead_runner(
    tmp_path: Path, committer: Committer
) -> None:
    name = queue(tmp_path, [BOB])
    with claimed(tmp_path, name, ScriptedRoute("hop")) as tries:
        spool = tries.claim.locked.spool
        log = MailLog(lambda: NOON, lambda *_: None)
        notifier = Notifier(spool, committer, NotificationSettings(str, "h", 0.0, HOUR), log)
        Settler(committer, BackgroundClose(), notifier, horizon=HOUR, archive=False).put_back(tries.claim)
    assert walk(tmp_path)[name].place == "new"
