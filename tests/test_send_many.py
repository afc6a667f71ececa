"""Many runners on one spool."""

import subprocess
from collections import Counter

from sending import queue
from spool_walk import walk
from testbed.relay import Relay, mailer_send_command
from testbed.smtp_sink import SmtpSink

RUNNERS = 64
MESSAGES = 200


def test_sixty_four_runners_on_one_spool_send_each_message_once(relay: Relay, smtp_sink: SmtpSink) -> None:
    """FAULTS row 11."""
    providers = [{"host": smtp_sink.host, "port": smtp_sink.port}]
    relay.configure({"forwardSMTP": True, "forwardProviders": providers})
    addresses = [f"user{number}@example.net" for number in range(MESSAGES)]
    for address in addresses:
        queue(relay.spool, [address])
    command = [*mailer_send_command(), "--once", "--config", str(relay.config)]
    runners = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(RUNNERS)]
    ends = [(runner.communicate(timeout=300)[1], runner.returncode) for runner in runners]
    assert set(ends) == {(b"", 0)}
    arrived = Counter(arrival.recipients for arrival in smtp_sink.arrivals())
    assert arrived == Counter((address,) for address in addresses)
    assert walk(relay.spool) == {}
