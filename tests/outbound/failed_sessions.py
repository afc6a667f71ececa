"""Sessions that fail, and the traces that they leave."""

from pathlib import Path

from testbed.relay import Relay

from mailer.mail.clock import seconds
from outbound.hostile import Server
from outbound.sending import forward_to, queue

USER, PASSWORD = "relay@example.com", "ya29.s3cret+open/Sesame"
REFUSED = {"rcpt": "550 5.1.1 no such user"}


def trace_files(relay: Relay) -> list[Path]:
    return sorted((relay.spool / "traces").glob("*"))


def only_trace(relay: Relay) -> str:
    """The only trace."""
    [path] = trace_files(relay)
    return path.read_text()


def said_in(trace: str) -> list[str]:
    """What was said, without the times."""
    return [line[11:] for line in trace.partition("\n\n")[2].splitlines()]


def fail(relay: Relay, server: Server, **settings: object) -> str:
    """Have one message fail at a server; return its id."""
    relay.configure(forward_to(server, **settings))
    message = queue(relay.spool)
    done = relay.mailer_send("--once")
    assert done.returncode == 0, done.stderr
    return message


def with_login(server: Server, mechanism: str = "") -> dict[str, list[dict[str, object]]]:
    login = {"username": USER, "password": PASSWORD} | ({"auth": mechanism.lower()} if mechanism else {})
    return {"forwardProviders": [{"host": "127.0.0.1", "port": server.port, **login}]}


NOW = seconds("2026-11-22T21:45:03Z")
