"""A next hop made with stock aiosmtpd, in a thread of this process."""

import ssl
from types import TracebackType
from typing import Any, Self

from aiosmtpd.controller import Controller

from testbed.arrival import Arrival
from testbed.ports import LOOPBACK, free_port


class AiosmtpdHop:
    """A running one; it takes mail over TLS only, by STARTTLS, and offers no PIPELINING."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.port = free_port()
        self._arrivals: list[Arrival] = []
        self._controller = Controller(
            self,
            hostname=LOOPBACK,
            port=self.port,
            tls_context=tls,
            require_starttls=True,
            enable_SMTPUTF8=True,
            decode_data=False,
        )

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        sender = "" if envelope.mail_from in {None, "<>"} else envelope.mail_from
        self._arrivals.append(Arrival(sender, tuple(envelope.rcpt_tos), envelope.original_content))
        return "250 2.0.0 taken"

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._controller.stop()

    def arrivals(self) -> list[Arrival]:
        """Every message that was answered with 250."""
        return list(self._arrivals)
