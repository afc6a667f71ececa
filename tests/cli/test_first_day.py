"""What a newcomer looks at: a queue in the order of arrival, and programs that say what each port is for."""

import json
import random
import time
from pathlib import Path

from outbound.sending import TO, queue
from spools.states import Queue
from testbed.clients import Submission, with_smtplib
from testbed.http_client import ask
from testbed.relay import ADMIN_TOKEN, Relay
from testbed.waiting import until


def test_the_queue_is_listed_in_the_order_of_arrival(relay: Relay) -> None:
    now = time.time()
    times = [now - 10 * count for count in range(40)]
    random.Random(1).shuffle(times)
    arrived = {at: queue(relay.spool, received=at) for at in times}
    in_order = [arrived[at] for at in sorted(times)]
    listed = relay.mailer("spool", "ls").stdout.splitlines()[1:]
    assert [line.split()[0] for line in listed] == in_order
    oldest = relay.mailer("spool", "ls", "--json", "--limit", "3").stdout.splitlines()
    assert [json.loads(line)["id"] for line in oldest] == in_order[:3]


def test_the_programs_say_which_port_is_for_mail_and_which_for_the_status_page(relay: Relay) -> None:
    relay.configure({"enableHealthCheck": True, "healthCheckPort": relay.http_port})
    with relay.up() as programs:
        for said in (
            f"for mail, listening on 127.0.0.1:{relay.port}",
            f"for the status page and health, listening on 127.0.0.1:{relay.http_port}",
            f"http://localhost:{relay.http_port}/",
        ):
            until(lambda said=said: said in programs.output(), said)  # type: ignore[misc]


def test_the_page_lists_recent_mail_and_calls_nothing_well_that_waits(relay: Relay, tmp_path: Path) -> None:
    with relay.serve():
        reply = with_smtplib(
            relay.server, Submission("app@example.com", (TO,), b"Subject: x\r\n\r\n"), tmp_path
        )
    message = reply.split()[-1]
    relay.mailer_send("--once")
    with relay.monitor(), relay.serve():
        token = {"Authorization": f"Bearer {ADMIN_TOKEN}"}

        def page(path: str = "/") -> str:
            return ask(relay.http_port, path, headers=token).body.decode()

        for path in ("/", "/search"):
            recent = page(path).partition("Recent mail")[2]
            assert f'href="/message/{message}"' in recent
            assert TO in recent
        until(lambda: "<strong>All is well</strong>" in page(), "the receiver to be seen")
        states = Queue(relay.spool)
        states.fail(states.new(TO), "550 5.1.1 no such user", TO)
        until(lambda: "given up" in page().partition("</section>")[0], "the page to see it")
        assert "All is well" not in page()
