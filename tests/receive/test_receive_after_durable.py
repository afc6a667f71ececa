"""What is durable is taken, whatever else fails: the reply says so, and the message goes on its way."""

import asyncio
import time

import pytest
from inbound.receiving import finished

from mailer.mail.envelope import Envelope, Recipient
from mailer.maillog.events import Fields, Level, MailLog
from mailer.receive.content.header_policy import ContentPolicy, Origin
from mailer.receive.upload import Store, Upload
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import LockedMessage

ORIGIN = Origin("x", "127.0.0.1", "here.example", extended=True, user="app", smtputf8=False)


@pytest.mark.parametrize("also_errors", [False, True])
def test_a_message_that_cannot_be_logged_is_taken_all_the_same(tmp_path, also_errors):
    told = []

    def sink(level: Level, text: str, _: Fields) -> None:
        if also_errors or level is not Level.ERROR:
            raise ValueError(text)
        told.append(text)

    with Spool.open(tmp_path / "spool", create=True) as spool:
        committer = Committer(spool)
        committer.start()
        store = Store(spool, committer, MailLog(time.time, sink), time.time)
        envelope = Envelope("a@here.example", (Recipient("b@example.net"),))

        async def submit():
            upload = Upload(store, envelope, ORIGIN, ContentPolicy())
            upload.append(b"Subject: x\r\n\r\nx\r\n")
            return await finished(upload)

        try:
            reply = asyncio.run(submit())
        finally:
            committer.close()
        assert reply.code == 250
        assert told == ([] if also_errors else ["a message was accepted and could not be logged"])
        (path,) = (spool.path / "new").iterdir()
        # Its lock is free: a runner may have it at once.
        LockedMessage.lock(spool, Spot(Place.NEW, path.name)).release()
