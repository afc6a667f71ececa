"""An HTML mail in a real Chromium: nothing in it runs, and nothing is loaded for it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from spools.states import Queue
from testbed.browser import Browser, Tab
from testbed.ports import LOOPBACK
from testbed.relay import ADMIN_TOKEN, Relay

from mailer.monitor.page.sanitised import POLICY

ATTACK = """<style>body {{ background: url({at}/css) }}</style><link rel="stylesheet" href="{at}/link">
<meta http-equiv="refresh" content="0;url={at}/refresh"><base href="{at}/">
<script>parent.postMessage("ran", "*"); top.postMessage("ran", "*"); fetch("{at}/fetch")</script>
<script src="{at}/script"></script>
<p style="background: url({at}/style)" onclick="fetch('{at}/click')">Hello</p>
<img src="{at}/image" onerror="parent.postMessage('ran', '*')">
<img src="data:," onerror="parent.postMessage('ran', '*')">
<iframe src="{at}/frame"></iframe><object data="{at}/object"></object><embed src="{at}/embed">
<video src="{at}/video" autoplay></video>
<svg onload="parent.postMessage('ran', '*')"><image href="{at}/svg"/></svg>
<form id="f" action="{at}/form" method="post"><input autofocus onfocus="document.forms.f.submit()"></form>
<details open ontoggle="parent.postMessage('ran', '*')">x</details><a href="{at}/link" target="_top">y</a>
"""
LISTEN = "window.heard = []; addEventListener('message', (event) => heard.push(event.data))"
LOAD_AGAIN = """new Promise((done) => {
  const frame = document.querySelector("iframe");
  frame.addEventListener("load", () => setTimeout(done));
  frame.src = frame.src;
})"""
"""Resolved when the frame is loaded: what its scripts would have said by then was heard before."""


class Recorder:
    """A server that remembers what it was asked, and serves pages."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.pages: dict[str, tuple[str, str]] = {}
        """By path: the Content-Security-Policy, and the page."""
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                recorder.asked.append(self.path)
                policy, page = recorder.pages.get(self.path, ("", "/* nothing */"))
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                if policy:
                    self.send_header("Content-Security-Policy", policy)
                self.end_headers()
                self.wfile.write(page.encode())

            do_POST = do_GET  # noqa: N815 - http.server's name

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.url = f"http://{LOOPBACK}:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator["Recorder"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser") / "profile") as running:
        yield running


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    tab = browser.tab()
    yield tab
    tab.close()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder().serving() as running:
        yield running


def test_nothing_in_an_html_mail_runs_and_nothing_is_loaded(
    relay: Relay, tab: Tab, recorder: Recorder
) -> None:
    relay.configure({"showContent": True})
    head = b"Subject: hello\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
    message_id = Queue(relay.spool).new(body=head + ATTACK.format(at=recorder.url).encode())
    home = f"http://localhost:{relay.http_port}"
    with relay.monitor():
        tab.go(f"{home}/login?token={ADMIN_TOKEN}")
        tab.go(f"{home}/message/{message_id}")
        tab.click("a.button[href$=content]")
        assert "Subject\nhello" in tab.text()
        tab.run(LISTEN)
        tab.run(LOAD_AGAIN)
        assert tab.run("heard") == []
        assert tab.run("location.pathname") == f"/message/{message_id}/content"
        assert [url for url in tab.requests() if not url.startswith(home)] == []
        assert tab.complaints() == [], "our page keeps its own policy"
        # Alone in a tab it is as harmless.
        tab.go(f"{home}/message/{message_id}/content/html")
        assert tab.run("self.origin") == "null"
        assert "Hello" in tab.text()
    assert recorder.asked == []


@pytest.mark.parametrize("walled", [True, False], ids=["with the policy", "without it"])
def test_the_frame_alone_keeps_the_mail_in(tab: Tab, recorder: Recorder, *, walled: bool) -> None:
    """The wall holds whatever the sanitiser would miss; without it, the same mail runs and loads."""
    at = recorder.url
    sandbox = 'sandbox=""' if walled else ""
    recorder.pages["/mail"] = (
        POLICY if walled else "",
        ATTACK.format(at=at),
    )
    recorder.pages["/"] = (
        "frame-src 'self'",
        f'<script>{LISTEN}</script><iframe {sandbox} src="/mail"></iframe>',
    )
    tab.go(f"{at}/")
    tab.run(LOAD_AGAIN)
    assert bool(tab.run("heard.length")) is not walled
    loaded = set(recorder.asked) - {"/", "/mail", "/favicon.ico"}
    assert bool(loaded) is not walled, loaded


def test_the_page_can_be_read_on_a_phone_and_in_the_dark(relay: Relay, tab: Tab, tmp_path: Path) -> None:
    relay.configure({"showContent": True})
    long = b"x" * 500
    text = b"Subject: " + long + b"\r\nContent-Type: text/plain\r\n\r\n" + long + b"\r\n\r\nBye\r\n"
    message_id = Queue(relay.spool).new(body=text)
    with relay.monitor():
        tab.go(f"http://localhost:{relay.http_port}/login?token={ADMIN_TOKEN}")
        for path in ("content", "replay"):
            for dark in (False, True):
                tab.look(width=380, dark=dark)
                tab.go(f"http://localhost:{relay.http_port}/message/{message_id}/{path}")
                assert tab.run("document.documentElement.scrollWidth") <= 380, path
                tab.picture(tmp_path / f"{path}-{dark}.png")
        assert tab.complaints() == []
