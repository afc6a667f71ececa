"""What a newcomer looks at: a queue in the order of arrival, and programs that say what each port is for."""

import json
import random
import time

from sending import queue
from testbed.relay import Relay
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
