"""Runs that notify senders, and the one notification that a server got."""

from testbed.faketime import faketime
from testbed.relay import Relay

from outbound.bounces import Notification, notifications
from outbound.hostile import Server
from outbound.sending import forward_to, found

ANN, BOB, EVE = "ann@example.net", "bob@example.net", "eve@example.org"
NEVER, LATER = "550 5.1.1 no such user", "451 4.7.1 greylisted"
NO_DSN = ("PIPELINING", "8BITMIME", "SMTPUTF8")


def sending(relay: Relay, server: Server, **settings: object) -> None:
    relay.configure(forward_to(server, **({"bounce": "sender", "hostname": "relay.example.com"} | settings)))


def run(relay: Relay, shift: str = "") -> None:
    done = relay.mailer_send("--once", under=faketime(shift) if shift else ())
    assert done.returncode == 0, done.stderr


def only_notification(server: Server) -> Notification:
    (notification,) = notifications(server)
    return notification


def times_offered(server: Server, address: str) -> int:
    """How often the server was offered mail for an address."""
    to = f"RCPT TO:<{address}>".encode()
    return sum(line.startswith(to) for session in server.sessions for line in session.commands)


def attempts(relay: Relay, message: str) -> int:
    left = found(relay.spool, message)
    return left.kinds.count("deferred") if left and left.place == "retry" else 0
