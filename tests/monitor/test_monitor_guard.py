"""No page of another site, and nobody beyond this host, makes the monitor do or tell anything.

Over raw sockets: what an HTTP library would not let us send is sent all the same.
"""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from outbound.sending import queue
from testbed.http_client import ask, exchange, post, read_answer
from testbed.ports import LOOPBACK
from testbed.process import ServerProcess
from testbed.relay import ADMIN_TOKEN, Relay

from mailer.config.secrets import Secret
from mailer.maillog.events import MailLog
from mailer.monitor import app
from mailer.monitor.app import HEAD_TIMEOUT, MAX_BODY
from mailer.monitor.exchange import Answer, Asked, Route, Table, json
from mailer.spool.directory import Spool
from mailer.spool.state.pause import is_paused

PRESENTED = f"Authorization: Bearer {ADMIN_TOKEN}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, ServerProcess]]:
    """One monitor for all that leaves it as it was."""
    relay = Relay(tmp_path_factory.mktemp("relay"))
    with relay.monitor() as process:
        yield relay, process


@pytest.fixture
def site(running: tuple[Relay, ServerProcess]) -> Relay:
    return running[0]


@pytest.fixture
def monitor(running: tuple[Relay, ServerProcess]) -> ServerProcess:
    return running[1]


def head(*lines: str, target: str = "/health", method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {target} HTTP/1.1", *lines, "", "")).encode()


def resident(pid: int) -> int:
    """Kilobytes of memory that a process has had at most."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


@pytest.mark.security_case(144)
def test_a_client_that_holds_all_connections_does_not_keep_others_from_asking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "MAX_CONNECTIONS", 3)
    answering, done = asyncio.Event(), asyncio.Event()

    async def health(_: Asked) -> Answer:
        return json({"status": "ok"})

    async def slow(_: Asked) -> Answer:
        answering.set()
        await done.wait()
        return json({"status": "late"})

    async def converse() -> None:
        table = Table((Route("GET", "/health", health), Route("GET", "/slow", slow)))
        context = app.HttpContext(table, Secret("token"), MailLog(time.time, lambda *_: None), time.time)
        site = app.bind(0)
        port = site[0].getsockname()[1]
        async with app.serve(site, context), AsyncExitStack() as opened:

            async def ask(path: str) -> asyncio.StreamReader:
                reader, writer = await asyncio.open_connection(LOOPBACK, port)
                opened.push_async_callback(writer.wait_closed)
                opened.callback(writer.close)
                writer.write(head("Host: localhost", target=path))
                return reader

            at_work = await ask("/slow")
            await answering.wait()
            held = [await ask("/health") for _ in range(2)]
            for each in held:
                assert b"200 OK" in await each.readuntil(b"}\n")
            for oldest in held:
                assert b"200 OK" in await (await ask("/health")).readuntil(b"}\n")
                assert await oldest.read() == b""
            done.set()
            assert b"late" in await at_work.readuntil(b"}\n")

    asyncio.run(converse())


@pytest.mark.security_case(90)
@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        (["localhost"], 200),
        (["LOCALHOST:1"], 200),
        (["127.0.0.1:8025"], 200),
        (["127.8.9.10"], 200),
        (["[::1]:8025"], 200),
        (["evil.com"], 403),
        (["localhost.evil.com"], 403),
        (["evil.com:8025"], 403),
        (["localhost@evil.com"], 403),
        (["192.0.2.1"], 403),
        (["0.0.0.0"], 403),
        (["[::1"], 403),
        ([""], 400),
        ([], 400),
        (["localhost", "localhost"], 400),
        (["localhost", "evil.com"], 400),
    ],
)
def test_a_request_must_name_this_host_once(site: Relay, hosts: list[str], status: int) -> None:
    answer = exchange(site.http_port, head(*(f"Host: {host}" for host in hosts)))
    assert answer.status == status
    if status != 200:
        assert answer.error


ELSEWHERE = [
    {"Origin": "https://evil"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "https://localhost"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    {"Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"},
]


@pytest.mark.security_case(91)
@pytest.mark.parametrize("headers", ELSEWHERE, ids=str)
def test_a_page_of_another_site_makes_nothing_happen(site: Relay, headers: dict[str, str]) -> None:
    answer = ask(site.http_port, "/admin/pause", "POST", headers)
    assert answer.status == 403
    assert "other sites" in answer.error
    with Spool.open(site.spool) as spool:
        assert not is_paused(spool)


@pytest.mark.parametrize("path", ["/health", "/metrics", "/admin/config", "/nothing"])
def test_a_page_of_another_site_reads_nothing(site: Relay, path: str) -> None:
    for headers in (
        {"Origin": "https://evil"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ):
        assert ask(site.http_port, path, headers=headers).status == 403


def test_our_own_page_and_a_followed_link_are_let_in(site: Relay) -> None:
    own = f"http://{LOOPBACK}:{site.http_port}"
    same = {"Origin": own, "Sec-Fetch-Site": "same-origin"}
    assert ask(site.http_port, "/admin/pause", "POST", same).status == 200
    assert ask(site.http_port, "/admin/resume", "POST", same).status == 200
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert ask(site.http_port, "/health", headers=followed).status == 200


@pytest.mark.security_case(91)
@pytest.mark.parametrize("path", ["/health", "/metrics", "/admin/retry-failed", "/nothing"])
def test_options_grant_nothing(site: Relay, path: str) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Sec-Fetch-Site": "none"}
    for headers in (asked, asked | {"Origin": "https://evil"}):
        answer = ask(site.http_port, path, "OPTIONS", headers)
        assert answer.status in {403, 404, 405}
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.security_case(92)
@pytest.mark.parametrize(
    ("path", "allowed", "others"),
    [
        ("/admin/retry-failed", "POST", ("GET", "HEAD", "PUT", "DELETE", "PATCH")),
        ("/admin/pause", "POST", ("GET",)),
        ("/admin/resume", "POST", ("GET",)),
        ("/admin/clean-old-emails", "POST", ("GET",)),
        ("/admin/config", "GET, HEAD", ("POST",)),
        ("/health", "GET, HEAD", ("POST", "PUT", "DELETE")),
        ("/metrics", "GET, HEAD", ("POST",)),
    ],
)
def test_other_methods_are_405_and_name_the_right_one(
    site: Relay, path: str, allowed: str, others: tuple[str, ...]
) -> None:
    for method in others:
        answer = ask(site.http_port, path, method)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)


@pytest.mark.security_case(93)
def test_what_is_no_http_is_400_in_our_words(monitor, site: Relay) -> None:
    for request in (
        head("Host: localhost", "Content-Length: 1", "Content-Length: 2", method="POST"),
        head("Host: localhost", "Content-Length: 1", "Content-Length: 1", method="POST"),
        head("Host: localhost", "Content-Length: -1", method="POST"),
        head("Host: localhost", "Content-Length: 5", "Transfer-Encoding: chunked", method="POST"),
        head("Host: localhost", "Transfer-Encoding: chunked, gzip", method="POST"),
        head("Host : localhost"),
        head("Host: localhost", "X: a\0b"),
        head("Host: localhost", target="/a b"),
        head("Host: localhost", f"X: {'a' * 20_000}"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        head("Host: localhost", target="http://localhost/health"),
        head("Host: localhost", target="localhost:80", method="CONNECT"),
    ):
        answer = exchange(site.http_port, request)
        assert answer.status in {400, 403, 404, 405}, request
        assert answer.error
        assert "Traceback" not in answer.error
    assert ask(site.http_port, "/health").status == 200
    assert "defect" not in monitor.output()


def test_a_client_that_says_no_more_gets_its_answer(site: Relay) -> None:
    asked = head("Host: localhost")
    assert exchange(site.http_port, asked, half_close=True).status == 200
    with socket.create_connection((LOOPBACK, site.http_port), timeout=60) as connection:
        connection.sendall(asked + asked)
        connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert received.count(b"HTTP/1.1 200 OK") in {1, 2}


@pytest.mark.security_case(93)
def test_a_body_of_a_gigabyte_is_413_before_it_is_sent_or_while_it_is(monitor, site: Relay) -> None:
    before = resident(monitor.pid)
    at = f"Host: localhost\r\n{PRESENTED}"
    announced = head(at, f"Content-Length: {2**30}", method="POST", target="/admin/retry-failed")
    answer = exchange(site.http_port, announced)
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
    streamed = head(at, "Transfer-Encoding: chunked", method="POST", target="/admin/retry-failed")
    with socket.create_connection((LOOPBACK, site.http_port), timeout=60) as connection:
        connection.sendall(streamed + chunk * (2 + MAX_BODY // 65_536))
        assert read_answer(connection).status == 413
    assert exchange(site.http_port, announced[:-2] + b"Expect: 100-continue\r\n\r\n").status == 413
    assert resident(monitor.pid) - before < 20_000


@pytest.mark.security_case(93)
def test_a_slow_head_and_a_slow_body_are_408(site: Relay) -> None:
    """They are slow at the same time, and nobody else waits for them."""
    began = time.monotonic()
    slow_head = socket.create_connection((LOOPBACK, site.http_port), timeout=60)
    slow_body = socket.create_connection((LOOPBACK, site.http_port), timeout=60)
    second = socket.create_connection((LOOPBACK, site.http_port), timeout=60)
    silent = socket.create_connection((LOOPBACK, site.http_port), timeout=60)
    with slow_head, slow_body, second, silent:
        slow_head.sendall(b"GET /health HTTP/1.1\r\nHost: local")
        slow_body.sendall(
            head("Host: localhost", PRESENTED, "Content-Length: 10", method="POST", target="/admin/resume")
            + b"12345"
        )
        second.sendall(head("Host: localhost"))
        assert read_answer(second).status == 200
        second.sendall(b"GET /he")
        assert ask(site.http_port, "/health").status == 200
        for connection in (slow_head, slow_body, second, silent):
            answer = read_answer(connection)
            assert answer.status == 408
            assert answer.error == "the request took too long"
            assert connection.recv(1) == b""
    assert HEAD_TIMEOUT - 1 < time.monotonic() - began < HEAD_TIMEOUT + 20


def test_it_listens_on_loopback_alone(site: Relay, elsewhere: str) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((elsewhere, site.http_port), timeout=10).close()


def test_with_a_token_the_admin_requests_need_it_and_reading_does_not(relay: Relay) -> None:
    relay.configure({"adminToken": "s3cret-token"})
    queue(relay.spool)
    with relay.monitor() as process:
        for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret-token"},
                      {"Authorization": "Bearer"}, {"Authorization": "Bearer s3cret-token2"}):  # fmt: skip
            for method, path in (("POST", "/admin/pause"), ("GET", "/admin/config")):
                answer = ask(relay.http_port, path, method, wrong)
                assert answer.status == 401
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert "s3cret" not in answer.error
        right = {"Authorization": "Bearer s3cret-token"}
        assert ask(relay.http_port, "/admin/pause", "POST", right).status == 200
        shown = ask(relay.http_port, "/admin/config", headers=right)
        assert shown.json["adminToken"] == "********"
        assert b"s3cret" not in shown.body
        assert b"correct horse" not in shown.body
        assert ask(relay.http_port, "/health").status == 200
        assert "s3cret" not in process.output()


def test_a_token_that_cannot_be_had_is_said_at_the_start(relay: Relay) -> None:
    relay.configure({"adminToken": {"file": "not-there"}, "enableHealthCheck": True})
    done = relay.mailer("monitor", "--port", "0")
    assert done.returncode == 78
    assert "$.adminToken" in done.stderr


def test_a_taken_port_is_said_loudly_with_what_to_do(site: Relay) -> None:
    done = site.mailer("monitor")
    assert done.returncode == 69
    assert f"cannot listen on localhost:{site.http_port}: Address already in use" in done.stderr
    assert "healthCheckPort" in done.stderr
    assert ask(site.http_port, "/health").status == 200


def test_switched_off_it_says_so_and_ends_well(relay: Relay) -> None:
    relay.configure({"enableHealthCheck": False})
    done = relay.mailer("monitor")
    assert done.returncode == 0
    assert "enableHealthCheck is false" in done.stderr


def test_posts_of_the_command_line_need_nothing(site: Relay) -> None:
    answer = post(site.http_port, "/admin/retry-failed")
    assert answer.status == 200
    assert answer.json.keys() == {"status", "message"}
    assert answer.json["status"] == "ok"
