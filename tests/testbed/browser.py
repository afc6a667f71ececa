"""A real Chromium without a window, spoken to over a pipe (the DevTools protocol): no driver, no port."""

import base64
import json
import os
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testbed.tools import program

_PATIENCE = 60.0
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


class Browser:
    """One running browser, with a profile of its own."""

    def __init__(self, directory: Path) -> None:
        """Start it at once; args: directory: a new one, for its profile."""
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        argv = [program("chromium"), *_FLAGS, f"--user-data-dir={directory}", "about:blank"]
        # It reads commands at descriptor 3 and answers at 4.
        numbered = f'exec "$@" 3<&{commands} 4>&{answers}'
        with (directory.parent / "browser.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program("bash"), "-c", numbered, "chromium", *argv],
                pass_fds=(commands, answers),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        os.close(commands)
        os.close(answers)
        self._number = 0
        self._read = b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command, and return its result."""
        self._number += 1
        number = self._number
        told: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            told["sessionId"] = session
        os.write(self._to, json.dumps(told).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]  # type: ignore[no-any-return]
            self.events.append(answer)

    def await_event(self, method: str, session: str, since: int) -> None:
        """Return once an event has come; args: since: how many events there were before."""
        while not any(
            e.get("method") == method and e.get("sessionId") == session for e in self.events[since:]
        ):
            self.events.append(self._next())

    def tab(self) -> "Tab":
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        return Tab(
            self, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"], target
        )

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._from], [], [], _PATIENCE)
            assert ready, "the browser says nothing"
            piece = os.read(self._from, 1 << 20)
            assert piece, "the browser has ended"
            self._read += piece
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)  # type: ignore[no-any-return]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._process.poll() is None:
                self.call("Browser.close")
            self._process.wait(_PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._to)
            os.close(self._from)


class Tab:
    """One tab, and everything that went on in it."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser = browser
        self._session = session
        self._target = target
        for domain in ("Page", "Network", "Runtime", "Log", "Audits"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def go(self, url: str) -> None:
        """Open a page, and return when it is loaded."""
        self._navigate(lambda: self.call("Page.navigate", url=url))

    def click(self, selector: str) -> None:
        """Press the mouse on the first such element, which leads to another page."""
        self._navigate(lambda: self._press(selector))

    def type(self, selector: str, text: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", text=text)

    def run(self, script: str) -> Any:
        """Evaluate JavaScript from outside the page, where its policy has no say; return the value."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self, selector: str = "body") -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def await_text(self, text: str, selector: str = "body") -> None:
        """Return once a text is shown, without loading the page again."""
        end = time.monotonic() + _PATIENCE
        while text not in self.text(selector):
            assert time.monotonic() < end, f"{text!r} is not in {self.text(selector)!r}"
            self.call("Runtime.evaluate", expression="new Promise(r => setTimeout(r, 50))", awaitPromise=True)

    def look(self, *, width: int = 1200, height: int = 900, dark: bool = False, script: bool = True) -> None:
        """Choose the window's size, the colours that the user likes, and whether scripts run."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not script)

    def picture(self, path: Path) -> None:
        """Save a PNG of the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def requests(self) -> list[str]:
        """The URLs that were asked for."""
        return [event["params"]["request"]["url"] for event in self._of("Network.requestWillBeSent")]

    def complaints(self) -> list[Any]:
        """What the browser found wrong: violations of the policy, errors of scripts and of loading."""
        errors = [e for e in self._of("Log.entryAdded") if e["params"]["entry"]["level"] == "error"]
        issues = [
            e
            for e in self._of("Audits.issueAdded")
            if e["params"]["issue"]["code"] == "ContentSecurityPolicyIssue"
        ]
        spoken = self._of("Runtime.exceptionThrown") + self._of("Runtime.consoleAPICalled")
        return [event["params"] for event in errors + issues + spoken]

    def close(self) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)

    def _of(self, method: str) -> list[dict[str, Any]]:
        mine = (event for event in self._browser.events if event.get("sessionId") == self._session)
        return [event for event in mine if event.get("method") == method]

    def _navigate(self, start: Callable[[], Any]) -> None:
        before = len(self._browser.events)
        start()
        self._browser.await_event("Page.loadEventFired", self._session, before)

    def _press(self, selector: str) -> None:
        place = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1
            )
