"""A web server that takes events as its script says: it answers, hangs, or drops what it has read."""

import hashlib
import hmac
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

SECRET = "a-secret~of the receiver"
HANG, DROP = "hang", "drop"


class Hook:
    """What it was sent, in order, and what it answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.script: list[int | str] = []
        """The answers to come: a status, `HANG`, or `DROP`; afterwards 204."""
        self.headers_of_answers: dict[str, str] = {}
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.taken: list[dict[str, Any]] = []
        """The events of requests that were answered with 2xx."""
        self.ended = threading.Event()

    def settings(self, **more: Any) -> dict[str, Any]:
        return {"onEvent": {"webhook": self.url, "secret": SECRET, **more}}

    @property
    def seen(self) -> list[dict[str, Any]]:
        return [event for _, body in self.requests for event in json.loads(body)]

    def check_signatures(self) -> None:
        for headers, body in self.requests:
            fields = dict(part.split("=", 1) for part in headers["mailer-signature"].split(","))
            signed = fields["t"].encode() + b"." + body
            assert fields["v1"] == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()


@contextmanager
def hook() -> Iterator[Hook]:
    """Run one while the block runs."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            answer = made.script.pop(0) if made.script else 204
            if isinstance(answer, int) and 200 <= answer < 300:
                made.taken += json.loads(body)
            made.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
            if answer == HANG:
                made.ended.wait()
            if isinstance(answer, str):
                self.close_connection = True
                return
            with suppress(OSError):  # of one that was killed meanwhile
                self.send_response(answer)
                for name, value in made.headers_of_answers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Hook(f"http://127.0.0.1:{server.server_port}/hooks/T0KEN")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield made
        finally:
            made.ended.set()
            server.shutdown()
            thread.join()
