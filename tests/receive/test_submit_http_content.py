"""Mail submitted by HTTP, as JSON or raw: what is built from it, and what is refused with which words."""

import base64
import json
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from inbound.submitting import (
    BEARER,
    ENVELOPE,
    HTTP_TOO,
    JSON,
    MAIL,
    MESSAGE,
    MESSAGES,
    Door,
    check_documented,
    http_running,
    told,
)

from mailer.receive.web.compose import compose
from mailer.receive.web.document import Mail
from mailer.receive.web.exchange import Problem

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
