"""A copy that is queued is reported as queued, although its command is slow, or no run can be started."""

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlencode

import pytest
from spools.states import Queue
from testbed.relay import ADMIN_TOKEN, Relay

from mailer.config.model import Config
from mailer.config.secrets import Secret
from mailer.maillog.events import MailLog
from mailer.monitor import admin, page
from mailer.monitor.alerts import Alerting, AlertSettings
from mailer.monitor.context import MonitorContext
from mailer.monitor.exchange import Answer, Asked, Refusal, Route
from mailer.monitor.limits import LimitsView
from mailer.monitor.neighbours import Neighbours
from mailer.monitor.reading import Lookout
from mailer.monitor.replays import Order, Replays
from mailer.monitor.runs import Runs

ORIGINAL = "01JD0M3QJD0M3QJD0M3QJD0M3Q"


def test_a_slow_command_is_not_killed_but_ends_and_logs_its_copy(tmp_path: Path) -> None:
    """Killed, it might leave a copy in `new/` that no line of the ledger names."""
    gate, ended = tmp_path / "gate", tmp_path / "ended"
    os.mkfifo(gate)
    script = f"read line <{gate}; echo >{ended}"
    replays = Replays(("/bin/sh", "-c", script), allowed=True, patience=0.0)

    async def story() -> Refusal:
        # Opened for both, a FIFO does not wait for its other end.
        descriptor = os.open(gate, os.O_RDWR)
        try:
            with pytest.raises(Refusal) as refused:
                await replays.replay(Order(ORIGINAL, ["eve@example.org"]), by="test")
            os.write(descriptor, b"go\n")
            await replays.close(60.0)
        finally:
            os.close(descriptor)
        return refused.value

    refusal = asyncio.run(story())
    assert refusal.status == HTTPStatus.GATEWAY_TIMEOUT
    assert "send the same request again" in str(refusal)
    assert ended.exists()


@pytest.fixture
def context(relay: Relay) -> Iterator[MonitorContext]:
    """A monitor that cannot start `mailer-send`."""
    queue = Queue(relay.spool)
    spool = queue.spool
    log = MailLog(time.time, lambda *_: None)
    config = Config(show_content=True)
    argv = (sys.executable, "-m", "mailer", "spool", "replay", "--config", str(relay.config))
    yield MonitorContext(
        config=config,
        spool=spool,
        log=log,
        clock=time.time,
        lookout=Lookout(spool, time.time),
        neighbours=Neighbours(spool, "", time.time),
        runs=Runs((str(relay.directory / "absent"),), log),
        replays=Replays(argv, allowed=True),
        alerting=Alerting(spool, log, AlertSettings(config, "relay.example.com")),
        limits=LimitsView(lambda: ()),
        token=Secret(ADMIN_TOKEN),
    )
    queue.close()


def answer(routes: tuple[Route, ...], asked: Asked, path: str) -> Answer:
    [route] = [route for route in routes if (route.method, route.path) == (asked.method, path)]
    return asyncio.run(route.handler(asked))


def test_programs_get_the_id_of_a_queued_copy_although_no_run_can_be_started(
    relay: Relay, context: MonitorContext
) -> None:
    """An error would make them send it again."""
    message_id = Queue(relay.spool).new("bob@example.net")
    body = b'{"id": "%s", "to": ["eve@example.org"]}' % message_id.encode()
    asked = Asked("POST", "/admin/replay", "127.0.0.1", body=body)
    given = answer(admin.routes(context), asked, "/admin/replay")
    [copy] = [path.name for path in (relay.spool / "new").iterdir() if path.name != message_id]
    assert given.status == HTTPStatus.OK
    assert isinstance(given.body, bytes)
    assert copy.encode() in given.body
    assert b"mailer-send could not be started: No such file" in given.body


def test_the_form_leads_to_a_queued_copy_although_no_run_can_be_started(
    relay: Relay, context: MonitorContext
) -> None:
    message_id = Queue(relay.spool).new("bob@example.net")
    path = f"/message/{message_id}/replay"
    routes, token = page.routes(context), {"authorization": (f"Bearer {ADMIN_TOKEN}",)}
    parts = {"id": message_id}
    form = answer(routes, Asked("GET", path, "127.0.0.1", token, parts=parts), "/message/{id}/replay").body
    assert isinstance(form, bytes)
    proof = form.decode().partition('name="form" value="')[2].partition('"')[0]
    body = urlencode({"form": proof, "to": "eve@example.org"}).encode()
    asked = Asked("POST", path, "127.0.0.1", token, body=body, parts=parts)
    location = dict(answer(routes, asked, "/message/{id}/replay").headers)["Location"]
    copy = location.removeprefix("/message/").removesuffix("?done=replay-waits")
    assert (relay.spool / "new" / copy).exists()
    query = {"done": "replay-waits"}
    shown = answer(
        routes,
        Asked("GET", f"/message/{copy}", "127.0.0.1", token, query, parts={"id": copy}),
        "/message/{id}",
    )
    assert isinstance(shown.body, bytes)
    assert b"mailer-send could not be started; the next run will send it" in shown.body
