"""The next hop of all hosts: takes everything, and writes down each final dot before it replies to it.

python -m hosts_lab.sink LOG DELAY PORT

A line has the seconds since boot, the host (the first label of the name in EHLO), the number of the
connection, and the mark of the message (the local part of its recipient).
"""

import asyncio
import os
import sys
import time
from functools import partial
from itertools import count
from typing import cast

from testbed.ports import LOOPBACK

_NUMBERS = count(1)


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, log: int, delay: float) -> None:
        self._log, self._delay = log, delay
        self._host = ""
        self._number = next(_NUMBERS)
        self._transport: asyncio.Transport
        self._input = b""
        self._mark = ""
        self._is_text = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._say("220 sink.test")

    def data_received(self, data: bytes) -> None:
        self._input += data
        while True:
            line, end, rest = self._input.partition(b"\r\n")
            if not end:
                return
            self._input = rest
            if not self._is_text:
                self._command(line)
            elif line == b".":
                self._is_text = False
                moment = time.clock_gettime(time.CLOCK_BOOTTIME)
                os.write(self._log, f"{moment:.6f} {self._host} {self._number} {self._mark}\n".encode())
                asyncio.get_running_loop().call_later(self._delay, self._say, "250 taken")

    def _command(self, line: bytes) -> None:
        match line[:4].upper():
            case b"EHLO":
                self._host = line[5:].partition(b".")[0].decode()
                self._say("250-sink.test\r\n250-8BITMIME\r\n250 PIPELINING")
            case b"RCPT":
                self._mark = line.partition(b"<")[2].partition(b"@")[0].decode()
                self._say("250 ok")
            case b"DATA":
                self._is_text = True
                self._say("354 go on")
            case b"QUIT":
                self._say("221 bye")
                self._transport.close()
            case _:
                self._say("250 ok")

    def _say(self, reply: str) -> None:
        if not self._transport.is_closing():
            self._transport.write(reply.encode() + b"\r\n")


async def _serve(log: int, delay: float, port: int) -> None:
    await asyncio.get_running_loop().create_server(partial(Session, log, delay), LOOPBACK, port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(
        _serve(
            os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            float(sys.argv[2]),
            int(sys.argv[3]),
        )
    )
