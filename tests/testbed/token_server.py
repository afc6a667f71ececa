"""An OAuth 2.0 token server on loopback, over TLS: it checks what it is sent, and keeps count.

It knows client secrets (RFC 6749 2.3.1), client assertions and grants by JWT (RFC 7523), refresh tokens that
it replaces at each use, and device codes (RFC 8628). What it says instead is scripted:

    server.script = [(400, {"error": "invalid_grant"}), REDIRECT, HANG, b"...", None]

one for each request, the last one stays; None: as it should. A refresh token that was replaced is taken until
its successor has been used, as providers do that reckon with lost answers.
"""

import json
import secrets
import ssl
import threading
import time
from base64 import urlsafe_b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs

import trustme
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

REDIRECT = object()
HANG = object()
JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"

Answer = Any
"""A status and an object, bytes, or one of the above."""


class TokenServer:
    """Runs from `__enter__` to `__exit__`, at `url`."""

    def __init__(self, *, client_id: str = "app", client_secret: str = "", lasts: float = 3600) -> None:
        """Args: client_secret: empty: a client proves itself by its key alone, or not at all."""
        self.client_id = client_id
        self.client_secret = client_secret
        self.lasts = lasts
        self.key: RSAPublicKey | None = None
        """Whose assertions are taken."""
        self.script: list[Answer] = []
        self.forms: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        """What was posted."""
        self.access: set[str] = set()
        """Tokens that work."""
        self.refresh: list[str] = []
        """Refresh tokens that work, the newest last."""
        self.device_codes: dict[str, bool] = {}
        """Whether the user has agreed."""
        self.refresh_lasts = 0.0
        """Seconds that it says a refresh token lasts; 0: it does not say."""
        self.token_size = 40
        self.skew = 0.0
        """Seconds by which its clock is ahead."""
        self._authority = trustme.CA()
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert("localhost").configure_cert(context)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

            def date_time_string(self, timestamp: float | None = None) -> str:
                return super().date_time_string((timestamp or time.time()) + outer.skew)  # type: ignore[arg-type]

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign, assignment]
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"https://localhost:{self._server.server_port}/token"

    @property
    def device_url(self) -> str:
        return f"https://localhost:{self._server.server_port}/device"

    def trust(self, directory: Path) -> dict[str, str]:
        """The environment in which this server is trusted."""
        bundle = directory / "token-server.pem"
        self._authority.cert_pem.write_to_path(str(bundle))
        return {"SSL_CERT_FILE": str(bundle)}

    def asked(self, kind: str = "") -> int:
        """How many tokens were asked for, by this grant."""
        return sum(1 for form in self.forms if kind in form.get("grant_type", ""))

    def new_refresh_token(self) -> str:
        self.refresh.append(f"r-{secrets.token_urlsafe(30)}")
        return self.refresh[-1]

    def revoke(self) -> None:
        """Take every access token back."""
        self.access.clear()

    # One request.

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        size = int(request.headers.get("Content-Length", 0))
        form = {name: values[0] for name, values in parse_qs(request.rfile.read(size).decode()).items()}
        with self._lock:
            self.forms.append(form)
            self.headers.append(dict(request.headers))
            scripted = self.script[0] if self.script else None
            if len(self.script) > 1:
                del self.script[0]
            said = scripted if scripted is not None else self._usual(request.path, form)
        if said is HANG:
            self._stop.wait()
            return
        if said is REDIRECT:
            request.send_response(307)
            request.send_header("Location", "https://elsewhere.example/token")
            request.end_headers()
            return
        status, body = (200, said) if isinstance(said, bytes) else (said[0], json.dumps(said[1]).encode())
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _usual(self, path: str, form: dict[str, str]) -> Answer:  # noqa: PLR0911 - one for each grant
        grant = form.get("grant_type", "")
        if grant == JWT_GRANT:
            return self._grant() if self._signed(form.get("assertion", "")) else _no("invalid_grant")
        if form.get("client_id") != self.client_id or not self._proved(form):
            return _no("invalid_client", 401)
        if path == "/device":
            return self._device()
        match grant:
            case "client_credentials":
                return self._grant()
            case "refresh_token":
                return self._refreshed(form.get("refresh_token", ""))
            case _ if grant == DEVICE_GRANT:
                agreed = self.device_codes.get(form.get("device_code", ""))
                if agreed is None:
                    return _no("expired_token")
                return self._grant(self.new_refresh_token()) if agreed else _no("authorization_pending")
        return _no("unsupported_grant_type")

    def _proved(self, form: dict[str, str]) -> bool:
        if "client_assertion" in form:
            return self._signed(form["client_assertion"])
        return not self.client_secret or form.get("client_secret") == self.client_secret

    def _refreshed(self, token: str) -> Answer:
        if token not in self.refresh:
            return _no("invalid_grant")
        if token == self.refresh[-1]:
            self.refresh[:] = [token]  # its predecessor is not needed any more
        return self._grant(self.new_refresh_token())

    def _grant(self, refresh: str = "") -> Answer:
        token = f"a-{secrets.token_hex(self.token_size)}"[: self.token_size]
        self.access.add(token)
        given = {"access_token": token, "token_type": "Bearer", "expires_in": self.lasts}
        if refresh:
            given["refresh_token"] = refresh
        if refresh and self.refresh_lasts:
            given["refresh_token_expires_in"] = self.refresh_lasts
        return 200, given

    def _device(self) -> Answer:
        code = secrets.token_hex(8)
        self.device_codes[code] = False
        where = {"verification_uri": "https://login.example/device", "user_code": "WXYZ-1234"}
        return 200, {"device_code": code, **where, "expires_in": 900, "interval": 0}

    def _signed(self, token: str) -> bool:
        """Whether it is a JWT by the key, for this server, and of now."""
        assert self.key is not None
        text, _, signature = token.rpartition(".")
        header, claims = (json.loads(_decoded(part)) for part in text.split("."))
        padding = PSS(MGF1(SHA256()), 32) if header["alg"] == "PS256" else PKCS1v15()
        self.key.verify(_decoded(signature), text.encode(), padding, SHA256())  # raises, and closes
        self.claims, self.header = claims, header
        now = time.time() + self.skew
        return claims["aud"] == self.url and claims["iat"] - 5 <= now <= claims["exp"]


def _no(error: str, status: int = 400) -> Answer:
    return status, {"error": error}


def _decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
