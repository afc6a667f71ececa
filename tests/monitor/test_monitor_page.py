"""The status page tells what the commands tell, does what they do, and believes nothing that it is told."""

import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from html import unescape
from urllib.parse import quote, urlencode

import pytest
from outbound.hostile import Server, per_address
from outbound.sending import forward_to
from spools.states import Queue
from spools.walk import walk
from testbed.http_client import Answer, ask
from testbed.ports import LOOPBACK
from testbed.relay import ADMIN_TOKEN, Relay
from testbed.waiting import until

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SCRIPT = "<script>alert(1)</script>"
TOKEN = "correct-horse-battery"


@pytest.fixture
def states(relay: Relay) -> Queue:
    return Queue(relay.spool)


def words_of(answer: Answer) -> str:
    """What a page says, without its markup, in one line."""
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", answer.body.decode())).split())


def proof_in(answer: Answer) -> str:
    found = re.search(rb'name="form" value="([0-9a-f]+)"', answer.body)
    assert found
    return found[1].decode()


def submit(port: int, path: str, headers: Mapping[str, str] | None = None, **fields: str) -> Answer:
    """Open the form at a path, fill it in, and send it, as a browser without JavaScript does."""
    opened = ask(port, path, headers=headers)
    assert opened.status == 200, opened.body
    # With another policy a browser would send `Origin: null`.
    assert opened.headers["referrer-policy"] == "same-origin"
    body = urlencode({"form": proof_in(opened), **fields}).encode()
    origin = {"Origin": f"http://{LOOPBACK}:{port}", "Sec-Fetch-Site": "same-origin"}
    return ask(port, path, "POST", {**FORM, **origin, **(headers or {})}, body)


def ledger(relay: Relay) -> Iterator[dict[str, object]]:
    for day in sorted((relay.spool / "log").glob("*.jsonl")):
        yield from map(json.loads, day.read_text().splitlines())


def test_what_senders_and_servers_say_is_text_on_every_page(relay: Relay, states: Queue) -> None:
    relay.configure({"forwardSMTP": True, "forwardProviders": [{"host": "h", "name": f"a{SCRIPT}"}]})
    sender = f'"{SCRIPT}"@example.com'
    body = f"Subject: {SCRIPT}\r\nFrom: =?utf-8?q?=3Cscript=3Ealert=281=29=3C/script=3E?=\r\n\r\nA line.\r\n"
    failed, held, waiting = (states.new(sender, sender=sender, body=body.encode()) for _ in range(3))
    states.fail(failed, f"550 5.1.1 {SCRIPT} \x1b[2J \u202e", sender)
    states.hold(held, SCRIPT)
    states.defer(waiting, f"451 {SCRIPT}", sender)
    line = {
        "at": "2026-11-20T00:00:00.000000Z",
        "event": SCRIPT,
        "id": failed,
        "from": sender,
        "to": [sender],
    }
    (relay.spool / "log" / "20261120.jsonl").write_text(json.dumps(line, separators=(",", ":")) + "\n")
    pages = [
        "/",
        "/queue/failed",
        "/queue/hold",
        "/queue/retry",
        "/search?q=script",
        f"/search?q={quote(SCRIPT)}",
    ]
    pages += [f"/message/{each}" for each in (failed, held, waiting)]
    pages += [
        f"/message/{held}/release",
        f"/message/{failed}?done={quote(SCRIPT)}",
        "/queue/%3Cscript%3E",
    ]
    with relay.monitor():
        for path in pages:
            answer = ask(relay.http_port, path)
            assert answer.status in {200, 404}, path
            assert b"<script>" not in answer.body, path
            assert b"\x1b" not in answer.body, path
            assert "\u202e".encode() not in answer.body, path
            # What is not an element of ours is not an element.
            assert answer.body.count(b"<script ") == 1, path
        assert SCRIPT in words_of(ask(relay.http_port, f"/message/{failed}"))
        assert f"Subject {SCRIPT}" in words_of(ask(relay.http_port, f"/message/{failed}"))


def test_a_messages_page_says_what_why_says_before_and_after_delivery(relay: Relay, states: Queue) -> None:
    twice = states.new("a@example.net", "b@example.net")
    states.defer(twice, "451 4.7.1 come back later", "a@example.net")
    failed = states.new("c@example.net")
    states.fail(failed, "550 5.1.1 nobody of that name", "c@example.net")
    delivered = states.new("d@example.net")
    relay.mailer_send()
    assert delivered not in {path.name for path in relay.spool.rglob("*")}
    with relay.monitor():
        for message_id in (twice, failed, delivered):
            told = relay.mailer("spool", "why", message_id).stdout
            said = words_of(ask(relay.http_port, f"/message/{message_id}"))
            for line in filter(None, told.splitlines()):
                expected = re.sub(r"in \d+m\d+s", "", " ".join(line.removeprefix(message_id).split()))
                assert expected in re.sub(r"in \d+m\d+s", "", said)


def test_a_message_and_its_notification_lead_to_each_other(relay: Relay, states: Queue) -> None:
    replies = per_address({"never@example.net": "550 5.1.1 unknown <b>", "app@example.com": "450 4.2.2 full"})
    with Server({"rcpt": replies}) as server:
        relay.configure(forward_to(server, bounce="sender", hostname="relay.example.com"))
        message_id = states.new("never@example.net")
        relay.mailer_send()
        (notice,) = (name for name in walk(relay.spool) if name != message_id)
        with relay.monitor():
            page = ask(relay.http_port, f"/message/{message_id}").body.decode()
            assert page.count(f'<a class="id" href="/message/{notice}">{notice}</a>') == 2  # verdict, steps
            assert "unknown &lt;b&gt;" in page
            about = ask(relay.http_port, f"/message/{notice}").body.decode()
            assert f'<a class="id" href="/message/{message_id}">{message_id}</a>' in about


def test_every_page_is_kept_from_caches_frames_and_other_sites(relay: Relay, states: Queue) -> None:
    message_id = states.new()
    with relay.monitor():
        for path in (
            "/",
            "/queue/new",
            f"/message/{message_id}",
            "/search?q=a",
            "/queue/nothing",
            "/message/x",
        ):
            answer, head = ask(relay.http_port, path), ask(relay.http_port, path, "HEAD")
            assert head.status == answer.status
            assert head.body == b""
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            policy = answer.headers["content-security-policy"].split("; ")
            assert {"default-src 'none'", "script-src 'self'", "style-src 'self'"} <= set(policy)
            assert {"frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} <= set(policy)
            for asset in re.findall(rb'(?:href|src)="(/assets/[^"]+)"', answer.body):
                assert ask(relay.http_port, asset.decode()).status == 200
        assert ask(relay.http_port, "/events", "HEAD").status == 200


def test_the_overview_shows_the_numbers_that_the_commands_show(relay: Relay, states: Queue) -> None:
    relay.configure({"rateLimits": {"enabled": True, "maxPerHour": 7}})
    for _ in range(3):
        states.fail(states.new(), "550 no")
    with relay.serve(), relay.connect() as client:
        client.sendmail(
            "app@example.com", ["bob@example.net", "eve@example.net"], "Subject: hello\r\n\r\nhello\r\n"
        )
    relay.mailer_send()
    with relay.monitor():
        said = words_of(ask(relay.http_port, "/"))
    assert "failed 3 " in said
    assert "2 accepted, 2 sent, 0 deferred, 0 given up" in said
    assert "sender app@example.com 1 of 7 1" in said
    assert "Providers None is configured." in said


@pytest.mark.parametrize(
    ("action", "place", "event", "left"),
    [
        ("retry", "failed", "requeued", None),
        ("retry", "retry", "requeued", None),
        ("release", "hold", "released", None),
        ("hold", "retry", "held", "hold"),
        ("delete", "failed", "removed", "nowhere"),
    ],
)
def test_an_action_is_done_by_the_form_alone_and_the_ledger_says_who_did_it(
    relay: Relay, states: Queue, action: str, place: str, event: str, left: str | None
) -> None:
    message_id = states.new()
    match place:
        case "failed":
            states.fail(message_id, "550 no")
        case "retry":
            states.defer(message_id, "451 later")
        case "hold":
            states.hold(message_id, "not yet")

    def where() -> str | None:
        return next((p.relative_to(relay.spool).parts[0] for p in relay.spool.rglob(message_id)), None)

    path = f"/message/{message_id}/{action}"
    with relay.monitor():
        assert f'href="{path}"'.encode() in ask(relay.http_port, f"/message/{message_id}").body
        asked = ask(relay.http_port, path)
        assert f"{message_id} in {place}/, from app@example.com" in words_of(asked)
        proof = proof_in(asked)
        evil = {**FORM, "Origin": "https://evil.example"}
        for headers, body in ((FORM, b""), (FORM, b"form=00"), (evil, f"form={proof}".encode())):
            assert ask(relay.http_port, path, "POST", headers, body).status == 403
        assert where() == place
        answer = submit(relay.http_port, path, reason="because")
        assert (answer.status, answer.headers["location"]) == (303, f"/message/{message_id}?done={action}")
        if left is None:
            until(lambda: len(relay.delivered()) == 1, "the run that was started to deliver it")
        else:
            assert where() == (None if left == "nowhere" else left)
        assert ask(relay.http_port, answer.headers["location"]).status == 200
        if left == "nowhere":
            assert submit_again(relay.http_port, path, proof).status == 404
    done = [line for line in ledger(relay) if line["event"] == event]
    assert [(line["id"], line["by"]) for line in done] == [(message_id, "status page")]
    if action == "hold":
        assert done[0]["reason"] == "because"


def test_a_question_names_who_is_still_open_before_who_is_not(relay: Relay, states: Queue) -> None:
    many = [f"r{number}@example.net" for number in range(6)]
    message_id = states.new("never@example.net", *many)
    states.defer(message_id, "451 4.7.1 later", *many, refused="never@example.net")
    few = states.new("never@example.net", "late@example.net")
    states.defer(few, "451 4.7.1 later", "late@example.net", refused="never@example.net")
    with relay.monitor():
        for action in ("delete", "retry"):
            said = words_of(ask(relay.http_port, f"/message/{message_id}/{action}"))
            assert "Still open: 6 of 7 recipients. r0@example.net: deferred at" in said
            assert "r4@example.net" in said
            assert "r5@example.net" not in said
            assert "and 2 more" in said
            said = words_of(ask(relay.http_port, f"/message/{few}/{action}"))
            assert "Still open: 1 of 2 recipients. late@example.net: deferred at" in said
            assert said.index("late@example.net: deferred") < said.index("never@example.net: bounced")


def submit_again(port: int, path: str, proof: str) -> Answer:
    return ask(port, path, "POST", FORM, f"form={proof}".encode())


def test_a_message_in_a_runners_hands_is_left_to_it_and_wrong_names_do_nothing(
    relay: Relay, states: Queue
) -> None:
    busy = states.new()
    with relay.monitor(), states.claimed(busy):
        assert submit(relay.http_port, f"/message/{busy}/delete").status == 409
        assert "a runner is sending" in words_of(submit(relay.http_port, f"/message/{busy}/delete"))
        for wrong in ("..", "%2e%2e", "*", "x" * 26, busy.lower(), f"{busy}%00"):
            assert ask(relay.http_port, f"/message/{wrong}").status == 400
            assert ask(relay.http_port, f"/message/{wrong}/delete").status == 400
        assert ask(relay.http_port, f"/message/{busy}/burn").status == 404
        assert ask(relay.http_port, "/message/..%2f..%2fetc%2fpasswd").status == 404
        assert ask(relay.http_port, "/queue/tmp").status == 404
        assert ask(relay.http_port, "/queue/new?after=..").status == 400
    assert (relay.spool / "cur" / busy).exists()


def test_with_a_token_nothing_is_shown_or_done_before_the_login(relay: Relay, states: Queue) -> None:
    relay.configure({"adminToken": TOKEN})
    message_id = states.new("secret-address@example.net")
    states.fail(message_id, "550 no")
    path = f"/message/{message_id}"
    with relay.monitor():
        port = relay.http_port
        for closed in ("/", path, f"{path}/delete", "/queue/failed", "/search?q=a", "/events"):
            answer = ask(port, closed)
            assert answer.status == 303
            assert answer.headers["location"].startswith("/login")
            assert b"secret-address" not in answer.body
        assert ask(port, f"{path}/delete", "POST", FORM, b"form=1").status == 401
        assert submit(port, "/login", token="wrong").status == 401
        answer = submit(port, "/login", token=TOKEN, next=path)
        assert (answer.status, answer.headers["location"]) == (303, path)
        name, _, rest = answer.headers["set-cookie"].partition("; ")
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(rest.split("; "))
        assert TOKEN not in answer.headers["set-cookie"]
        inside = {"Cookie": name}
        assert b"secret-address" in ask(port, path, headers=inside).body
        assert ask(port, path, headers={"Authorization": f"Bearer {TOKEN}"}).status == 200
        for forged in (
            f"{name[:-1]}x",
            "mailer_session=",
            "mailer_session=99999999999.",
            name.replace("=", "=9"),
        ):
            assert ask(port, path, headers={"Cookie": forged}).status == 303
        # Another session's form is not proof, a session's own is.
        outside = proof_in(ask(port, "/login"))
        assert ask(port, f"{path}/hold", "POST", {**FORM, **inside}, f"form={outside}".encode()).status == 403
        assert submit(port, f"{path}/hold", inside).status == 303
        for elsewhere in ("https://evil.example", "//evil.example", "/\\evil.example", "x"):
            assert submit(port, "/login", token=TOKEN, next=elsewhere).headers["location"] == "/"
        assert "Max-Age=0" in submit(port, "/logout", inside).headers["set-cookie"]


def test_search_finds_by_any_part_of_an_address_and_by_id(relay: Relay, states: Queue) -> None:
    with relay.serve(), relay.connect() as client:
        client.sendmail("app@example.com", ["bob@example.net"], "Subject: hello\r\n\r\nhello\r\n")
    relay.mailer_send()
    [delivered] = [line["id"] for line in ledger(relay) if line["event"] == "accepted"]
    queued = states.new("carol@example.net")
    with relay.monitor():
        found = ask(relay.http_port, "/search?q=BOB%40example").body.decode()
        assert f"/message/{delivered}" in found
        assert f"/message/{queued}" not in found
        both = ask(relay.http_port, "/search?q=app%40").body.decode()
        assert f"/message/{delivered}" in both
        assert f"/message/{queued}" in both
        by_start = ask(relay.http_port, f"/search?q={queued[:14].lower()}").body.decode()
        assert f"/message/{queued}" in by_start
        whole = ask(relay.http_port, f"/search?q={queued.lower()}")
        assert whole.headers["location"] == f"/message/{queued}"
        assert "None." in words_of(ask(relay.http_port, "/search?q=nobody-of-that-name"))


class Listener:
    """A page that listens for news; chunks are read as lines."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((LOOPBACK, port), timeout=60)
        presented = f"Authorization: Bearer {ADMIN_TOKEN}"
        self._socket.sendall(f"GET /events HTTP/1.1\r\nHost: localhost\r\n{presented}\r\n\r\n".encode())
        self._lines = self._socket.makefile("rb")
        self.status = int(self._lines.readline().split()[1])

    def await_line(self, start: bytes) -> None:
        while not self._lines.readline().startswith(start):
            pass

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def test_an_open_page_is_notified_of_changes_and_their_number_is_bounded(relay: Relay, states: Queue) -> None:
    with relay.monitor():
        first = Listener(relay.http_port)
        first.await_line(b"Content-Type: text/event-stream")
        heard = threading.Event()

        def hear() -> None:
            first.await_line(b"data: ")
            heard.set()

        hearing = threading.Thread(target=hear)
        hearing.start()
        # Whatever changes after the first look is news; so something changes until it was heard.
        until(lambda: states.new() and heard.wait(0.5), "news")
        hearing.join()
        all_of_them = [first, *(Listener(relay.http_port) for _ in range(64))]
        assert [each.status for each in all_of_them] == [200] * 64 + [503]
        for each in all_of_them:
            each.close()

        def one_more() -> bool:
            states.new()  # Who has left is noticed when there is something to tell.
            listener = Listener(relay.http_port)
            listener.close()
            return listener.status == 200

        until(one_more, "those who left to be forgotten")
