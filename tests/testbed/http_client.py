"""Asking a monitor: as a program would, and byte by byte."""

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from testbed.ports import LOOPBACK
from testbed.relay import ADMIN_TOKEN

JSON = "application/json"
# What Prometheus 2.42 and 3.x send.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
        "application/openmetrics-text;version=0.0.1;q=0.5,"
        "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    ),
)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == JSON
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The text of an error, which must have the Go relay's form."""
        told = self.json
        assert told.keys() == {"status", "error", "timestamp"}
        assert told["status"] == "error"
        return str(told["error"])


def ask(
    port: int,
    path: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=60)
    try:
        presented = (
            {}
            if {"Authorization", "Cookie"} & (headers or {}).keys()
            else {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        )
        connection.request(method, path, body=body, headers=presented | dict(headers or {}))
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, response.read())
    finally:
        connection.close()


def post(port: int, path: str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(port, path, "POST", named)


def exchange(port: int, request: bytes, *, half_close: bool = False) -> Answer:
    """Send exactly these bytes, and read one answer."""
    with socket.create_connection((LOOPBACK, port), timeout=60) as connection:
        connection.sendall(request)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        return read_answer(connection)


def read_answer(connection: socket.socket) -> Answer:
    response = http.client.HTTPResponse(connection)
    response.begin()
    fields = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, fields, response.read())
