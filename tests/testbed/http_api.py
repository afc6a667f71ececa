"""Stand-ins on loopback for providers' interfaces over HTTP: each checks what its documentation names.

A request that is not as documented is answered 400 `NotAsDocumented`, with the reason in `complaints`. What
is answered instead of the usual is scripted, one for each request that may send, the last one stays:

    api.script = [(429, {"error": {"code": "TooMany"}}, {"Retry-After": "7"}), Fault.LOST, None]

None: as it should. What an interface took, whatever it then answered, is in `taken`.
"""

import hashlib
import hmac
import json
import re
import socket
import ssl
import threading
import time
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.parser import BytesParser
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import trustme

MAILBOX, DOMAIN = "relay@example.com", "mg.example.com"
REGION = "eu-central-1"


class Fault(Enum):
    """What happens instead of an answer."""

    LOST = auto()
    """The message is taken, and the connection ends without an answer."""
    REFUSED_EARLY = auto()
    """The connection ends while the request is being read."""
    SLOW_GATEWAY = auto()
    """The message is taken, and a gateway answers 504."""
    REDIRECT = auto()


@dataclass(frozen=True)
class Taken:
    """One message that was taken."""

    recipients: tuple[str, ...]
    """In the order in which they are named."""
    message: bytes
    path: str
    token: str


class NotAsDocumentedError(Exception):
    """A request differs from what the documentation says."""


@dataclass(frozen=True)
class Posted:
    """A request."""

    path: str
    headers: Any
    body: bytes


Reader = Callable[["HttpApi", Posted], Taken]


class HttpApi:
    """Runs from `__enter__` to `__exit__`, at `url`; one interface."""

    def __init__(
        self,
        read: Reader,
        *,
        bearers: Callable[[str], bool] = bool,
        refuses: Callable[[Taken], Any] = lambda _: None,
        tls: bool = False,
        port: int = 0,
        receive_buffer: int = 0,
    ) -> None:
        """
        Args:
            read: checks a request and reads it.
            bearers: which access tokens are taken.
            refuses: a status and an object for what is not taken.
            tls: with a certificate of `trust`.
            port: where it listens; 0: at a free one.
            receive_buffer: octets that the kernel takes of a request before it is read, about; 0: megabytes.
        """
        self._receive_buffer = receive_buffer
        self.read = read
        self.refuses = refuses
        self.bearers = bearers
        self.tls = tls
        self._port = port
        self.keys: dict[str, str] = {}
        """Secret access keys by their ids, for `ses`."""
        self.script: list[Any] = []
        self.taken: list[Taken] = []
        self.complaints: list[str] = []
        self.requests = 0
        """That may send."""
        self.whole = 0
        """Of these, those that were read to their end."""
        self.at_once = 0
        """The most that were open at the same time."""
        self.hold: threading.Event | None = None
        """Requests are answered once it is set."""
        self.release_at = 0
        """The request that sets it."""
        self._open = 0
        self._authority = trustme.CA()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.answer(self)

            def do_GET(self) -> None:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Listener(ThreadingHTTPServer):
            # Its usual 5 are full when a hundred requests come at once, and the host then looks to be down.
            request_queue_size = 1024
            daemon_threads = True

            def server_bind(self) -> None:
                if outer._receive_buffer:  # connections have the buffer of their listening socket
                    self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, outer._receive_buffer)
                super().server_bind()

        self._server = Listener(("127.0.0.1", self._port), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign, assignment]
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._authority.issue_cert("localhost").configure_cert(context)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}" if self.tls else f"http://127.0.0.1:{self.port}"

    def trust(self, directory: Path) -> dict[str, str]:
        """The environment in which this server is trusted."""
        bundle = directory / "api.pem"
        self._authority.cert_pem.write_to_path(str(bundle))
        return {"SSL_CERT_FILE": str(bundle)}

    # One request.

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.requests += 1
            if self.hold and self.requests == self.release_at:
                self.hold.set()
            self._open += 1
            self.at_once = max(self.at_once, self._open)
            said = self.script[0] if self.script else None
            if len(self.script) > 1:
                del self.script[0]
        try:
            self._answer(request, said)
        finally:
            with self._lock:
                self._open -= 1

    def _answer(self, request: BaseHTTPRequestHandler, said: Any) -> None:
        if said is Fault.REFUSED_EARLY:
            request.rfile.read(1)
            request.connection.shutdown(2)
            request.close_connection = True
            return
        posted = Posted(
            request.path, request.headers, request.rfile.read(int(request.headers["Content-Length"]))
        )
        with self._lock:
            self.whole += 1
        if self.hold:
            self.hold.wait()
        if said is Fault.REDIRECT:
            _say(request, 307, b"", {"Location": "http://elsewhere.example/"})
        elif isinstance(said, tuple):
            status, body, headers = (*said, {})[:3]
            _say(request, status, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)
        else:
            self._take(request, posted, said)

    def _take(self, request: BaseHTTPRequestHandler, posted: Posted, fault: Any) -> None:
        token = posted.headers.get("Authorization", "").removeprefix("Bearer ")
        if posted.headers.get("Authorization", "").startswith("Bearer ") and not self.bearers(token):
            body = {"error": {"code": "InvalidAuthenticationToken", "message": f"no such token: {token}"}}
            _say(request, 401, json.dumps(body).encode())
            return
        try:
            taken = self.read(self, posted)
        except NotAsDocumentedError as error:
            self.complaints.append(str(error))
            body = {"error": {"code": "NotAsDocumented", "message": str(error)}}
            _say(request, 400, json.dumps(body).encode())
            return
        if no := self.refuses(taken):
            _say(request, no[0], json.dumps(no[1]).encode())
            return
        with self._lock:
            self.taken.append(taken)
            number = len(self.taken)
        if fault is Fault.LOST:
            request.connection.shutdown(2)
            request.close_connection = True
        elif fault is Fault.SLOW_GATEWAY:
            _say(request, 504, b"<html>Gateway Time-out</html>", {"Content-Type": "text/html"})
        else:
            status, body = USUAL[self.read](number)
            _say(
                request, status, json.dumps(body).encode() if body else b"", {"request-id": f"r-{number:06}"}
            )


def _say(
    request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None
) -> None:
    request.send_response(status)
    for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def named(message: bytes) -> tuple[str, ...]:
    """Whom a header names, as another parser than ours reads it."""
    parsed = BytesParser(policy=policy.SMTP).parsebytes(message)
    return tuple(
        address.addr_spec
        for name in ("To", "Cc", "Bcc", "Resent-To", "Resent-Cc", "Resent-Bcc")
        for field in parsed.get_all(name, [])
        for address in field.addresses
    )


def expect(*, true: bool, what: str) -> None:
    if not true:
        raise NotAsDocumentedError(what)


def graph(_: HttpApi, posted: Posted) -> Taken:
    """Microsoft Graph, "user: sendMail", in MIME format."""
    expect(true=posted.path == f"/v1.0/users/{MAILBOX}/sendMail", what=f"path {posted.path}")
    expect(true=posted.headers["Content-Type"] == "text/plain", what="Content-Type")
    expect(true=len(posted.body) <= 4 * 2**20, what="more than 4 MB")
    message = b64decode(posted.body, validate=True)
    return Taken(named(message), message, posted.path, posted.headers["Authorization"])


def gmail(_: HttpApi, posted: Posted) -> Taken:
    """Gmail, "Method: users.messages.send", by upload."""
    path = f"/upload/gmail/v1/users/{MAILBOX}/messages/send?uploadType=media"
    expect(true=posted.path == path, what=f"path {posted.path}")
    expect(true=posted.headers["Content-Type"] == "message/rfc822", what="Content-Type")
    return Taken(named(posted.body), posted.body, posted.path, posted.headers["Authorization"])


def mailgun(api: HttpApi, posted: Posted) -> Taken:
    """Mailgun, "Send an email in MIME format": a form with `to` and the file `message`."""
    expect(true=posted.path == f"/v3/{DOMAIN}/messages.mime", what=f"path {posted.path}")
    form, _, boundary = posted.headers["Content-Type"].partition("; boundary=")
    expect(true=form == "multipart/form-data", what="Content-Type")
    kind, _, login = posted.headers["Authorization"].partition(" ")
    user, _, key = b64decode(login).decode().partition(":")
    expect(true=(kind, user) == ("Basic", "api") and api.bearers(key), what="login")
    first, *parts, last = posted.body.split(f"--{boundary}".encode())
    expect(true=(first, last) == (b"", b"--\r\n"), what="form")
    recipients, messages = [], []
    for part in parts:
        head, _, value = part.partition(b"\r\n\r\n")
        expect(true=value.endswith(b"\r\n"), what="form")
        if b'name="to"' in head:
            recipients.append(value[:-2].decode())
        else:
            expect(true=b'name="message"; filename="' in head, what="message is not a file")
            messages.append(value[:-2])
    [message] = messages
    return Taken(tuple(recipients), message, posted.path, key)


def ses(api: HttpApi, posted: Posted) -> Taken:
    """Amazon SES, "SendEmail" with raw content, and "Verifying Signature Version 4" in words of its own."""
    expect(true=posted.path == "/v2/email/outbound-emails", what=f"path {posted.path}")
    expect(true=posted.headers["Content-Type"] == "application/json", what="Content-Type")
    key = _verified(api, posted)
    said = json.loads(posted.body)
    expect(true=said.keys() <= {"Content", "Destination", "FromEmailAddress"}, what=str(said.keys()))
    expect(true=list(said["Content"]) == ["Raw"], what="Content")
    recipients = said["Destination"]["ToAddresses"]
    expect(true=0 < len(recipients) <= 50, what=f"{len(recipients)} recipients")
    message = b64decode(said["Content"]["Raw"]["Data"], validate=True)
    return Taken(tuple(recipients), message, said.get("FromEmailAddress", ""), key)


def _verified(api: HttpApi, posted: Posted) -> str:
    """Return the id of the access key that signed the request."""
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=(\w+)/(\d{8})/([\w-]+)/ses/aws4_request, "
        r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})",
        posted.headers["Authorization"],
    )
    expect(true=found is not None, what="Authorization")
    assert found
    key_id, day, region, names, signature = found.groups()
    expect(true={"host", "x-amz-date", "content-type"} <= set(names.split(";")), what="signed headers")
    expect(true=region == REGION, what=f"region {region}")
    date = posted.headers["X-Amz-Date"]
    then = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    expect(true=date.startswith(day) and abs(time.time() - then) < 300, what="date")
    signed = "".join(f"{name}:{posted.headers[name].strip()}\n" for name in names.split(";"))
    payload = hashlib.sha256(posted.body).hexdigest()
    request = f"POST\n{posted.path}\n\n{signed}\n{names}\n{payload}"
    scope = f"{day}/{region}/ses/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    key = f"AWS4{api.keys.get(key_id, '')}".encode()
    for word in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest}"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    expect(true=hmac.compare_digest(key.hex(), signature), what="signature")
    return key_id


USUAL: dict[Reader, Callable[[int], tuple[int, Any]]] = {
    graph: lambda _: (202, None),
    mailgun: lambda number: (200, {"id": f"<{number}@{DOMAIN}>", "message": "Queued. Thank you."}),
    ses: lambda number: (200, {"MessageId": f"{number:016x}-0000"}),
    gmail: lambda number: (200, {"id": f"{number:016x}", "threadId": "1", "labelIds": ["SENT"]}),
}
"""What is answered when all is well."""
