"""Submission by HTTP: its answers, users and tokens, held against its own description."""

import base64
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from inbound.receiving import PASSWORD, USER, login
from inbound.submitting import (
    BEARER,
    DESCRIPTION,
    ENVELOPE,
    HTTP_TOO,
    JSON,
    LIMITED_TOKEN,
    MAIL,
    MESSAGE,
    MESSAGES,
    OTHERS_TOKEN,
    RAW,
    RAW_HEAD,
    TOKEN,
    Door,
    bearer,
    check_documented,
    documented,
    http_running,
    told,
)
from testbed.ports import LOOPBACK

from mailer.mail.reply import Reply
from mailer.receive import replies
from mailer.receive.space import Space
from mailer.receive.users.account import Account
from mailer.receive.users.accounts import single_login
from mailer.receive.users.auth import Identity
from mailer.receive.users.hashes import hash_token
from mailer.receive.users.rates import Rate, RateLimiter, RateRules
from mailer.receive.web import server as http_server
from mailer.receive.web.document import Mail
from mailer.receive.web.exchange import Problem, status_of
from mailer.spool.directory import Spool
from mailer.spool.key_file import KeyFile, name_of


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
