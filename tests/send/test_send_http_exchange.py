"""Servers and proxies that answer too early, or never; and what is said about it, without a URL's secrets."""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from outbound.outgoing import LONG, Letter, Password

from mailer.calls.post import CallError, post
from mailer.config.hops import Api
from mailer.send.http.apis import Body, Request
from mailer.send.http.exchange import Broken, Exchange
from mailer.send.http.session import HttpSession
from mailer.send.phase import Phase, Timeouts
from mailer.send.smtp.hop import Hop
from mailer.send.trouble import SessionLost

if TYPE_CHECKING:
    from mailer.mail.envelope import Recipient

BIG = Letter(b"Subject: hello\r\n\r\n" + b"x" * 18_000_000)
"""More than the kernel's buffers take (up to 4 MB here and 6 MB there, tcp(7))."""
SECRET = "T0K3N-of-the-webhook"
Server = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run_with(server: Server, client: Callable[[int], Awaitable[None]]) -> None:
    """Run a client against a server on a port of its own; a client that hangs fails."""

    async def both() -> None:
        over = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await server(reader, writer)
                await over.wait()
            finally:
                writer.transport.abort()

        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with listening, asyncio.timeout(60):
            try:
                await client(listening.sockets[0].getsockname()[1])
            finally:
                over.set()
                await asyncio.sleep(0)

    asyncio.run(both())


def answers(answer: bytes) -> Server:
    """Answer once a request's head is there, with its first line in the place of `{head}`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(answer.replace(b"{head}", head.partition(b"\r\n")[0]))

    return serve


async def silent(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Neither answer nor read on."""


def test_who_answers_200_before_the_mail_was_there_has_not_taken_it() -> None:
    """Nobody was sent anything, whatever it says: it is tried again, in another session."""
    committed: list[Sequence[Recipient]] = []

    async def send(port: int) -> None:
        url, key = f"http://127.0.0.1:{port}", Password("key")
        hop = Hop("127.0.0.1", port, api=Api.MAILGUN, api_url=url, username="mg.example", password=key)
        session = await HttpSession.open(hop, LONG, time.time)
        try:
            with pytest.raises(
                SessionLost, match=r"HTTP 200 OK id=x [(]before the whole request was sent"
            ) as lost:
                await session.transact(BIG, BIG.envelope.recipients, committed.append)
            assert lost.value.phase is Phase.BODY
            assert not session.alive
        finally:
            await session.close()

    run_with(answers(b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"id":"x"}'), send)
    assert committed == []


def request_to(url: str, message: Any = BIG) -> Request:
    return Request(url, {"Content-Type": "text/plain"}, Body(message))


def asked(url: str, times: dict[str, float], on_last: Callable[[], None] = lambda: None) -> Any:
    async def ask(port: int) -> None:
        exchange = Exchange(Timeouts(**{**dict.fromkeys(Timeouts.__slots__, 60.0), **times}), "")
        try:
            await exchange.post(request_to(url.format(port)), on_last)
        finally:
            await exchange.close()

    return ask


def test_what_could_not_be_committed_is_an_error_though_an_answer_came_before() -> None:
    refused = asyncio.Event()

    def on_last() -> None:
        refused.set()
        raise OSError(errno.ENOSPC, "the disk is full")

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begin to answer at once, and end when the message is over."""
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        rest = asyncio.create_task(reader.read())
        await refused.wait()
        writer.write(b"{}")
        await asyncio.wait([rest])

    with pytest.raises(OSError, match="the disk is full"):
        run_with(early, asked("http://127.0.0.1:{}/", {}, on_last))


@pytest.mark.parametrize(
    ("url", "times", "phase", "text"),
    [
        ("https://mail.example/", {"connect": 0.2, "tls": 0.1}, Phase.CONNECT, "no connection in time"),
        ("http://127.0.0.1:{}/", {"body": 0.2}, Phase.BODY, "the server stopped reading"),
    ],
    ids=["a proxy that does not answer CONNECT", "a server that stops reading"],
)
def test_each_wait_for_a_silent_peer_has_a_limit(
    monkeypatch: pytest.MonkeyPatch, url: str, times: dict[str, float], phase: Phase, text: str
) -> None:
    async def ask(port: int) -> None:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        await asked(url, times)(port)

    with pytest.raises(Broken) as broken:
        run_with(silent, ask)
    assert (broken.value.text, broken.value.phase, broken.value.whole) == (text, phase, False)


@pytest.mark.parametrize(
    ("scheme", "server", "text"),
    [
        ("http", answers(b"{head}\r\n\r\n"), "its answer is not HTTP"),
        ("http", answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{head}\r\n"), "its answer"),
        ("https", silent, "no answer within 0.5 seconds"),
    ],
    ids=["no HTTP", "no chunk", "no handshake"],
)
def test_an_error_text_has_nothing_of_a_secret_url(scheme: str, server: Server, text: str) -> None:
    async def call(port: int) -> None:
        await post(f"{scheme}://127.0.0.1:{port}/{SECRET}", b"{}", timeout=0.5, headers={})

    with pytest.raises((CallError, TimeoutError), match=text) as error:
        run_with(server, call)
    assert SECRET not in str(error.value)


def test_a_lack_of_descriptors_is_no_trouble_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def ask() -> None:
        exchange = Exchange(Timeouts(), "")
        monkeypatch.setattr(socket, "socket", full)
        try:
            await exchange.ask("GET", "http://127.0.0.1:9/")
        finally:
            await exchange.close()

    with pytest.raises(Broken, match="Too many open files") as caught:
        asyncio.run(ask())
    assert (caught.value.local, caught.value.phase) == (True, Phase.CONNECT)
