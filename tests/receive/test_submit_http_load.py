"""Submission by HTTP under load: slow, large and leaving clients, and the end of the server."""

import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from inbound.receiving import certificate
from inbound.submitting import (
    DOOR,
    HTTP_TOO,
    MAIL,
    MESSAGE,
    MESSAGES,
    OTHERS_TOKEN,
    RAW_HEAD,
    TOKEN,
    WITH_TOKEN,
    Door,
    bearer,
    http_running,
    told,
)
from testbed.http_client import Answer, read_answer
from testbed.ports import LOOPBACK
from testbed.waiting import until

from mailer.receive.listen.inherited import Inherited
from mailer.receive.listen.sockets import UnsafeSettingsError
from mailer.receive.settings import Endpoint
from mailer.receive.web import messages
from mailer.receive.web import server as http_server


def test_a_client_that_leaves_before_the_answer_doubles_nothing(door: Door) -> None:
    """What was there whole is queued, and with its key submitted again it is the same mail."""
    whole = f"{RAW_HEAD}Idempotency-Key: k\r\nContent-Length: {len(MESSAGE)}\r\n\r\n".encode() + MESSAGE
    with door.connect() as connection:
        connection.sendall(whole[:-1])
    for _ in range(3):
        with door.connect() as connection:
            connection.sendall(whole)
    until(door.receiver.messages, "one of them to be taken")
    repeated = until(lambda: answered(door.submit(Idempotency_Key="k")), "the key to be free")
    until(lambda: door.receiver.server.sessions == 0, "the connections to end")
    assert len(door.receiver.messages()) == 1
    assert door.ask(f"{MESSAGES}/{repeated['id']}").status == 200
    assert door.receiver.leftovers() == []


def answered(answer) -> Any:
    return told(answer) if answer.status == 202 else None


@pytest.mark.security_case(131)
def test_slow_clients_are_given_up_and_their_number_is_bounded(tmp_path: Path, monkeypatch) -> None:
    """In the head, in the body, or idle; when all places are taken, the oldest without a token gives way."""
    monkeypatch.setattr(http_server, "_BODY_PATIENCE", 0.2)
    monkeypatch.setattr(http_server, "HEAD_TIMEOUT", 0.2)
    with http_running(tmp_path) as door:
        assert door.exchange(b"POST /v1/mess").status == 408
        assert door.exchange(f"{RAW_HEAD}Content-Length: 9999\r\n\r\nFrom: <a@".encode()).status == 408
        dripping = door.connect()
        with dripping, suppress(ConnectionError):
            dripping.sendall(f"{RAW_HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
            until(lambda: not still_takes(dripping, b"1\r\nF\r\n"), "a body that drips to be given up")
        until(lambda: door.receiver.server.sessions == 0, "their connections to end")
    for name, value in (("_BODY_PATIENCE", 60.0), ("HEAD_TIMEOUT", 60.0), ("MOST", 3)):
        monkeypatch.setattr(http_server, name, value)
    with http_running(tmp_path) as door:
        idle = [door.connect() for _ in range(3)]
        until(lambda: door.receiver.server.sessions == 3, "all places to be taken")
        assert door.submit().status == 202
        assert idle[0].recv(1) == b"", "the oldest gives way to one that shows a token"
        for connection in idle:
            connection.close()
        until(lambda: door.receiver.server.sessions == 0, "the places to be free")
        held = [door.connect() for _ in range(3)]
        for connection in held:
            connection.sendall(f"GET {MESSAGES}/X HTTP/1.1\r\nHost: localhost\r\n{WITH_TOKEN}\r\n".encode())
            assert read_answer(connection).status == 404
        refused = door.exchange(b"")
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) > 0
        assert "Too many connections" in told(refused)["detail"]
        for connection in held:
            connection.close()
        until(lambda: door.receiver.server.sessions == 0, "the places to be free")
        assert door.submit().status == 202
    assert len(list((tmp_path / "spool" / "new").iterdir())) == 2


@pytest.mark.security_case(137)
def test_one_token_does_not_hold_all_places(tmp_path: Path, monkeypatch) -> None:
    """An idle connection of the same user gives way; while all are busy that user has to come again."""
    monkeypatch.setattr(http_server, "MOST_OF_ONE", 2)
    head = f"{RAW_HEAD}Content-Length: {len(MESSAGE)}\r\n\r\n".encode()
    with http_running(tmp_path) as door:
        idle, *busy = (door.connect() for _ in range(3))
        with idle, busy[0], busy[1]:
            idle.sendall(f"GET {MESSAGES}/X HTTP/1.1\r\nHost: localhost\r\n{WITH_TOKEN}\r\n".encode())
            assert read_answer(idle).status == 404
            for number, connection in enumerate(busy, start=1):
                connection.sendall(head + MESSAGE[:10])
                until(lambda: len(door.receiver.leftovers()) == number, "the message to have begun")  # noqa: B023
            assert idle.recv(1) == b""
            refused = door.submit()
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) > 0
            assert door.ask(f"{MESSAGES}/X", headers=bearer(OTHERS_TOKEN)).status == 404
            for connection in busy:
                connection.sendall(MESSAGE[10:])
                assert read_answer(connection).status == 202
            assert door.submit().status == 202, "one that is idle again gives way"


@pytest.mark.security_case(145)
def test_the_questions_of_one_user_do_not_keep_the_others_waiting(tmp_path: Path) -> None:
    asked: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def look_up(user: str, _id: str) -> None:
        asked.append(user)
        begun.set()
        assert go_on.wait(60)

    with http_running(tmp_path, lookup=look_up) as door, ThreadPoolExecutor() as pool:
        http = door.receiver.server._http
        assert http
        waiting = http._messages._looking._waiting

        def ask(token: str) -> Future[Answer]:
            return pool.submit(door.ask, f"{MESSAGES}/{'0' * 26}", headers=bearer(token))

        answers = [ask(TOKEN)]
        assert begun.wait(60)
        answers += [ask(TOKEN) for _ in range(3)]
        until(lambda: len(waiting.get("shop", ())) == 3, "their questions to wait")
        answers.append(ask(OTHERS_TOKEN))
        until(lambda: "other" in waiting, "the other's question to wait")
        go_on.set()
        assert [answer.result().status for answer in answers] == [404] * 5
    assert asked == ["shop", "shop", "other", "shop", "shop"]


@pytest.mark.security_case(145)
def test_the_large_documents_of_one_user_leave_room_for_the_others(door: Door, monkeypatch) -> None:
    monkeypatch.setattr(messages, "_UNCOUNTED", 100)
    monkeypatch.setattr(messages, "_MAX_GATHERED", 4000)
    monkeypatch.setattr(messages, "_MAX_OF_ONE", 2000)
    head = f"POST {MESSAGES} HTTP/1.1\r\nHost: localhost\r\n{WITH_TOKEN}Content-Type: application/json\r\n"
    large = MAIL | {"text": "x" * 1500}
    with door.connect() as slow:
        slow.sendall(f"{head}Content-Length: 9999\r\n\r\n".encode() + b" " * 1500)
        http = door.receiver.server._http
        assert http
        gathered = http._messages._gathered
        until(lambda: gathered["shop"] == 1500, "a part of the document")
        assert door.post(large).status == 503
        assert door.post(large, Authorization=f"Bearer {OTHERS_TOKEN}").status == 202
        assert door.post(MAIL | {"text": "short"}).status == 202
    until(lambda: "shop" not in gathered, "the memory to be free")
    assert door.post(MAIL | {"text": "x" * 2500}).status == 202


def still_takes(connection: socket.socket, data: bytes) -> bool:
    """Send a little, and tell whether nobody has answered yet."""
    connection.sendall(data)
    connection.setblocking(False)
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    finally:
        connection.setblocking(True)


def test_a_request_under_way_is_finished_when_the_server_stops_and_idle_clients_are_not_waited_for(
    tmp_path: Path,
) -> None:
    with http_running(tmp_path) as door:
        idle, busy = door.connect(), door.connect()
        head = f"{RAW_HEAD}Content-Length: {len(MESSAGE)}\r\n\r\n".encode()
        busy.sendall(head + MESSAGE[:10])
        until(door.receiver.leftovers, "the message to have begun")
        stopping = threading.Thread(target=door.receiver.stop, args=(60,))
        stopping.start()
        assert idle.recv(1) == b""
        busy.sendall(MESSAGE[10:])
        with busy.makefile("rb") as answer:
            said = answer.read()
        stopping.join()
        assert said.startswith(b"HTTP/1.1 202 ")
        assert b"Connection: close" in said
        idle.close()
        busy.close()
    assert len(list((tmp_path / "spool" / "new").iterdir())) == 1


def test_a_service_manager_may_listen_for_it_and_settings_change_while_it_runs(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as listening:
        given = (Inherited(listening, "http"),)
        with http_running(tmp_path, inherited=given) as door:
            assert door.port == listening.getsockname()[1]
            assert door.submit(Host="mail.example").status == 403
            service = door.receiver.server._context
            named = replace(service.settings, http_names=("mail.example",), max_message_size=10)
            door.receiver.loop.call_soon_threadsafe(
                door.receiver.server.reconfigure, replace(service, settings=named)
            )
            until(lambda: door.submit(Host="mail.example").status == 413, "the new settings to count")


def test_beyond_this_host_it_takes_tls(tmp_path: Path) -> None:
    everywhere = replace(HTTP_TOO, local_only=False, endpoints=(replace(DOOR, host="0.0.0.0"),))
    with pytest.raises(UnsafeSettingsError, match=r"submitHttp\.tls"), http_running(tmp_path, everywhere):
        pass
    encrypted = replace(everywhere, endpoints=(Endpoint("0.0.0.0", 0, tls=True, http=True),))
    with http_running(tmp_path, encrypted, certificate=certificate(tmp_path)) as door:
        with (
            door.connect() as plain,
            door.receiver.trust.wrap_socket(plain, server_hostname="localhost") as connection,
            connection.makefile("rb") as answer,
        ):
            connection.sendall(f"{RAW_HEAD}Content-Length: {len(MESSAGE)}\r\n\r\n".encode() + MESSAGE)
            assert answer.readline() == b"HTTP/1.1 202 Accepted\r\n"
        with door.connect() as plain, suppress(ConnectionError):
            plain.sendall(f"{RAW_HEAD}Content-Length: {len(MESSAGE)}\r\n\r\n".encode() + MESSAGE)
            assert b"202" not in plain.recv(100)
