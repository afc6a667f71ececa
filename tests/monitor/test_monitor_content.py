"""The page shows what a message says, where that is allowed, however hostile the message is."""

import base64
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from urllib.parse import urlencode

import pytest
from spools.states import Queue
from testbed.http_client import JSON, Answer, ask
from testbed.ports import LOOPBACK
from testbed.relay import Relay

from mailer.monitor.page.mime import MAX_READ, MAX_TEXT, decoded, read
from mailer.monitor.page.sanitised import sanitised

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
HEAD = b"Subject: an order\r\nFrom: app@example.com\r\nMIME-Version: 1.0\r\n"
HTML = (
    '<html><head><title>t</title><style>body{background:url("http://evil.test/css")}</style>'
    '<meta http-equiv="refresh" content="0;url=http://evil.test/meta"><base href="http://evil.test/">'
    '<link rel="stylesheet" href="http://evil.test/link"></head>'
    '<body onload="alert(1)" background="http://evil.test/bg"><script>document.title="run"</script>'
    '<h1 style="background:url(http://evil.test/style)">Hello <b>Bob</b></h1>'
    '<img src="http://evil.test/pixel.png" onerror="alert(2)" alt="a cat &lt;b&gt;">'
    '<a href="javascript:alert(3)">one</a> <a href="http://evil.test/a?x=1&amp;y=2" target="_top">two</a>'
    '<form action="http://evil.test/form"><input name="password"><button>Go</button></form>'
    '<iframe src="http://evil.test/frame"></iframe><object data="http://evil.test/object"></object>'
    '<svg><a xlink:href="http://evil.test/svg"><text>three</text></a><script>alert(4)</script></svg>'
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(5)></style></mglyph></table></mtext></math>"
    '<table><tr><td colspan="2" onclick="alert(6)">cell</td></tr></table></body></html>'
)


def multipart(*parts: bytes, kind: bytes = b"mixed", boundary: bytes = b"b") -> bytes:
    body = b"".join(b"--%s\r\n%s\r\n" % (boundary, part) for part in parts)
    return b'Content-Type: multipart/%s; boundary="%s"\r\n\r\n%s--%s--\r\n' % (kind, boundary, body, boundary)


def mail() -> bytes:
    alternative = multipart(
        b"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        b"Gr=FC=DFe <script>\r\n",
        b"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(HTML.encode()).replace(b"\n", b"\r\n"),
        kind=b"alternative",
        boundary=b"inner",
    )
    attached = (
        b"Content-Type: text/html\r\nContent-Disposition: attachment;\r\n"
        b" filename*=utf-8''invoice%E2%80%AEfdp.exe\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + b"QUJD"
        * 1024
    )
    return HEAD + multipart(alternative, attached)


@pytest.fixture
def states(relay: Relay) -> Queue:
    return Queue(relay.spool)


@pytest.fixture
def monitored(relay: Relay, states: Queue) -> Iterator[Queue]:
    relay.configure({"showContent": True})
    with relay.monitor():
        yield states


def said(answer: Answer) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", answer.body.decode())).split())


def ledger(relay: Relay) -> list[dict[str, object]]:
    days = sorted((relay.spool / "log").glob("*.jsonl"))
    return [json.loads(line) for day in days for line in day.read_text().splitlines()]


def test_text_html_and_attachments_are_shown_apart(relay: Relay, monitored: Queue) -> None:
    message_id = monitored.new(body=mail())
    story = ask(relay.http_port, f"/message/{message_id}").body.decode()
    assert f'href="/message/{message_id}/content"' in story
    answer = ask(relay.http_port, f"/message/{message_id}/content")
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"].endswith("frame-ancestors 'none'; frame-src 'self'")
    assert "unsafe" not in answer.headers["content-security-policy"]
    words = said(answer)
    assert "Gr\u00fc\u00dfe <script>" in words
    assert "Subject an order" in words
    assert r"invoice\u202efdp.exe text/html, about 3.0K" in words
    page = answer.body.decode()
    assert "\u202e" not in page
    frame = '<iframe class="html" sandbox="" referrerpolicy="no-referrer" title="The HTML part" src="'
    assert f'{frame}/message/{message_id}/content/html"></iframe>' in page


def test_the_html_part_is_text_and_layout_alone_under_a_policy_that_allows_nothing(
    relay: Relay, monitored: Queue
) -> None:
    message_id = monitored.new(body=mail())
    answer = ask(relay.http_port, f"/message/{message_id}/content/html")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'self'" in policy
    assert "allow-" not in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    body = answer.body.decode().partition("</head>")[2]
    for never in (
        "script",
        "onload",
        "onerror",
        "onclick",
        "src=",
        "href=",
        "style",
        "form",
        "input",
        "meta",
    ):
        assert never not in re.sub(r'title="[^"]*"', "", body), never
    assert "alert" not in body.replace('title="javascript:alert(3)"', "")
    assert '<h1>Hello <b>Bob</b></h1><span class="image">[image: a cat &lt;b&gt;]</span>' in body
    assert '<a title="http://evil.test/a?x=1&amp;y=2">two</a>' in body
    assert '<td colspan="2">cell</td>' in body


def test_without_the_switch_nobody_reads_or_sends_mail_by_the_page(relay: Relay, states: Queue) -> None:
    """Whoever can send a message to any address can read it, so one switch allows both."""
    message_id = states.new(body=mail())
    with relay.monitor():
        for path in ("content", "content/html", "replay"):
            answer = ask(relay.http_port, f"/message/{message_id}/{path}")
            assert (answer.status, "showContent" in said(answer)) == (403, True), path
            assert b"Hello" not in answer.body
        assert f"{message_id}/content" not in ask(relay.http_port, f"/message/{message_id}").body.decode()
        refused = replay(relay, id=message_id, to=["eve@example.org"])
        assert (refused.status, "showContent" in refused.error) == (403, True)
    assert len(list((relay.spool / "new").iterdir())) == 1


def test_who_has_not_logged_in_sees_nothing_and_a_read_is_in_the_ledger(
    relay: Relay, monitored: Queue
) -> None:
    message_id = monitored.new(body=mail())
    for path in ("content", "content/html", "replay"):
        answer = ask(relay.http_port, f"/message/{message_id}/{path}", headers={"Authorization": "Bearer no"})
        assert (answer.status, answer.headers["location"].startswith("/login")) == (303, True)
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    assert ask(relay.http_port, f"/message/{message_id}/content/html", headers=elsewhere).status == 403
    assert [line for line in ledger(relay) if line["event"] == "viewed"] == []
    ask(relay.http_port, f"/message/{message_id}/content")
    [line] = [line for line in ledger(relay) if line["event"] == "viewed"]
    assert (line["id"], line["by"]) == (message_id, "status page")
    ask(relay.http_port, f"/message/{message_id}/content/html")
    _, line = [line for line in ledger(relay) if line["event"] == "viewed"]
    assert (line["id"], line["by"], line["reason"]) == (message_id, "status page", "the HTML part")
    assert "an order" not in json.dumps(ledger(relay))
    assert relay.mailer("log", "--status", "viewed", "--json").stdout.count(message_id) == 2


HOSTILE = {
    "20,000 parts": HEAD + multipart(*[b"Content-Type: text/plain\r\n\r\nhi"] * 20_000),
    "1,000 deep": HEAD
    + b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (i, i) for i in range(1000)),
    "boundary in boundary": HEAD + b"Content-Type: multipart/mixed; boundary=-\r\n\r\n" + b"-" * MAX_READ,
    "a gigantic field": b"X: " + b"a" * 900_000 + b"\r\n\r\nhi\r\n",
    "300,000 fields": b"a:b\r\n" * 300_000 + b"\r\nhi\r\n",
    "parameters": HEAD + b"Content-Type: text/plain" + b"; a*0*=x" * 60_000 + b"\r\n\r\nhi\r\n",
    "quotes": HEAD + b'Content-Type: text/plain; a="' + b";" * 900_000 + b"\r\n\r\nhi\r\n",
    "encoded words": b"Subject: " + b"=?utf-8?q?" * 50_000 + b"\r\n\r\nhi\r\n",
    "no charset": HEAD + b"Content-Type: text/html; charset=punycode\r\n\r\n" + b"a-\xff" * 300_000,
    "no text": HEAD + b"Content-Type: text/html; charset=unicode_escape\r\n\r\n\\u003cscript\\u003e",
    "a codec of bytes": HEAD + b"Content-Type: text/plain; charset=zip\r\n\r\nhi",
    "an unknown charset": HEAD + b"Content-Type: text/plain; charset=" + b"x" * 900 + b"\r\n\r\nhi",
    "many elements": HEAD + b"Content-Type: text/html\r\n\r\n" + b"<b></b>" * 100_000,
    "NULs": b"Subject: a\0b\r\nContent-Type: text/html\r\n\r\n<\0script>\0alert(1)</script>\0" * 9,
    "bare": b"\n" * 100_000,
    "nothing": b"",
    "unclosed": HEAD + b"Content-Type: text/html\r\n\r\n" + b"<div><table><tr><td>" * 60_000,
    "half a tag": HEAD + b"Content-Type: text/html\r\n\r\n" + b"<a " * 300_000,
    "comments": HEAD + b"Content-Type: text/html\r\n\r\n" + b"<!--" * 300_000,
    "large": HEAD + b"\r\n" + b"0123456789\r\n" * 500_000,
    "a boundary in idna": HEAD + b"Content-Type: multipart/mixed; boundary*=idna''x%ff\r\n\r\nhi",
    "a boundary in no codec": HEAD + b"Content-Type: multipart/mixed; boundary*=a\0b''x\r\n\r\nhi",
    "three boundaries": HEAD
    + b"Content-Type: multipart/mixed; boundary=a; boundary*=b''c; boundary*0=z\r\n\r\nhi",
    **{
        f"a surrogate in {field}": HEAD + b"%s: =?utf-7?q?x+2AA-?=\r\n\r\nhi" % field.encode()
        for field in ("Content-Type", "Content-Disposition", "Content-Transfer-Encoding", "Subject")
    },
    "surrogates": HEAD
    + b"Content-Type: multipart/mixed; boundary*=utf-7''+2AA-\r\n\r\n--+2AA-\r\n"
    + b"Content-Type: text/plain; charset*=utf-7''+2AA-; name*=utf-16''%d8%00\r\n\r\nhi\r\n--+2AA---\r\n",
    "no boundary": HEAD + b"Content-Type: multipart/mixed\r\n\r\nhi\r\n",
    "a boundary that does not occur": HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\nhi\r\n",
    "empty multiparts": HEAD
    + multipart(
        *[b"Content-Type: multipart/mixed; boundary=x\r\n\r\n"] * 201,
        b"Content-Type: text/html\r\n\r\nhi",
    ),
    "nested multiparts": HEAD
    + multipart(
        multipart(*[b"Content-Type: text/plain\r\n\r\nhi"] * 2, boundary=b"x"),
        *[b"Content-Type: multipart/mixed; boundary=x\r\n\r\n"] * 250,
    ),
    "names": HEAD + b"Content-Type: a/b; name*0*=idna''%ff; name*1=\x1b[2J\r\n\r\nx",
}


NO_PARTS = "The boundary of a multipart does not occur in it; it is treated as text."
LEFT_OUT = {
    "20,000 parts": "Only the first 200 parts were looked at.",
    "1,000 deep": "Parts within more than 20 others are left out.",
    "300,000 fields": "Only the first 300 fields are shown.",
    "a gigantic field": "Only the first 65,536 octets of the header are shown.",
    "encoded words": "Only the first 2,000 characters of a field are shown.",
    "no boundary": NO_PARTS,
    "a boundary that does not occur": NO_PARTS,
    "empty multiparts": "Only the first 200 parts were looked at.",
    "nested multiparts": "Only the first 200 parts were looked at.",
    "no charset": "The charset punycode is not decoded: other letters than those of ASCII are missing.",
    "large": "Only the first 200,000 characters of a text are shown.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_message_is_shown_within_bounds(name: str) -> None:
    """Markup is balanced and bounded, and nothing raises."""
    content = read(HOSTILE[name][:MAX_READ], len(HOSTILE[name]))
    assert len(content.fields) <= 300
    assert all(len(name) + len(value) <= 10_000 for name, value in content.fields)
    assert len(content.others) <= 200
    assert len(content.notes) <= 3
    assert LEFT_OUT.get(name, "") in ("", *content.notes)
    for text in (content.text, content.html):
        assert text is None or len(text) <= MAX_TEXT
    document = sanitised(content.html or "").decode()
    assert "<script" not in document
    assert "\0" not in document
    opened = re.findall(r"<(\w+)", document.partition("<body>")[2])
    assert len(opened) <= 20_000


@pytest.mark.parametrize("name", ["no boundary", "a boundary that does not occur"])
def test_a_multipart_without_parts_is_shown_as_text(name: str) -> None:
    assert read(HOSTILE[name], len(HOSTILE[name])).text == "hi\r\n"


def test_malformed_content_fields_never_raise() -> None:
    """Parameters in pieces, with charsets, in any combination."""
    pieces = (
        "",
        "=x",
        "*=idna''%ff",
        "*=a\0b''x",
        "*0=z",
        "*1*=y",
        "*0*=utf-16''%d8%00",
        "*=''",
        '="',
        "*x=1",
    )
    for name in ("boundary", "charset", "name", "filename"):
        for first in pieces:
            for second in pieces:
                given = f"; {name}{first}; {name}{second}; {name}=\ud800".encode("utf-8", "surrogatepass")
                for kind in (b"multipart/mixed", b"text/plain", b"", b"\0", b"/", b"a"):
                    head = b"Content-Type: %s%s\r\nContent-Disposition: %s%s" % (kind, given, kind, given)
                    mail = head + b"\r\n\r\n--x\r\n\r\nhi\r\n--x--\r\n"
                    str(read(mail, len(mail))).encode()


def test_encoded_words_are_decoded_by_charsets_of_mail_alone() -> None:
    """Of Python's codecs idna takes milliseconds for each field, and others are not charsets."""
    for value, shown in (
        ("=?utf-8?q?Gr=C3=BC?= =?UTF-8*de?B?w58=?= Welt", "Gr\u00fc\u00df Welt"),
        ("a =?iso-8859-1?Q?=FC_b?=\t=?utf-8?b?w58?= c", "a \u00fc b\u00df c"),
        ("=?utf-8?q?a?= and =?utf-8?q?b?=", "a and b"),
        ("Gr\u00fc\u00dfe", "Gr\u00fc\u00dfe"),
        *(
            (word, word)
            for word in (
                "=?idna?q?xn--aaa?=",
                "=?punycode?q?a-b?=",
                "=?unicode_escape?q?=5Cu003c?=",
                "=??q?a?=x",
            )
        ),
        ("=?utf-8?b?a?=", ""),
    ):
        assert decoded(value) == shown, value


def test_long_lines_and_late_fields_are_shown_whole(relay: Relay, monitored: Queue) -> None:
    """Content-Type may follow a long trace; 4,000 characters are the most in one value of a template."""
    trace = b"".join(b"Received: from %d by example.net\r\n" % i for i in range(250)) + b"X: " + b"x" * 4000
    line = "\u00fc" * 9000 + "end of the line"
    message_id = monitored.new(
        body=trace + b"\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + line.encode() + b"\r\n"
    )
    page = ask(relay.http_port, f"/message/{message_id}/content")
    assert line in page.body.decode()
    assert "Only the first 2,000 characters of a field are shown." in said(page)


def test_html_cannot_change_the_direction_of_its_text() -> None:
    document = sanitised(
        '<bdo dir="rtl">moc</bdo>\u202emoc\u2066 <a href="http://a\u202emoc/">\u05e9\u200f</a>'
    )
    body = document.decode().partition("<body>")[2]
    assert not {"\u202e", "\u2066"} & set(body)
    assert "bdo" not in body
    assert r'title="http://a\u202emoc/"' in body
    assert "\u05e9\u200f" in body


def test_the_monitor_answers_for_every_hostile_message(relay: Relay, monitored: Queue) -> None:
    for name, body in HOSTILE.items():
        message_id = monitored.new(body=body)
        for path in ("", "/html"):
            answer = ask(relay.http_port, f"/message/{message_id}/content{path}")
            assert answer.status in ({200} if not path else {200, 404}), name
            assert len(answer.body) < 8_000_000, name
            assert b"<script>" not in answer.body, name
            assert b"\x1b" not in answer.body, name
    assert ask(relay.http_port, "/livez").status == 200
    assert "defect" not in (relay.directory / "1-monitor.log").read_text()


def test_what_was_left_out_is_said(relay: Relay, monitored: Queue) -> None:
    many = monitored.new(body=HOSTILE["20,000 parts"])
    assert "Only the first 200 parts were looked at." in said(
        ask(relay.http_port, f"/message/{many}/content")
    )
    large = monitored.new(body=HOSTILE["large"])
    assert "octets were looked at" in said(ask(relay.http_port, f"/message/{large}/content"))
    gone = said(ask(relay.http_port, "/message/01JD0M3QJD0M3QJD0M3QJD0M3Q/content"))
    assert "no longer in the spool" in gone


def replay(relay: Relay, **wanted: object) -> Answer:
    body = json.dumps(wanted).encode()
    return ask(relay.http_port, "/admin/replay", "POST", {"Content-Type": JSON}, body)


def open_form(relay: Relay, message_id: str) -> dict[str, str]:
    """Return the hidden fields of a new form."""
    page = ask(relay.http_port, f"/message/{message_id}/replay").body.decode()
    return dict(re.findall(r'type="hidden" name="(\w+)" value="([0-9a-f]+)"', page))


def fill_in(relay: Relay, message_id: str, **fields: str) -> Answer:
    return submit(relay, message_id, open_form(relay, message_id) | fields)


def submit(relay: Relay, message_id: str, fields: dict[str, str]) -> Answer:
    origin = {"Origin": f"http://{LOOPBACK}:{relay.http_port}", "Sec-Fetch-Site": "same-origin"}
    path, body = f"/message/{message_id}/replay", urlencode(fields).encode()
    return ask(relay.http_port, path, "POST", FORM | origin, body)


def test_a_message_is_sent_to_another_address_by_the_form(relay: Relay, monitored: Queue) -> None:
    message_id = monitored.new("bob@example.net")
    monitored.hold(message_id, "later")
    done = fill_in(relay, message_id, to="eve@example.org, ann@example.org")
    assert done.status == 303, done.body
    new = done.headers["location"].removeprefix("/message/").removesuffix("?done=replay")
    accepted, replayed = (line for line in ledger(relay) if line.get("by") == "status page")
    assert (accepted["id"], accepted["replays"], accepted["to"]) == (
        new,
        message_id,
        ["eve@example.org", "ann@example.org"],
    )
    assert (replayed["event"], replayed["id"]) == ("replayed", message_id)
    page = ask(relay.http_port, done.headers["location"]).body.decode()
    assert f'href="/message/{message_id}"' in page
    assert "a run of mailer-send has been started" in page


def test_a_form_that_is_submitted_twice_queues_one_copy(relay: Relay, monitored: Queue) -> None:
    """A double click, whose requests run at the same time; a new form queues another copy."""
    message_id = monitored.new("bob@example.net")
    monitored.hold(message_id, "later")
    form = open_form(relay, message_id) | {"to": "eve@example.org", "sender": "ops@example.com"}
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda _: submit(relay, message_id, form), range(2)))
    assert [answer.status for answer in answers] == [303, 303]
    assert len({answer.headers["location"] for answer in answers}) == 1
    another = fill_in(relay, message_id, to="eve@example.org", sender="ops@example.com")
    assert another.headers["location"] != answers[0].headers["location"]
    copies = [line for line in ledger(relay) if "replays" in line]
    assert [line["from"] for line in copies] == ["ops@example.com"] * 2


def test_the_forms_rules_are_those_of_the_command(relay: Relay, monitored: Queue) -> None:
    message_id = monitored.new("bob@example.net")
    monitored.hold(message_id, "later")
    refused = fill_in(relay, message_id, to="Bob@example.net")
    assert (refused.status, "may get it twice" in said(refused)) == (409, True)
    wrong = fill_in(relay, message_id, to="--really")
    assert (wrong.status, "is not an address" in said(wrong)) == (400, True)
    assert fill_in(relay, message_id, to="").status == 400
    without_proof = ask(
        relay.http_port, f"/message/{message_id}/replay", "POST", FORM, b"to=eve@example.org&form=0"
    )
    assert without_proof.status == 403
    elsewhere = {"Origin": "http://evil.test"}
    answer = ask(
        relay.http_port, f"/message/{message_id}/replay", "POST", FORM | elsewhere, b"to=e@example.org"
    )
    assert answer.status == 403
    assert [path.name for path in (relay.spool / "hold").iterdir()] == [message_id]
    assert not any("replays" in line for line in ledger(relay))
    assert fill_in(relay, message_id, to="bob@example.net", really="yes").status == 303


def test_programs_send_a_message_again_with_the_token(relay: Relay, monitored: Queue) -> None:
    message_id = monitored.new("bob@example.net")
    monitored.hold(message_id, "later")
    done = replay(relay, id=message_id, to=["eve@example.org"])
    assert (done.status, done.json["status"]) == (200, "ok")
    [line] = [line for line in ledger(relay) if line["event"] == "replayed"]
    assert (line["by"], line["reason"]) == ("admin request", f"as {done.json['id']}")
    repeated = replay(relay, id=message_id, to=["eve@example.org"])
    assert (repeated.status, repeated.json["id"]) == (200, done.json["id"])
    other = replay(relay, id=message_id, to=["eve@example.org"], key="2", sender="ops@example.com")
    assert (other.status, other.json["id"] != done.json["id"]) == (200, True)
    assert [line["from"] for line in ledger(relay) if "replays" in line] == ["", "ops@example.com"]
    assert replay(relay, id=message_id, to=["ann@example.org"], sender="x").status == 400
    again = replay(relay, id=message_id, to=["bob@example.net"])
    assert (again.status, "--really" in again.error) == (409, True)
    for wrong in ({}, {"id": message_id}, {"id": "x", "to": ["a@b.c"]}, {"id": message_id, "to": [], "x": 1}):
        assert replay(relay, **wrong).status == 400
    absent = replay(relay, id="01JD0M3QJD0M3QJD0M3QJD0M3Q", to=["eve@example.org"])
    assert (absent.status, "no such message" in absent.error) == (404, True)
    no = ask(relay.http_port, "/admin/replay", "POST", {"Authorization": "Bearer no"}, b"{}")
    assert no.status == 401
