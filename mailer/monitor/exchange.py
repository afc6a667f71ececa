"""Plain values for HTTP: requests, answers, and a table of routes.

Only `app` knows the HTTP library.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec

from mailer.mail import clock

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Asked:
    """An HTTP request."""

    method: str
    path: str
    """The decoded path, which begins with a slash."""
    peer: str
    """The client's IP address."""
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Lower-case field name -> values in the order of the request."""
    query: Mapping[str, str] = field(default_factory=dict)
    """Query parameters; of a repeated parameter, the last value."""
    body: bytes = b""
    parts: Mapping[str, str] = field(default_factory=dict)
    """The values of the `{name}` parts of the route's path."""

    def header(self, name: str) -> str:
        """Return the first value of a header field; empty if there is none."""
        return next(iter(self.headers.get(name, ())), "")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response."""

    body: bytes | AsyncGenerator[bytes]
    """A generator is streamed until it ends, or until the client disconnects, and is then closed."""
    kind: str = JSON
    status: int = HTTPStatus.OK
    headers: tuple[tuple[str, str], ...] = ()


class Refusal(Exception):
    """A request is refused; the client gets JSON in the format of the Go relay."""

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
    """The handler for one method and path; `{name}` in the path matches one path segment."""

    method: str
    path: str
    handler: Handler
    admin: bool = False
    """Whether the request must present the token."""


class Table:
    """All routes of a server. GET routes also answer HEAD; none answers OPTIONS, so CORS is never granted."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [(route.path.split("/"), route) for route in routes]

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Return the route, and the values of its `{name}` parts.

        Raises:
            Refusal: 404, or 405 with the methods that the path supports.
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
    """Build an answer in JSON, with a final newline for terminals."""
    return Answer(msgspec.json.encode(value) + b"\n", status=status, headers=headers)


def accepted(asked: Asked) -> dict[str, float]:
    """Parse Accept into media ranges with their quality (RFC 9110 12.5.1), skipping malformed ones."""
    found: dict[str, float] = {}
    for each in ",".join(asked.headers.get("accept", ())).split(","):
        kind, *parameters = (part.strip().lower() for part in each.split(";"))
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            found[kind] = max(found.get(kind, 0.0), float(quality))
        except ValueError:
            continue
    return found
