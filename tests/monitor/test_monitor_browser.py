"""The status page in a real Chromium: one browser for all of it, with and without JavaScript."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from outbound.hostile import Server, per_address
from outbound.sending import forward_to
from spools.states import Queue
from testbed.browser import Browser, Tab
from testbed.relay import ADMIN_TOKEN, Relay

from mailer.mail import clock
from mailer.spool.state import provider_state
from mailer.spool.state.provider_state import ProviderState

REFUSED = "550 5.1.1 <b>no such user</b>"

WEAK = """
(() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const linear = (c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
    const [x, y, z] = [r, g, b].map((c) => linear(c / 255));
    return .2126 * x + .7152 * y + .0722 * z;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = parts(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const weak = [];
  for (const e of document.body.querySelectorAll("*")) {
    const said = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!said && !e.matches("input") || e.closest("svg") || !e.checkVisibility()) continue;
    const [a, b] = [light(parts(getComputedStyle(e).color)), light(behind(e))];
    const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (contrast < 4.5) weak.push([e.outerHTML.slice(0, 80), contrast.toFixed(2)]);
  }
  return weak;
})()
"""
"""What is too pale or too dark to be read (WCAG 2.2, 1.4.3: 4.5 to 1)."""


@dataclass
class Site:
    """A relay with a next hop, in front of a browser."""

    relay: Relay
    hop: Server
    states: Queue
    tab: Tab
    seen: list[str] = field(default_factory=list)

    def url(self, path: str = "/") -> str:
        return f"http://localhost:{self.relay.http_port}{path}"

    def fail(self, address: str) -> None:
        """Submit a message, and have the next hop refuse it."""
        self.hop.script["rcpt"] = per_address({address: REFUSED})
        with self.relay.connect() as client:
            client.sendmail("app@example.com", [address], "Subject: an order\r\n\r\nhello\r\n")
        self.relay.mailer_send()
        self.hop.script.clear()

    def assert_clean(self) -> None:
        """Nothing was asked of anybody else, and the browser has nothing to complain of."""
        asked = self.tab.requests()
        assert asked
        assert [url for url in asked if not url.startswith(self.url()) and url != "about:blank"] == []
        assert self.tab.complaints() == []


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser") / "profile") as running:
        yield running


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, Server]]:
    relay = Relay(tmp_path_factory.mktemp("relay"))
    with Server() as hop:
        relay.configure(forward_to(hop) | {"rateLimits": {"enabled": True, "maxPerHour": 100}})
        with relay.serve(), relay.monitor():
            yield relay, hop


@pytest.fixture
def site(running: tuple[Relay, Server], browser: Browser) -> Iterator[Site]:
    relay, hop = running
    tab = browser.tab()
    tab.go(f"http://localhost:{relay.http_port}/login?token={ADMIN_TOKEN}")
    yield Site(relay, hop, Queue(relay.spool), tab)
    tab.close()


@pytest.mark.parametrize("script", [True, False], ids=["with JavaScript", "without JavaScript"])
def test_a_failed_message_is_searched_for_retried_and_seen_delivered(site: Site, *, script: bool) -> None:
    address = f"bob-{script}@example.net".lower()
    site.fail(address)
    tab = site.tab
    tab.look(script=script)
    tab.go(site.url())
    assert "failed" in tab.text("#queue")
    if not script:
        assert tab.run("document.getElementById('pulse').hidden")
    tab.type("#q", address)
    tab.click("header button")
    tab.click("a.id")
    assert REFUSED in tab.text("#steps")
    tab.click("a.button[href$=retry]")
    assert "Try again now?" in tab.text()
    tab.click("button.primary")
    assert "a run of mailer-send has been started" in tab.text()
    if script:
        tab.await_text("Sent to every recipient", "#story")
    else:
        end = time.monotonic() + 60
        while "Sent to every recipient" not in tab.text("#story"):
            assert time.monotonic() < end
            tab.go(site.url(tab.run("location.pathname")))
    assert [to for to, _ in site.hop.delivered()].count(address) == 1
    assert "by status page" in tab.text("#steps")
    site.assert_clean()


def test_every_page_can_be_read_in_light_and_dark_on_a_desk_and_on_a_phone(site: Site) -> None:
    """No sideways scrolling at 380 pixels, text of enough contrast, nothing against the policy."""
    states = site.states
    long = f"{'x' * 60}@{'y' * 60}.example.net"
    failed, held = states.new(long), states.new()
    waiting = states.new(long, sender=long)
    states.fail(failed, f"550 5.1.1 {'z' * 200}", long)
    states.hold(held, "asked the customer first")
    states.defer(waiting, "451 4.7.1 come back later", long)
    fill_ledger(site.relay.spool)
    trouble = ProviderState(
        open_until=datetime.now(UTC) + timedelta(hours=1),
        kind="login",
        trouble="535 5.7.8 no",
        at=datetime.now(UTC),
    )
    provider_state.write(states.spool, {f"127.0.0.1:{site.hop.port}": trouble})
    pages = ["/", "/queue/retry", "/queue/failed", "/queue/cur", "/search?q=example", "/login", "/message/x"]
    pages += [
        f"/message/{failed}",
        f"/message/{held}",
        f"/message/{waiting}/delete",
        f"/message/{waiting}/hold",
    ]
    tab = site.tab
    for width in (1200, 380):
        for dark in (False, True):
            tab.look(width=width, dark=dark)
            for path in pages:
                tab.go(site.url(path))
                assert tab.run("document.documentElement.scrollWidth") <= width, (path, width)
                assert tab.run(WEAK) == [], (path, dark)
                if path == "/":
                    # What a state means is told on a phone, too.
                    assert (
                        tab.run("getComputedStyle(document.querySelector('.queue td.wide')).display")
                        != "none"
                    )
                paper = tab.run("getComputedStyle(document.body).backgroundColor")
                assert ("rgb(21," in paper) is dark
    errors = [each for each in tab.complaints() if "/message/x" not in json.dumps(each)]
    assert errors == []
    assert [url for url in tab.requests() if not url.startswith(site.url())] == []


def test_a_drawing_says_in_words_what_it_shows(site: Site) -> None:
    fill_ledger(site.relay.spool)
    site.tab.go(site.url())
    tree = site.tab.call("Accessibility.getFullAXTree")["nodes"]
    drawings = [node for node in tree if node.get("role", {}).get("value") in {"image", "img"}]
    names = [drawing["name"]["value"] for drawing in drawings]
    for span in ("hour", "day", "week"):
        [name] = [name for name in names if f"Recipients of the last {span}" in name]
        assert "accepted" in name
        assert "given up" in name


def test_the_page_changes_by_itself_when_mail_comes(site: Site) -> None:
    site.tab.go(site.url())
    site.tab.await_text("live", ".top")
    before = site.tab.text("#queue tbody")
    site.states.hold(site.states.new(), "later")
    for _ in range(600):
        if site.tab.text("#queue tbody") != before:
            break
        site.tab.call(
            "Runtime.evaluate", expression="new Promise(r => setTimeout(r, 100))", awaitPromise=True
        )
    assert site.tab.text("#queue tbody") != before
    site.assert_clean()


def test_the_policy_stops_what_is_not_ours_and_these_tests_would_see_it(site: Site) -> None:
    site.tab.go(site.url())
    site.tab.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    site.tab.run("new Promise(r => setTimeout(r, 200))")
    assert site.tab.run("document.title") == "Overview · mailer"
    assert site.tab.complaints() != []


def fill_ledger(spool: Path) -> None:
    """Have something happened in each span."""
    now = time.time()
    lines = []
    for number, ago in enumerate((60, 600, 7_200, 40_000, 200_000, 500_000)):
        for event in ("accepted", "sent", "deferred", "bounced"):
            line = {
                "at": clock.rfc3339(now - ago),
                "event": event,
                "id": f"{number:026}",
                "to": ["a@example.org"],
            }
            lines.append(json.dumps(line, separators=(",", ":")))
    for text in lines:
        with (spool / "log" / f"{text[7:17].replace('-', '')}.jsonl").open("a") as day:
            day.write(text + "\n")
