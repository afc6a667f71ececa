"""Submission by HTTP: what it takes, what it refuses and how, held against its own description."""

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from inbound.receiving import PASSWORD, USER, certificate, login
from inbound.submitting import (
    BEARER,
    DESCRIPTION,
    DOOR,
    ENVELOPE,
    HTTP_TOO,
    JSON,
    LIMITED_TOKEN,
    MAIL,
    MESSAGE,
    MESSAGES,
    OTHERS_TOKEN,
    RAW,
    TOKEN,
    Door,
    check_documented,
    documented,
    http_running,
    told,
)
from testbed.http_client import Answer, read_answer
from testbed.ports import LOOPBACK
from testbed.waiting import until

from mailer.mail.reply import Reply
from mailer.receive import replies
from mailer.receive.listen.inherited import Inherited
from mailer.receive.listen.sockets import UnsafeSettingsError
from mailer.receive.settings import Endpoint
from mailer.receive.space import Space
from mailer.receive.users.account import Account
from mailer.receive.users.accounts import single_login
from mailer.receive.users.auth import Identity
from mailer.receive.users.hashes import hash_token
from mailer.receive.users.rates import Rate, RateLimiter, RateRules
from mailer.receive.web import messages
from mailer.receive.web import server as http_server
from mailer.receive.web.compose import compose
from mailer.receive.web.document import Mail
from mailer.receive.web.exchange import Problem, status_of
from mailer.spool.directory import Spool
from mailer.spool.key_file import KeyFile, name_of

WITH_TOKEN = f"Authorization: Bearer {TOKEN}\r\n"
HEAD = f"POST {ENVELOPE} HTTP/1.1\r\nHost: localhost\r\n{WITH_TOKEN}"
RAW_HEAD = f"{HEAD}Content-Type: message/rfc822\r\n"


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with http_running(tmp_path) as running:
        yield running


def test_every_documented_answer_is_given_as_documented(tmp_path: Path, monkeypatch) -> None:
    """No answer of the table is missing in the description, and none of that is never given."""
    seen = set()

    def saw(path: str, method: str, answer) -> Any:
        check_documented(path, method, answer)
        seen.add((path, method, answer.status))
        return told(answer)

    small = replace(HTTP_TOO, max_message_size=1000)
    with http_running(tmp_path, small, rates=rates(per_sender=2)) as door:
        accepted = saw(MESSAGES, "POST", door.submit())
        assert door.receiver.messages() == [MESSAGE]
        one = f"{MESSAGES}/{{id}}"
        assert saw(one, "GET", door.ask(f"{MESSAGES}/{accepted['id']}"))["state"] == "new"
        saw(one, "GET", door.ask(f"{MESSAGES}/{accepted['id']}", headers=bearer(OTHERS_TOKEN)))
        saw(one, "GET", door.ask(f"{MESSAGES}/{accepted['id']}", headers={}))
        saw("/v1/openapi.json", "GET", door.ask("/v1/openapi.json", headers={}))
        for path, method, target in (
            (MESSAGES, "POST", ENVELOPE),
            (one, "GET", f"{MESSAGES}/{accepted['id']}"),
            ("/v1/openapi.json", "GET", "/v1/openapi.json"),
        ):
            saw(path, method, door.ask(target, method, BEARER | RAW | {"Host": "evil.example"}))
            saw(path, method, door.exchange(f"{method} {target} HTTP/1.1\r\n\r\n".encode()))
        saw(MESSAGES, "POST", door.ask(ENVELOPE, "POST", RAW, MESSAGE))
        with monkeypatch.context() as hurried:
            hurried.setattr(http_server, "_BODY_PATIENCE", 0.05)
            saw(MESSAGES, "POST", door.exchange(f"{RAW_HEAD}Content-Length: 9\r\n\r\nFrom".encode()))
        saw(MESSAGES, "POST", door.submit(MESSAGE + b"x" * 1000))
        saw(MESSAGES, "POST", door.submit(Content_Type="text/plain"))
        saw(MESSAGES, "POST", door.submit(Expect="something"))
        saw(MESSAGES, "POST", door.submit(MESSAGE[:-2] + b"\n"))
        with Spool.open(door.receiver.spool) as spool:
            KeyFile.lock(spool, name_of("shop", LOOPBACK, "taken"))
            problem = saw(MESSAGES, "POST", door.submit(Idempotency_Key="taken"))
        assert problem["smtp"]["enhanced"] == "4.5.0"
        assert door.submit().status == 202
        limited = door.submit()
        assert "rateLimits.maxPerHour" in saw(MESSAGES, "POST", limited)["detail"]
        assert 3000 < int(limited.headers["retry-after"]) <= 3600
    with Spool.open(tmp_path / "spool") as spool:
        full = Space(spool, min_free=0, max_queued=1, now=time.monotonic)
        with http_running(tmp_path, space=full) as door:
            assert saw(MESSAGES, "POST", door.submit())["smtp"]["enhanced"] == "4.3.1"
    assert seen == documented()


def rates(per_sender: int) -> RateLimiter:
    return RateLimiter(RateRules(per_sender=Rate(per_hour=per_sender)), time.time)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_the_description_names_what_json_takes() -> None:
    schemas = DESCRIPTION["components"]["schemas"]
    assert set(schemas["Mail"]["properties"]) == set(Mail.__struct_encode_fields__)
    assert not schemas["Mail"]["additionalProperties"]


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (replies.MESSAGE_TOO_BIG, 413),
        (replies.RECIPIENT_NOT_ALLOWED, 403),
        (replies.TOO_MANY_RECIPIENTS, 422),
        (replies.KEY_IN_USE, 409),
        (replies.other_mail("X"), 422),
        (replies.QUEUE_FULL, 503),
        (replies.NO_SPACE, 503),
        (replies.LOCAL_ERROR, 503),
        (replies.SHUTTING_DOWN, 503),
        (replies.INTERNAL_ERROR, 503),
        (replies.TWO_FROMS, 422),
        (replies.NEED_SMTPUTF8, 422),
        (Reply(451, ("4.7.1 500 of 500 messages in an hour",)), 429),
    ],
)
def test_a_refusal_has_the_status_that_says_the_same(reply: Reply, status: int) -> None:
    """Temporary ones say when to come again, permanent ones never do: a client would only repeat them."""
    assert status_of(reply) == status
    answer = Problem.of(reply, retry_after=7).answer()
    assert (("Retry-After", "7") in answer.headers) == (status in {409, 429, 503})
    assert json.loads(answer.body)["smtp"]["reply"] == str(reply)


# What is refused, and what the refusal's words must say.
WRONG_JSON: dict[str, tuple[object, int, str]] = {
    "no json": (b"from=a", 400, "not valid JSON"),
    "nothing": (b"", 400, "not valid JSON"),
    "not utf-8": (b'{"from":"\xff"}', 400, "not valid JSON"),
    "NaN": (b'{"from":NaN}', 400, "NaN is not a number"),
    "a key twice": (b'{"from":"a@example.com","from":"x@example.com"}', 400, "key twice"),
    "a key twice, escaped": (b'{"to":"b@example.net","t\\u006f":"c@example.net"}', 400, "key twice"),
    "nested": (b"[" * 100_000, 400, "nested deeper"),
    "nested in strings": (b'{"headers":' * 50_000, 400, "nested deeper"),
    "arrays in an array": (b'{"to":[' + b"[]," * 200_000 + b"[]]}", 400, "octets outside its strings"),
    "a huge array": (b'{"to":[' + b"1," * 200_000 + b"1]}", 400, "octets outside its strings"),
    "empty strings": (b'{"to":[' + b'"",' * 60_000 + b'""]}', 400, "strings"),
    "half a surrogate": (b'{"from":"a@example.com","to":"b@example.net","text":"\\ud800"}', 400, "JSON"),
    "an array": ([], 422, "Expected `object`"),
    "an unknown key": (MAIL | {"form": "x"}, 422, "unknown field `form`"),
    "a number": (MAIL | {"to": [1]}, 422, "$.to[0]"),
    "no sender": ({"to": "b@example.net"}, 422, "$.from"),
    "no recipient": ({"from": "a@example.com"}, 422, "recipient"),
    "two in one": (MAIL | {"to": "b@example.net, c@example.net"}, 422, "one address each"),
    "a quoted local part": (MAIL | {"to": '"b c"@example.net'}, 422, "SMTP"),
    "parameters behind an address": (MAIL | {"to": "<b@example.net> NOTIFY=NEVER"}, 422, "$.to"),
    "a line end in a subject": (MAIL | {"subject": "x\r\nBcc: v@example.org"}, 422, "$.subject: a line end"),
    "a line end in a name": (MAIL | {"from": "x\nBcc: v <a@example.com>"}, 422, "$.from: a line end"),
    "a line end in a field": (MAIL | {"headers": {"X-A": "x\nBcc: v"}}, 422, "X-A: a line end"),
    "a line separator in a field": (MAIL | {"headers": {"X-A": "x\u2028Bcc: v"}}, 422, "a line end"),
    "a vertical tab in a subject": (MAIL | {"subject": "x\x0bBcc: v"}, 422, "a line end"),
    "a line end in a field's name": (MAIL | {"headers": {"X\r\nBcc": "v"}}, 422, "a name is printable"),
    "a field that is ours": (MAIL | {"headers": {"Bcc": "v@example.org"}}, 422, "$.headers.Bcc"),
    "a field of the content": (MAIL | {"headers": {"Content-Type": "text/html"}}, 422, "Content-Type"),
    "NUL in a text": (MAIL | {"text": "x\0"}, 422, "NUL"),
    "no base64": (MAIL | {"attachments": [{"content": "%%%"}]}, 422, "not valid base64"),
    "base64 without its end": (MAIL | {"attachments": [{"content": "eHg"}]}, 422, "not valid base64"),
    "a line end in a file's name": (
        MAIL | {"attachments": [{"content": "", "filename": "a\r\nX: y"}]},
        422,
        "filename: a line end",
    ),
    "a type with parameters": (
        MAIL | {"attachments": [{"content": "", "contentType": "text/html; x=y"}]},
        422,
        "contentType",
    ),
    "a multipart": (
        MAIL | {"attachments": [{"content": "", "contentType": "multipart/mixed"}]},
        422,
        "contentType",
    ),
    "an image that nothing shows": (
        MAIL | {"attachments": [{"content": "", "contentId": "logo"}]},
        422,
        "$.html",
    ),
    "raw and text": (MAIL | {"raw": "eA=="}, 422, "$.raw"),
    "a recipient that is none": (MAIL | {"to": ["b@example.net", "b@-example"]}, 422, "$.to"),
}


@pytest.mark.security_case(126)
def test_json_that_is_no_mail_is_refused_with_the_place_and_the_reason(door: Door) -> None:
    """No field gets into the header by a value, and no document costs more memory than it has octets."""
    for name, (mail, status, words) in WRONG_JSON.items():
        answer = door.post(mail)
        assert (name, answer.status) == (name, status), answer.body
        assert words in told(answer)["detail"], name
        check_documented(MESSAGES, "POST", answer)
    assert door.receiver.messages() == []
    assert door.receiver.leftovers() == []


def test_json_with_recipients_in_the_query_is_refused_and_none_is_left_out(door: Door) -> None:
    answer = door.ask(ENVELOPE, "POST", BEARER | JSON, json.dumps(MAIL).encode())
    assert answer.status == 400
    check_documented(MESSAGES, "POST", answer)
    assert "the query" in told(answer)["detail"]
    assert door.receiver.messages() == []


@pytest.mark.parametrize("parameter", ["charset=UTF-8", 'charset="utf-8"', ' charset="UTF-8"'])
def test_a_charset_may_be_quoted(door: Door, parameter: str) -> None:
    """Both forms mean the same (RFC 9110 5.6.6)."""
    kind = {"Content-Type": f"application/json;{parameter}"}
    assert door.ask(MESSAGES, "POST", BEARER | kind, json.dumps(MAIL).encode()).status == 202


def test_a_mail_of_parts_is_built_as_it_says(door: Door) -> None:
    parts = MAIL | {
        "from": "Jörg, der Erste <a@example.com>",
        "to": ["b@example.net", '"Smith, J." <c@example.net>'],
        "cc": "d@example.net",
        "bcc": ["blind@example.net"],
        "replyTo": "r@example.com",
        "subject": "Grüße 漢字",
        "text": "größer\nals <b>",
        "html": "<p>größer <img src='cid:logo'>",
        "attachments": [
            {"content": base64.b64encode(b"\0\1\n\r" * 99).decode(), "filename": "täst.bin"},
            {"content": "eHg=", "contentId": "logo", "contentType": "image/png", "filename": "x.png"},
        ],
        "headers": {"X-Campaign": "spring", "List-Unsubscribe": "<https://example.com/u>"},
    }
    answer = door.post(parts)
    assert answer.status == 202, answer.body
    [queued] = door.receiver.messages()
    assert b"blind@" not in queued
    mail = message_from_bytes(queued.replace(b"\r\n", b"\n"), _class=EmailMessage, policy=policy.default)
    assert mail["From"].addresses[0].display_name == "Jörg, der Erste"
    assert [each.addr_spec for each in mail["To"].addresses] == ["b@example.net", "c@example.net"]
    assert (str(mail["Subject"]), mail["Reply-To"], mail["X-Campaign"]) == (
        "Grüße 漢字",
        "r@example.com",
        "spring",
    )
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content() == "größer\nals <b>\n"
    assert "cid:logo" in html.get_content()
    [attachment] = mail.iter_attachments()
    assert attachment.get_filename() == "täst.bin"
    assert attachment.get_content() == b"\0\1\n\r" * 99
    assert (
        b"Content-ID: <logo>\r\nContent-Disposition: inline" in queued.replace(b'; filename="x.png"', b"")
        or b"Content-ID: <logo>" in queued
    )
    [path] = (door.receiver.spool / "new").iterdir()
    recipients = [line for line in path.read_bytes().split(b"\r\n") if line.startswith(b"Spool-Recipient")]
    assert [line.split(b"<")[1] for line in recipients] == [
        b"b@example.net>",
        b"c@example.net>",
        b"d@example.net>",
        b"blind@example.net>",
    ]


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), max_size=60)


@settings(max_examples=150, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=5), subject=NAMES, values=st.lists(NAMES, max_size=3))
# Python 3.12.1 encodes the comma before the fourth.
@example(names=["Müller, Jörg", "Bob0Müller, Jörg李雷", "", "", "", ""], subject="", values=[])
def test_no_name_or_value_changes_who_a_mail_is_for_or_what_fields_it_has(
    names: list[str], subject: str, values: list[str]
) -> None:
    quoted = ['"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in names]
    to = tuple(f"{name} <u{at}@example.net>" for at, name in enumerate(quoted))
    headers = {f"X-{at}": value for at, value in enumerate(values)}
    content = compose(Mail(from_="a@example.com", to=to, subject=subject, headers=headers, text="x"))
    mail = message_from_bytes(content, _class=EmailMessage, policy=policy.SMTP)
    assert [each.addr_spec for each in mail["To"].addresses] == [
        f"u{at}@example.net" for at in range(len(to))
    ]
    expected = [
        "From",
        "To",
        "Subject",
        *headers,
        "Content-Type",
        "Content-Transfer-Encoding",
        "MIME-Version",
    ]
    assert sorted(mail.keys()) == sorted(expected)
    assert not any(b"\r" in line or b"\n" in line for line in content.split(b"\r\n"))


UNSUBSCRIBE = f"<https://example.com/u?token={'0123456789abcdef' * 6}>"


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("List-Unsubscribe", UNSUBSCRIBE, f"List-Unsubscribe: {UNSUBSCRIBE}"),
        ("In-Reply-To", f"<{'a' * 95}@x.example>", f"In-Reply-To: <{'a' * 95}@x.example>"),
        ("References", f"<{'a' * 60}@x>  <{'b' * 60}@x>", f"References: <{'a' * 60}@x>\r\n  <{'b' * 60}@x>"),
        ("X-A", "a" * 993, f"X-A: {'a' * 993}"),
        ("Subject", "s" * 200, f"Subject: {'s' * 200}"),
        ("X-A", "ä" * 30, "X-A: =?utf-8?b?"),
    ],
)
def test_ascii_values_are_written_as_they_are_and_folded_at_blanks_alone(
    name: str, value: str, line: str
) -> None:
    given = {"subject": value} if name == "Subject" else {"headers": {name: value}}
    content = compose(Mail(from_="a@example.com", to="b@example.net", text="x", **given))  # type: ignore[arg-type]
    assert f"\r\n{line}".encode() in content
    assert message_from_bytes(content, policy=policy.SMTP)[name] == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Sender", "(" * 900),
        ("Sender", "(ä" * 900),
        ("Message-ID", "(ä"),
        ("X-A", "a" * 1000),
    ],
)
def test_a_value_that_cannot_be_written_is_refused_by_its_fields_name(name: str, value: str) -> None:
    with pytest.raises(Problem, match=rf"^\$\.headers\.{name}: ") as refused:
        compose(Mail(from_="a@example.com", to="b@example.net", headers={name: value}, text="x"))
    assert refused.value.status == 422
    assert "list index" not in str(refused.value)


def test_addresses_beyond_ascii_are_taken_in_both_forms(door: Door) -> None:
    assert door.post(MAIL | {"to": "Jörg <jörg@exämple.net>"}).status == 202
    assert door.post(MAIL | {"to": "jörg@exämple.net", "replyTo": "jörg@exämple.net"}).status == 202
    assert door.post(MAIL | {"replyTo": "jörg@exämple.net"}).status == 202
    assert door.submit(path=f"{MESSAGES}?from=a@example.com&to=j%C3%B6rg@ex%C3%A4mple.net").status == 202
    assert door.submit(path=f"{MESSAGES}?from=a@example.com&to=%ff@example.net").status == 422
    tagged = door.submit(path=f"{MESSAGES}?from=a+%C3%A4@example.com&to=j%2b%C3%B6@example.net")
    assert told(door.ask(tagged.headers["location"]))["sender"] == "a+ä@example.com"
    for path in (door.receiver.spool / "new").iterdir():
        block = path.read_bytes().partition(b"Spool-Length")[0]
        assert b"SMTPUTF8" in block


def test_a_domain_beyond_ascii_does_not_make_mail_need_smtputf8(door: Door) -> None:
    mail = MAIL | {"to": ["Jörg <bob@exämple.net>", "carol@example.net"], "replyTo": "dave@Exämple.net"}
    assert door.post(mail).status == 202
    [path] = (door.receiver.spool / "new").iterdir()
    entry = path.read_bytes()
    assert entry.isascii()
    assert b"SMTPUTF8" not in entry
    assert b"To: =?utf-8?b?SsO2cmc=?= <bob@xn--exmple-cua.net>, carol@example.net\r\n" in entry
    assert b"Reply-To: dave@xn--exmple-cua.net\r\n" in entry


def test_a_raw_message_keeps_its_header_and_needs_smtputf8_for_it(door: Door) -> None:
    raw = "From: a@example.com\r\nTo: bob@exämple.net\r\n\r\nHello.\r\n".encode()
    mail = {"from": "a@example.com", "to": "bob@exämple.net", "raw": base64.b64encode(raw).decode()}
    assert door.post(mail).status == 202
    assert door.receiver.messages() == [raw]
    [path] = (door.receiver.spool / "new").iterdir()
    assert b"SMTPUTF8" in path.read_bytes()


def test_a_raw_message_may_come_in_json_and_in_chunks(door: Door) -> None:
    raw = {"from": "a@example.com", "to": "b@example.net", "raw": base64.b64encode(MESSAGE).decode()}
    assert door.post(raw).status == 202
    assert door.submit(iter([MESSAGE[:20], MESSAGE[20:]])).status == 202  # type: ignore[arg-type]
    assert door.receiver.messages() == [MESSAGE, MESSAGE]
    assert door.submit(iter([MESSAGE[:20], b"\n", MESSAGE[20:]])).status == 422  # type: ignore[arg-type]
    assert len(door.receiver.messages()) == 2


def test_a_message_that_grows_beyond_the_limit_is_refused_however_it_is_announced(tmp_path: Path) -> None:
    with http_running(tmp_path, replace(HTTP_TOO, max_message_size=100_000)) as door:
        big = MESSAGE + b"x" * 70 + b"\r\n"
        assert door.submit(iter([big] * 2000)).status == 413  # type: ignore[arg-type]
        assert door.submit(big * 2000).status == 413
        assert door.post(MAIL | {"text": "x" * 500_000}).status == 413
        assert door.post(MAIL | {"text": "x" * 120_000}).status == 413
        assert door.submit().status == 202
        assert door.receiver.leftovers() == []


@pytest.mark.security_case(127)
def test_a_user_sends_as_themselves_alone_and_all_recipients_are_taken_or_none(door: Door) -> None:
    limited = bearer(LIMITED_TOKEN) | RAW
    assert door.ask(ENVELOPE, "POST", limited, MESSAGE).status == 202
    wrong = f"{MESSAGES}?from=x@example.com&to=b@example.net"
    refused = told(door.ask(wrong, "POST", limited, MESSAGE))
    assert (refused["status"], refused["smtp"]["code"]) == (403, 553)
    assert "mailer user allow limited x@example.com" in refused["detail"]
    for author in (b"x@example.com", b"a@example.com>, <x@example.com"):
        forged = MESSAGE.replace(b"a@example.com", author)
        assert door.ask(ENVELOPE, "POST", limited, forged).status == 403
    as_json = bearer(LIMITED_TOKEN) | JSON
    for fields in ({"from": "x@example.com"}, {"headers": {"Sender": "x@example.com"}}):
        assert door.ask(MESSAGES, "POST", as_json, json.dumps(MAIL | fields).encode()).status == 403
    # Nothing that stands in an address becomes a parameter, or a command of the session.
    for recipient in ("c@-example", "c@example.net%3E%20NOTIFY=NEVER", "c@example.net%3E%0D%0ARSET", ""):
        answer = door.submit(path=f"{ENVELOPE}&to={recipient}")
        assert answer.status == 422, recipient
        assert len(told(answer)["recipients"]) == 1
    for sender in ("a@example.com%3E%20SIZE=1%20%3C", "a@example.com%0D%0ARCPT%20TO:%3Cv@example.org%3E"):
        assert door.submit(path=f"{MESSAGES}?from={sender}&to=b@example.net").status == 422
    assert len(door.receiver.messages()) == 1


def test_hundreds_of_wrong_recipients_are_reported_in_part(door: Door) -> None:
    many = "".join(f"&to=u{at}@-example" for at in range(200))
    assert len(told(door.submit(path=f"{ENVELOPE}{many}"))["recipients"]) == 20
    good = MAIL | {"to": [f"u{at}@example.net" for at in range(500)]}
    assert door.post(good).status == 202


# Octets as they are sent, and the status; every one ends the connection but those that are 202.
SMUGGLED: dict[str, tuple[str, int]] = {
    "both lengths": (
        f"{RAW_HEAD}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        400,
    ),
    "two lengths": (f"{RAW_HEAD}Content-Length: 5\r\nContent-Length: 6\r\n\r\nFrom:x", 400),
    "one length twice": (f"{RAW_HEAD}Content-Length: 5\r\nContent-Length: 5\r\n\r\nFrom:", 400),
    "lengths in a list": (f"{RAW_HEAD}Content-Length: 5, 5\r\n\r\nFrom:", 400),
    "a signed length": (f"{RAW_HEAD}Content-Length: +5\r\n\r\nFrom:", 400),
    "a hexadecimal length": (f"{RAW_HEAD}Content-Length: 0x5\r\n\r\nFrom:", 400),
    "another coding": (f"{RAW_HEAD}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "an unknown coding": (f"{RAW_HEAD}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "a coding twice": (
        f"{RAW_HEAD}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a coding behind a tab": (
        f"{RAW_HEAD}Transfer-Encoding:\tchunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a name with a blank": (f"{RAW_HEAD}Content-Length : 5\r\n\r\nFrom:", 400),
    "a folded field": (f"{RAW_HEAD}X: y\r\n Transfer-Encoding: chunked\r\n\r\n", 400),
    "bare line feeds": (f"{RAW_HEAD}Content-Length: 5\r\n\r\nFrom:".replace("\r\n", "\n"), 400),
    "a chunk without a size": (f"{RAW_HEAD}Transfer-Encoding: chunked\r\n\r\nx\r\nFrom:\r\n0\r\n\r\n", 400),
    "a chunk of minus one": (f"{RAW_HEAD}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n0\r\n\r\n", 400),
    "a chunk that overflows": (f"{RAW_HEAD}Transfer-Encoding: chunked\r\n\r\n{'f' * 17}\r\n", 400),
    "chunks in HTTP/1.0": (
        f"{RAW_HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".replace("HTTP/1.1", "HTTP/1.0"),
        400,
    ),
    "two hosts": (f"{RAW_HEAD}Host: localhost\r\nContent-Length: 0\r\n\r\n", 400),
    "a whole address as target": (RAW_HEAD.replace("POST ", "POST http://localhost") + "\r\n", 400),
    "another protocol": ("EHLO client.example\r\nMAIL FROM:<a@example.com>\r\n\r\n", 400),
    "a head without end": (RAW_HEAD + "".join(f"X-{at}: {'y' * 4000}\r\n" for at in range(10)), 431),
    "a field that is too long": (f"{RAW_HEAD}X: {'y' * 10_000}\r\n\r\n", 400),
    "a hundred fields": (RAW_HEAD + "".join(f"X-{at}: y\r\n" for at in range(100)) + "\r\n", 400),
    "a NUL in a field": (f"{RAW_HEAD}X: \0\r\n\r\n", 400),
}


@pytest.mark.security_case(128)
def test_a_request_that_two_servers_may_read_differently_is_refused_and_ends_the_connection(
    door: Door,
) -> None:
    for name, (request, status) in SMUGGLED.items():
        with door.connect() as connection:
            connection.sendall(request.encode())
            with connection.makefile("rb") as answers:
                said = answers.read()
        # Once: what stands behind it is nobody's request.
        assert said.count(b"HTTP/1.") == 1, (name, said)
        assert said[:12].split()[1:] == [str(status).encode()], (name, said)
        assert b"application/problem+json" in said, name
    assert door.receiver.messages() == []
    assert door.receiver.leftovers() == []


def test_requests_that_are_unusual_and_clear_are_answered(door: Door) -> None:
    """Pipelined, of HTTP/1.0, half closed, or with a body that waits to be asked for."""
    whole = f"{RAW_HEAD}Content-Length: {len(MESSAGE)}\r\n\r\n".encode() + MESSAGE
    with door.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(whole * 3)
        connection.shutdown(socket.SHUT_WR)
        assert answers.read().count(b"HTTP/1.1 202 Accepted") == 3
    assert door.exchange(whole.replace(b"HTTP/1.1", b"HTTP/1.0")).status == 202
    waiting = f"{RAW_HEAD}Expect: 100-continue\r\nContent-Length: {len(MESSAGE)}\r\n\r\n".encode()
    with door.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(waiting)
        assert answers.readline() == b"HTTP/1.1 100 Continue\r\n"
        connection.sendall(MESSAGE)
        assert answers.readline() == b"\r\n"
        assert answers.readline() == b"HTTP/1.1 202 Accepted\r\n"
    # Who may not send is told so before the message is on its way.
    stranger = waiting.replace(TOKEN.encode(), b"mt_x").replace(b"b@example.net", b"b@-example")
    assert door.exchange(stranger).status == 401
    with door.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(waiting.replace(b"b@example.net", b"b@-example"))
        # Unprocessable Entity, or Content: so it is since RFC 9110, and in Python since 3.13.
        assert answers.readline().startswith(b"HTTP/1.1 422 Unprocessable ")
    # Nothing comes of what ends too early, and that is said at once.
    assert door.exchange(whole[:-1], half_close=True).status == 400
    assert len(door.receiver.messages()) == 5


@pytest.mark.security_case(129)
def test_a_page_in_a_browser_cannot_submit_even_with_a_token(door: Door) -> None:
    """A form's content types are refused, and so is every request that says that a page sent it."""
    form = b'{"from":"a@example.com","to":"b@example.net","text":"="}'
    for fields, status in (
        ({"Origin": f"http://localhost:{door.port}"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": f"rebound.example:{door.port}"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "127.evil.example"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({"Content-Type": "application/json; charset=utf-16"}, 415),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Authorization": f"Basic {base64.b64encode(b'shop:' + TOKEN.encode()).decode()}"}, 401),
        ({"Authorization": "", "Cookie": f"token={TOKEN}"}, 401),
    ):
        answer = door.ask(MESSAGES, "POST", BEARER | JSON | fields, form)
        assert (fields, answer.status) == (fields, status)
        assert "access-control-allow-origin" not in answer.headers
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    assert door.ask(MESSAGES, "OPTIONS", preflight).status == 403
    for host in ("localhost", "127.0.0.1:80", "[::1]", "LOCALHOST", "localhost."):
        assert door.ask(MESSAGES, "POST", BEARER | JSON | {"Host": host}, form).status == 202
    assert door.ask(MESSAGES).status == 405
    assert door.ask("/").status == 404


@pytest.mark.security_case(130)
def test_a_wrong_token_is_held_back_and_counted_and_the_right_one_is_not(door: Door) -> None:
    for token in ("mt_wrong", "correct horse", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper(), "x" * 600):
        assert door.ask(ENVELOPE, "POST", RAW | bearer(token), MESSAGE).status == 401, token
    assert door.submit().status == 202
    # As long as after as many failed logins by SMTP; the two are counted together.
    assert door.receiver.server._failures.count(LOOPBACK, "") > 0.5
    failed = [line for line in door.receiver.log if "login-failed" in line]
    assert len(failed) >= 4
    assert not any("wrong" in line or TOKEN[:10] in line for line in door.receiver.log)


def test_a_password_is_not_a_token_even_where_its_hash_is_as_quick() -> None:
    accounts = login(single_login(USER, PASSWORD), Account(Identity("shop"), hash_token(TOKEN)))
    assert accounts.bearer(PASSWORD) is None
    assert accounts.bearer(TOKEN) == Identity("shop")
    accounts.close()


def test_the_same_key_queues_a_mail_once_and_another_mail_is_refused(door: Door) -> None:
    first, again = (told(door.post(MAIL, Idempotency_Key="order-1")) for _ in range(2))
    assert (first["id"], first["repeated"], again["repeated"]) == (again["id"], False, True)
    assert told(door.submit(Idempotency_Key='"order 2"'))["repeated"] is False
    assert told(door.submit(Idempotency_Key='"order 2"'))["repeated"] is True
    other = told(door.post(MAIL | {"text": "Another one."}, Idempotency_Key="order-1"))
    assert (other["status"], other["smtp"]["code"]) == (422, 554)
    for key in ("two words", "x" * 256, "schlüssel"):
        assert door.post(MAIL, Idempotency_Key=key).status == 422, key
    assert len(door.receiver.messages()) == 2
    assert not any(b"order" in message for message in door.receiver.messages())


def test_a_client_that_leaves_before_the_answer_doubles_nothing(door: Door) -> None:
    """What was there whole is queued, and with its key submitted again it is the same mail."""
    whole = f"{RAW_HEAD}Idempotency-Key: k\r\nContent-Length: {len(MESSAGE)}\r\n\r\n".encode() + MESSAGE
    with door.connect() as connection:
        connection.sendall(whole[:-1])
    for _ in range(3):
        with door.connect() as connection:
            connection.sendall(whole)
    until(door.receiver.messages, "one of them to be taken")
    repeated = until(lambda: answered(door.submit(Idempotency_Key="k")), "the key to be free")
    until(lambda: door.receiver.server.sessions == 0, "the connections to end")
    assert len(door.receiver.messages()) == 1
    assert door.ask(f"{MESSAGES}/{repeated['id']}").status == 200
    assert door.receiver.leftovers() == []


def answered(answer) -> Any:
    return told(answer) if answer.status == 202 else None


@pytest.mark.security_case(131)
def test_slow_clients_are_given_up_and_their_number_is_bounded(tmp_path: Path, monkeypatch) -> None:
    """In the head, in the body, or idle; when all places are taken, the oldest without a token gives way."""
    monkeypatch.setattr(http_server, "_BODY_PATIENCE", 0.2)
    monkeypatch.setattr(http_server, "HEAD_TIMEOUT", 0.2)
    with http_running(tmp_path) as door:
        assert door.exchange(b"POST /v1/mess").status == 408
        assert door.exchange(f"{RAW_HEAD}Content-Length: 9999\r\n\r\nFrom: <a@".encode()).status == 408
        dripping = door.connect()
        with dripping, suppress(ConnectionError):
            dripping.sendall(f"{RAW_HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
            until(lambda: not still_takes(dripping, b"1\r\nF\r\n"), "a body that drips to be given up")
        until(lambda: door.receiver.server.sessions == 0, "their connections to end")
    for name, value in (("_BODY_PATIENCE", 60.0), ("HEAD_TIMEOUT", 60.0), ("MOST", 3)):
        monkeypatch.setattr(http_server, name, value)
    with http_running(tmp_path) as door:
        idle = [door.connect() for _ in range(3)]
        until(lambda: door.receiver.server.sessions == 3, "all places to be taken")
        assert door.submit().status == 202
        assert idle[0].recv(1) == b"", "the oldest gives way to one that shows a token"
        for connection in idle:
            connection.close()
        until(lambda: door.receiver.server.sessions == 0, "the places to be free")
        held = [door.connect() for _ in range(3)]
        for connection in held:
            connection.sendall(f"GET {MESSAGES}/X HTTP/1.1\r\nHost: localhost\r\n{WITH_TOKEN}\r\n".encode())
            assert read_answer(connection).status == 404
        refused = door.exchange(b"")
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) > 0
        assert "Too many connections" in told(refused)["detail"]
        for connection in held:
            connection.close()
        until(lambda: door.receiver.server.sessions == 0, "the places to be free")
        assert door.submit().status == 202
    assert len(list((tmp_path / "spool" / "new").iterdir())) == 2


@pytest.mark.security_case(137)
def test_one_token_does_not_hold_all_places(tmp_path: Path, monkeypatch) -> None:
    """An idle connection of the same user gives way; while all are busy that user has to come again."""
    monkeypatch.setattr(http_server, "MOST_OF_ONE", 2)
    head = f"{RAW_HEAD}Content-Length: {len(MESSAGE)}\r\n\r\n".encode()
    with http_running(tmp_path) as door:
        idle, *busy = (door.connect() for _ in range(3))
        with idle, busy[0], busy[1]:
            idle.sendall(f"GET {MESSAGES}/X HTTP/1.1\r\nHost: localhost\r\n{WITH_TOKEN}\r\n".encode())
            assert read_answer(idle).status == 404
            for number, connection in enumerate(busy, start=1):
                connection.sendall(head + MESSAGE[:10])
                until(lambda: len(door.receiver.leftovers()) == number, "the message to have begun")  # noqa: B023
            assert idle.recv(1) == b""
            refused = door.submit()
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) > 0
            assert door.ask(f"{MESSAGES}/X", headers=bearer(OTHERS_TOKEN)).status == 404
            for connection in busy:
                connection.sendall(MESSAGE[10:])
                assert read_answer(connection).status == 202
            assert door.submit().status == 202, "one that is idle again gives way"


@pytest.mark.security_case(145)
def test_the_questions_of_one_user_do_not_keep_the_others_waiting(tmp_path: Path) -> None:
    asked: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def look_up(user: str, _id: str) -> None:
        asked.append(user)
        begun.set()
        assert go_on.wait(60)

    with http_running(tmp_path, lookup=look_up) as door, ThreadPoolExecutor() as pool:
        http = door.receiver.server._http
        assert http
        waiting = http._messages._looking._waiting

        def ask(token: str) -> Future[Answer]:
            return pool.submit(door.ask, f"{MESSAGES}/{'0' * 26}", headers=bearer(token))

        answers = [ask(TOKEN)]
        assert begun.wait(60)
        answers += [ask(TOKEN) for _ in range(3)]
        until(lambda: len(waiting.get("shop", ())) == 3, "their questions to wait")
        answers.append(ask(OTHERS_TOKEN))
        until(lambda: "other" in waiting, "the other's question to wait")
        go_on.set()
        assert [answer.result().status for answer in answers] == [404] * 5
    assert asked == ["shop", "shop", "other", "shop", "shop"]


@pytest.mark.security_case(145)
def test_the_large_documents_of_one_user_leave_room_for_the_others(door: Door, monkeypatch) -> None:
    monkeypatch.setattr(messages, "_UNCOUNTED", 100)
    monkeypatch.setattr(messages, "_MAX_GATHERED", 4000)
    monkeypatch.setattr(messages, "_MAX_OF_ONE", 2000)
    head = f"POST {MESSAGES} HTTP/1.1\r\nHost: localhost\r\n{WITH_TOKEN}Content-Type: application/json\r\n"
    large = MAIL | {"text": "x" * 1500}
    with door.connect() as slow:
        slow.sendall(f"{head}Content-Length: 9999\r\n\r\n".encode() + b" " * 1500)
        http = door.receiver.server._http
        assert http
        gathered = http._messages._gathered
        until(lambda: gathered["shop"] == 1500, "a part of the document")
        assert door.post(large).status == 503
        assert door.post(large, Authorization=f"Bearer {OTHERS_TOKEN}").status == 202
        assert door.post(MAIL | {"text": "short"}).status == 202
    until(lambda: "shop" not in gathered, "the memory to be free")
    assert door.post(MAIL | {"text": "x" * 2500}).status == 202


def still_takes(connection: socket.socket, data: bytes) -> bool:
    """Send a little, and tell whether nobody has answered yet."""
    connection.sendall(data)
    connection.setblocking(False)
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    finally:
        connection.setblocking(True)


def test_a_request_under_way_is_finished_when_the_server_stops_and_idle_clients_are_not_waited_for(
    tmp_path: Path,
) -> None:
    with http_running(tmp_path) as door:
        idle, busy = door.connect(), door.connect()
        head = f"{RAW_HEAD}Content-Length: {len(MESSAGE)}\r\n\r\n".encode()
        busy.sendall(head + MESSAGE[:10])
        until(door.receiver.leftovers, "the message to have begun")
        stopping = threading.Thread(target=door.receiver.stop, args=(60,))
        stopping.start()
        assert idle.recv(1) == b""
        busy.sendall(MESSAGE[10:])
        with busy.makefile("rb") as answer:
            said = answer.read()
        stopping.join()
        assert said.startswith(b"HTTP/1.1 202 ")
        assert b"Connection: close" in said
        idle.close()
        busy.close()
    assert len(list((tmp_path / "spool" / "new").iterdir())) == 1


def test_a_service_manager_may_listen_for_it_and_settings_change_while_it_runs(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as listening:
        given = (Inherited(listening, "http"),)
        with http_running(tmp_path, inherited=given) as door:
            assert door.port == listening.getsockname()[1]
            assert door.submit(Host="mail.example").status == 403
            service = door.receiver.server._context
            named = replace(service.settings, http_names=("mail.example",), max_message_size=10)
            door.receiver.loop.call_soon_threadsafe(
                door.receiver.server.reconfigure, replace(service, settings=named)
            )
            until(lambda: door.submit(Host="mail.example").status == 413, "the new settings to count")


def test_beyond_this_host_it_takes_tls(tmp_path: Path) -> None:
    everywhere = replace(HTTP_TOO, local_only=False, endpoints=(replace(DOOR, host="0.0.0.0"),))
    with pytest.raises(UnsafeSettingsError, match=r"submitHttp\.tls"), http_running(tmp_path, everywhere):
        pass
    encrypted = replace(everywhere, endpoints=(Endpoint("0.0.0.0", 0, tls=True, http=True),))
    with http_running(tmp_path, encrypted, certificate=certificate(tmp_path)) as door:
        with (
            door.connect() as plain,
            door.receiver.trust.wrap_socket(plain, server_hostname="localhost") as connection,
            connection.makefile("rb") as answer,
        ):
            connection.sendall(f"{RAW_HEAD}Content-Length: {len(MESSAGE)}\r\n\r\n".encode() + MESSAGE)
            assert answer.readline() == b"HTTP/1.1 202 Accepted\r\n"
        with door.connect() as plain, suppress(ConnectionError):
            plain.sendall(f"{RAW_HEAD}Content-Length: {len(MESSAGE)}\r\n\r\n".encode() + MESSAGE)
            assert b"202" not in plain.recv(100)
