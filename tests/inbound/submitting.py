"""A real receiver with its HTTP door, clients for it, and its description to hold the answers against."""

import http.client
import json
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from testbed.http_client import Answer, read_answer
from testbed.ports import LOOPBACK

from inbound.receiving import CLOSED, Receiver, login, running
from mailer.cli.receiving.submitted import look_up
from mailer.mail.patterns import AddressPatterns
from mailer.receive.listen.inherited import HTTP
from mailer.receive.settings import Endpoint, Settings
from mailer.receive.users.account import Account
from mailer.receive.users.auth import Identity
from mailer.receive.users.hashes import hash_token
from mailer.spool.directory import Spool

TOKEN, OTHERS_TOKEN, LIMITED_TOKEN = "mt_" + "a" * 43, "mt_" + "b" * 43, "mt_" + "c" * 43
BEARER = {"Authorization": f"Bearer {TOKEN}"}
RAW = {"Content-Type": "message/rfc822"}
JSON = {"Content-Type": "application/json"}
MESSAGE = b"From: <a@example.com>\r\nSubject: hello\r\n\r\nOne line.\r\n"
MAIL = {"from": "a@example.com", "to": "b@example.net", "subject": "hello", "text": "One line."}
MESSAGES = "/v1/messages"
ENVELOPE = f"{MESSAGES}?from=a@example.com&to=b@example.net"
WITH_TOKEN = f"Authorization: Bearer {TOKEN}\r\n"
HEAD = f"POST {ENVELOPE} HTTP/1.1\r\nHost: localhost\r\n{WITH_TOKEN}"
RAW_HEAD = f"{HEAD}Content-Type: message/rfc822\r\n"
DESCRIPTION = json.loads(
    (Path(__file__).parents[2] / "mailer" / "receive" / "web" / "openapi.json").read_bytes()
)
DOOR = Endpoint(port=0, http=True, name=HTTP)
HTTP_TOO = replace(CLOSED, endpoints=(DOOR,))
_USERS = (
    Account(Identity("shop"), hash_token(TOKEN)),
    Account(Identity("other"), hash_token(OTHERS_TOKEN)),
    Account(Identity("limited", AddressPatterns.of(["a@example.com"])), hash_token(LIMITED_TOKEN)),
)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@dataclass(frozen=True)
class Door:
    """What a test may do with it."""

    receiver: Receiver

    @property
    def port(self) -> int:
        return self.receiver.server.addresses[1][1]

    def ask(
        self,
        path: str,
        method: str = "GET",
        headers: Mapping[str, str] = BEARER,
        body: bytes | Iterator[bytes] | None = None,
    ) -> Answer:
        return ask(self.port, path, method, headers, body)

    def submit(self, message: bytes = MESSAGE, path: str = ENVELOPE, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask(path, "POST", BEARER | RAW | named, message)

    def post(self, mail: Any, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = mail if isinstance(mail, bytes) else json.dumps(mail).encode()
        return self.ask(MESSAGES, "POST", BEARER | JSON | named, body)

    def connect(self) -> socket.socket:
        return socket.create_connection((LOOPBACK, self.port), timeout=60)

    def exchange(self, request: bytes, *, half_close: bool = False) -> Answer:
        """Send exactly these bytes, and read one answer."""
        with self.connect() as connection:
            connection.sendall(request)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            return read_answer(connection)


@contextmanager
def http_running(directory: Path, settings: Settings = HTTP_TOO, **parts: Any) -> Iterator[Door]:
    """Run a receiver with an HTTP door; `shop`, `other` and `limited` (to a@example.com) have tokens."""
    with (
        Spool.open(directory / "spool", create=True) as spool,
        running(
            directory, settings, login(*_USERS), **{"lookup": partial(look_up, spool)} | parts
        ) as receiver,
    ):
        yield Door(receiver)


def ask(
    port: int,
    path: str,
    method: str = "GET",
    headers: Mapping[str, str] = BEARER,
    body: bytes | Iterator[bytes] | None = None,
) -> Answer:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=60)
    try:
        connection.request(method, path, body=body, headers=dict(headers))
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, response.read())
    finally:
        connection.close()


def told(answer: Answer) -> Any:
    """The JSON of an answer; of a refusal it must be a problem that says in words what to do."""
    value = json.loads(answer.body)
    if answer.status < 400:
        assert answer.headers["content-type"] == "application/json"
        return value
    assert answer.headers["content-type"] == "application/problem+json"
    assert value["status"] == answer.status
    assert value["title"] == HTTPStatus(answer.status).phrase
    assert len(value["detail"]) > 10
    if (smtp := value.get("smtp")) and str(smtp["code"]).startswith("4") and answer.status != 422:
        assert int(answer.headers["retry-after"]) > 0
    return value


def documented() -> set[tuple[str, str, int]]:
    """Every answer of the description: path, method, status."""
    return {
        (path, method.upper(), int(status))
        for path, methods in DESCRIPTION["paths"].items()
        for method, operation in methods.items()
        for status in operation["responses"]
    }


def check_documented(path: str, method: str, answer: Answer) -> None:
    """Hold one answer against what the description says of it."""
    response = DESCRIPTION["paths"][path][method.lower()]["responses"][str(answer.status)]
    content = response["content"][answer.headers["content-type"]]
    for name in response.get("headers", {}):
        assert name.lower() in answer.headers, name
    _check(json.loads(answer.body), content["schema"], "$")


_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


def _check(value: Any, schema: Any, where: str) -> None:
    """Check a value against as much of JSON Schema as the description of our answers uses."""
    if reference := schema.get("$ref"):
        schema = DESCRIPTION["components"]["schemas"][reference.rpartition("/")[2]]
    known = {"type", "properties", "required", "additionalProperties", "items", "enum", "pattern"}
    assert schema.keys() <= known | {"description", "format"}, where
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    assert isinstance(value, tuple(_TYPES[each] for each in types)), where  # type: ignore[arg-type]
    if value is None:
        return
    assert value in schema.get("enum", [value]), where
    assert "pattern" not in schema or re.search(schema["pattern"], value), where
    properties = schema.get("properties", {})
    if "properties" in schema:
        assert set(schema.get("required", ())) <= value.keys(), where
        # Also where more would be allowed: what we answer is described.
        assert value.keys() <= properties.keys(), where
        for name, each in value.items():
            _check(each, properties[name], f"{where}.{name}")
    for at, each in enumerate(value if isinstance(value, list) else ()):
        _check(each, schema["items"], f"{where}[{at}]")
