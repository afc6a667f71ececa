"""HTTP as the rest of this room sees it: a request and an answer as plain values, and a table of routes.

`app` is the only module that knows the library which speaks the protocol.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec

from mailer.mail import clock

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    """Decoded, beginning with a slash."""
    peer: str
    """The IP address at the other end."""
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By name in lower case, each value in the order of the request."""
    query: Mapping[str, str] = field(default_factory=dict)
    """Of a parameter given twice, the last."""
    body: bytes = b""
    parts: Mapping[str, str] = field(default_factory=dict)
    """What stood for the `{name}` parts of the route's path."""

    def header(self, name: str) -> str:
        """Return a header field's only or first value; empty when there is none."""
        return next(iter(self.headers.get(name, ())), "")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client gets."""

    body: bytes | AsyncGenerator[bytes]
    """A generator is sent piece by piece, until it ends, or the client leaves and it is closed."""
    kind: str = JSON
    status: int = HTTPStatus.OK
    headers: tuple[tuple[str, str], ...] = ()


class Refusal(Exception):
    """A request that is not done; told to the client in the words and the JSON of the Go relay."""

    def __init__(self, status: HTTPStatus, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers

    def answer(self, now: float) -> Answer:
        told = {"status": "error", "error": str(self), "timestamp": clock.rfc3339(now)}
        return json(told, self.status, *self.headers)


Handler = Callable[[Asked], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """What answers one method at one path; `{name}` in the path stands for one part of it."""

    method: str
    path: str
    handler: Handler
    admin: bool = False
    """The token must be presented."""


class Table:
    """All routes of a server. GET answers HEAD too; nothing answers OPTIONS, so no other origin is let in."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [(route.path.split("/"), route) for route in routes]

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Return the route, and what stood for its `{name}` parts.

        Raises:
            Refusal: 404; or 405 with the methods that the path knows.
        """
        wanted = "GET" if method == "HEAD" else method
        allowed: list[str] = []
        for pattern, route in self._routes:
            parts = _match(pattern, path.split("/"))
            if parts is not None and route.method == wanted:
                return route, parts
            if parts is not None:
                allowed += [route.method] if route.method != "GET" else ["GET", "HEAD"]
        if not allowed:
            raise Refusal(HTTPStatus.NOT_FOUND, "there is nothing here")
        methods = ", ".join(dict.fromkeys(allowed))
        raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"use {methods}", ("Allow", methods))


def _match(pattern: list[str], path: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(path):
        return None
    parts: dict[str, str] = {}
    for expected, part in zip(pattern, path, strict=True):
        if expected.startswith("{") and part:
            parts[expected[1:-1]] = part
        elif expected != part:
            return None
    return parts


def json(value: object, status: int = HTTPStatus.OK, *headers: tuple[str, str]) -> Answer:
    """Answer in JSON, with a line end for those who read it at a terminal."""
    return Answer(msgspec.json.encode(value) + b"\n", status=status, headers=headers)


def accepted(asked: Asked) -> dict[str, float]:
    """Read the Accept field: media ranges with their quality (RFC 9110 12.5.1), malformed ones left out."""
    found: dict[str, float] = {}
    for each in ",".join(asked.headers.get("accept", ())).split(","):
        kind, *parameters = (part.strip().lower() for part in each.split(";"))
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            found[kind] = max(found.get(kind, 0.0), float(quality))
        except ValueError:
            continue
    return found
