"""Mail with a Latest-Delivery-Time is not delivered after it, and its sender hears of that in time."""

import json
import time

import pytest
from outbound.hostile import Server
from outbound.sending import MESSAGE, SENDER, TO, forward_to
from testbed.faketime import faketime
from testbed.relay import Relay

from mailer.mail.clock import rfc3339, seconds
from mailer.receive.content.fault import Fault
from mailer.receive.content.wishes import Wishes, wishes
from mailer.spool.layout import full_minute

NOW = seconds("2026-11-22T08:00:00Z")
HOUR = 3600.0


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"Subject: Latest-Delivery-Time: x\r\n", Wishes()),
        (b"Latest-Delivery-Time: Sun, 22 Nov 2026 10:00:00 +0100\r\n", Wishes(expires=NOW + HOUR)),
        (b"latest-delivery-time :\r\n 22 Nov 2026 09:00:00 -0000\r\n", Wishes(expires=NOW + HOUR)),
        (b"Latest-Delivery-Time: 2026-11-22T09:00:00Z\r\nIdempotency-Key: k\r\n", Wishes("k", NOW + HOUR)),
        (b"Latest-Delivery-Time: 2026-11-22T08:59:60Z\r\n", Wishes(expires=NOW + HOUR)),
        (b"Latest-Delivery-Time: Sun, 22 Nov 2026 08:59:60 GMT\r\n", Wishes(expires=NOW + HOUR)),
        (b"Latest-Delivery-Time: Sun, 22 Nov 2026 08:59:61 GMT\r\n", Fault.BAD_LATEST),
        (b"Latest-Delivery-Time: 2026-11-22T08:00:00Z\r\n", Fault.TOO_LATE),
        (b"Latest-Delivery-Time: 0001-01-01T00:00:00Z\r\n", Fault.TOO_LATE),
        (b"Latest-Delivery-Time: 2026-11-22T09:00:00\r\n", Fault.BAD_LATEST),
        (b"Latest-Delivery-Time: 9999-12-31T23:59:59-23:59\r\n", Fault.BAD_LATEST),
        (b"Latest-Delivery-Time: Fri, 31 Dec 9999 23:59:59 -2359\r\n", Fault.BAD_LATEST),
        (b"Latest-Delivery-Time:\r\n", Fault.BAD_LATEST),
        (b"Latest-Delivery-Time: tomorrow\r\n", Fault.BAD_LATEST),
        (b"Latest-Delivery-Time: Sun, 22 Nov 99999999999999999999 10:00:00 +0100\r\n", Fault.BAD_LATEST),
        (b"Latest-Delivery-Time: \xff\r\n", Fault.BAD_LATEST),
        (b"Latest-Delivery-Time: " + b"1" * 100_000 + b"\r\n", Fault.BAD_LATEST),
        (b"Latest-Delivery-Time: 2026-11-22T09:00:00Z\r\n" * 2, Fault.BAD_LATEST),
    ],
)
@pytest.mark.security_case(122)
def test_a_latest_delivery_time_is_one_time_to_come_or_is_refused(head: bytes, expected: object) -> None:
    assert wishes(head, NOW, obey_keys=True) == expected


def test_mail_is_not_tried_after_its_latest_delivery_time_and_the_operator_may_still_want_it(
    relay: Relay,
) -> None:
    latest = rfc3339(time.time() + HOUR)
    with Server({"rcpt": ["451 4.3.0 not now", None]}) as server:
        # The second attempt would be after its time.
        relay.configure(forward_to(server, bounce="sender", retry={"schedule": ["3h"]}))
        with relay.serve(), relay.connect() as client:
            client.mail(SENDER)
            client.rcpt(TO)
            code, text = client.data(f"Latest-Delivery-Time: {latest}\r\n".encode() + MESSAGE)
        assert code == 250
        name = text.split()[4].decode()
        assert relay.mailer_send("--once").returncode == 0
        (listed,) = relay.mailer("spool", "ls", "--json").stdout.splitlines()
        assert json.loads(listed)["next"] == rfc3339(full_minute(seconds(latest)))
        why = relay.mailer("spool", "why", name).stdout
        assert f"given up on {latest[:10]} {latest[11:19]}Z unless sent before" in why
        assert f"not to be delivered after {latest[:10]} {latest[11:19]}Z" in why
        assert relay.mailer_send("--once", under=faketime("+2h")).returncode == 0
        commands = [command for session in server.sessions for command in session.commands]
        assert sum(command.startswith(f"RCPT TO:<{TO}>".encode()) for command in commands) == 1
        (notice,) = server.messages
        assert (notice.sender, notice.recipients) == ("", [SENDER])
        assert b"Latest-Delivery-Time has passed; last: 451 4.3.0 not now" in b" ".join(notice.body.split())
        assert b"Status: 5.4.7" in notice.body
        assert relay.mailer("spool", "retry", name).returncode == 0
        assert relay.mailer_send("--once", under=faketime("+2h")).returncode == 0
        assert [message.sender for message in server.messages] == ["", SENDER]
