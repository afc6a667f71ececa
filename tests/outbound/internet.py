"""A small internet on loopback: a name server, and the mail exchangers that it knows."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from testbed.name_server import NameServer
from testbed.ports import free_port
from testbed.relay import Relay

from outbound.hostile import Server
from outbound.sending import found, queue


class Internet:
    """A name server, and the mail exchangers it knows, all at the same port of different addresses."""

    def __init__(self, dns: Any) -> None:
        """Args: dns: the name server, `str()` of which is its address."""
        self.dns = dns
        self.dns_timeout = "2s"
        self.port = free_port()
        self._servers = ExitStack()

    def server(self, host: str, script: Mapping[str, Any] | None = None, **more: Any) -> Server:
        return self._servers.enter_context(Server(script, host=host, port=self.port, **more))

    def settings(self, **direct: Any) -> dict[str, Any]:
        return {
            "directDelivery": {"enabled": True, "port": self.port, "allowPrivate": True, **direct},
            "dns": {"nameservers": [str(self.dns)], "timeout": self.dns_timeout},
            "batchDelay": 0,
        }

    @classmethod
    @contextmanager
    def served_by(cls, dns: Any) -> Iterator["Internet"]:
        internet = cls(dns)
        with internet._servers, dns:
            yield internet

    @classmethod
    def of(cls, zone: Mapping[tuple[str, str], Sequence[str]]) -> AbstractContextManager["Internet"]:
        """With a scripted name server, whose zone may be changed."""
        return cls.served_by(NameServer(zone))


def run(relay: Relay, internet: Internet, to: Sequence[str] = ("bob@one.test",), **direct: Any) -> Any:
    """Send one message, and return what the spool has of it afterwards; None when it is gone."""
    relay.configure(internet.settings(**direct))
    message_id = queue(relay.spool, to)
    done = relay.mailer_send("--once")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return found(relay.spool, message_id)


def words(message: Any) -> str:
    return " | ".join(str(event.get("reply", "")) for event in message.events)
