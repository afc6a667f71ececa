"""Mail through providers' interfaces over HTTP: what is posted, what answers mean, and real runs."""

import json
import os
import re
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from outbound.header_fields import KNOWN, fields
from outbound.hostile import Server
from outbound.sending import forward_to, found, queue
from testbed.faketime import faketime, fast_clock
from testbed.http_api import DOMAIN, MAILBOX, Fault, HttpApi, Reader, gmail, graph, mailgun
from testbed.ports import free_port
from testbed.relay import Relay
from testbed.token_server import TokenServer
from testbed.waiting import until

BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
KEY = "key-3ax6xnjp29jd6fds4gc373sgvjxteol0"
SECRET = "s3cret~of-the.application"
MESSAGE = b"From: <app@example.com>\r\nTo: Bob <bob@example.net>\r\nSubject: hello\r\n\r\nhello\r\n"
TO = ("bob@example.net", "eve@example.org")
MANY = int(os.environ.get("MAILER_HTTP_MAILS", "50"))
"""Mails in the tests of lost answers and of headers; `MAILER_HTTP_MAILS=1000` for more."""
AT_ONCE = 25
"""Of them in one run: none is answered before all have come, and a runner gives a silent server 10 s."""


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    with TokenServer(client_secret=SECRET) as server:
        for name, value in server.trust(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield server


def through(api: HttpApi, tokens: TokenServer, name: str = "graph", **others: Any) -> dict[str, Any]:
    auth = {
        "type": "oauth2", "grant": "clientCredentials", "tokenUrl": tokens.url, "clientId": "app",
        "clientSecret": SECRET, "scope": "https://graph.microsoft.com/.default",
    }  # fmt: skip
    provider = {"api": name, "apiUrl": api.url, "username": MAILBOX, "name": "cloud", "auth": auth}
    return forward_to(forwardProviders=[provider, *others.pop("more", [])], **others)


def by_key(api: HttpApi, **others: Any) -> dict[str, Any]:
    """The settings that send everything through Mailgun."""
    keys = {"username": DOMAIN, "password": KEY}
    provider = {"api": "mailgun", "apiUrl": api.url, "name": "gun", **keys}
    return forward_to(forwardProviders=[provider], **others)


def journal(relay: Relay, message_id: str) -> list[dict[str, Any]]:
    message = found(relay.spool, message_id)
    assert message is not None
    return [dict(event) for event in message.events]


@pytest.mark.parametrize(("read", "name"), [(graph, "graph"), (gmail, "gmail")])
def test_mail_goes_out_to_the_envelopes_recipients_alone(
    relay: Relay, tokens: TokenServer, read: Reader, name: str
) -> None:
    """The header names one of two, and one who is no recipient; what was accepted follows unchanged."""
    message = MESSAGE.replace(b"Subject", b"Cc: mallory@example.com\r\nBcc: x@example.com\r\nSubject")
    with HttpApi(read, bearers=lambda shown: shown in tokens.access) as api:
        relay.configure(through(api, tokens, name, security={"logAllEmails": True}))
        sent = queue(relay.spool, TO, message)
        done = relay.mailer_send("--once")
        assert (done.returncode, api.complaints) == (0, []), done.stderr
    [taken] = api.taken
    assert taken.recipients == TO
    head, _, body = taken.message.partition(b"\r\n\r\n")
    assert body == b"hello\r\n"
    assert head == (
        b"To: Bob <bob@example.net>\r\nBcc: <eve@example.org>\r\nX-Original-Cc: mallory@example.com\r\n"
        b"From: <app@example.com>\r\nSubject: hello"
    )
    told = relay.mailer("spool", "why", sent).stdout
    assert f"127.0.0.1:{api.port}" in told
    assert "HTTP 20" in told
    assert "It is cloud's now: ask them for " in told
    [row] = relay.mailer("providers", "--json").stdout.splitlines()
    assert (json.loads(row)["health"], json.loads(row)["api"]) == ("closed", name)
    seen = "".join(path.read_text(errors="replace") for path in (relay.spool / "log").rglob("*.*"))
    assert not any(token in seen + done.stderr + told for token in (SECRET, *tokens.access))


def test_a_token_that_is_withdrawn_is_exchanged_once(relay: Relay, tokens: TokenServer) -> None:
    with HttpApi(graph, bearers=lambda shown: shown in tokens.access) as api:
        relay.configure(through(api, tokens))
        for _ in range(2):
            queue(relay.spool, message=MESSAGE)
            assert relay.mailer_send("--once").returncode == 0
            tokens.revoke()
            [kept] = (relay.spool / "state").glob("token-*.json")
            older = json.loads(kept.read_text())
            older["obtained"] -= 300
            kept.write_text(json.dumps(older))
        assert len(api.taken) == 2
        assert (api.requests, tokens.asked()) == (3, 2)


def generated() -> list[tuple[bytes, list[str]]]:
    """Headers and envelopes that differ, `MANY` of them."""
    made: list[tuple[bytes, list[str]]] = []

    @settings(max_examples=4 * MANY, database=None, phases=[Phase.generate], deadline=None)
    @given(
        st.lists(fields(), max_size=6).map(b"".join),
        st.lists(st.sampled_from(KNOWN), min_size=1, unique=True),
    )
    def make(header: bytes, recipients: list[str]) -> None:
        # What has a bare CR or LF is sent nowhere.
        if not BARE.search(header) and len(made) < MANY:
            made.append((header, recipients))

    make()
    return made


@pytest.mark.parametrize(("read", "name"), [(graph, "graph"), (gmail, "gmail")])
def test_no_header_widens_the_recipients(relay: Relay, tokens: TokenServer, read: Reader, name: str) -> None:
    """By the real runs: each mail reaches its envelope's recipients, each once and nobody else."""
    mails = generated()
    with HttpApi(read) as api:
        relay.configure(through(api, tokens, name))
        for number, (header, recipients) in enumerate(mails):
            queue(relay.spool, recipients, header + b"X-Number: %d\r\n\r\n%d\r\n" % (number, number))
        assert relay.mailer_send("--once").returncode == 0
        assert api.complaints == []
    reached: dict[int, list[str]] = {}
    for taken in api.taken:
        number = int(taken.message.rstrip().rpartition(b"\n")[2])
        reached.setdefault(number, []).extend(taken.recipients)
    assert len(mails) == MANY
    for number, (_, recipients) in enumerate(mails):
        assert sorted(map(str.lower, reached[number])) == sorted(recipients)


@pytest.mark.parametrize(("policy", "most"), [("hold", 1), ("retry", 2)])
def test_taken_and_then_504_is_uncertain_and_nobody_gets_it_twice_without_leave(
    relay: Relay, tokens: TokenServer, policy: str, most: int
) -> None:
    """Every mail is taken, and a gateway answers 504; then all is well."""
    with HttpApi(graph) as api:
        api.script = [Fault.SLOW_GATEWAY]
        # All are on their way before the breaker learns of the first answer.
        at_once = {"concurrency": AT_ONCE, "maxSessionsPerHop": AT_ONCE}
        terms = {"uncertain": policy, "sending": at_once, "retry": {"schedule": ["1d"]}}
        settings = through(api, tokens, more=[NEVER], **terms)
        settings["forwardProviders"][0]["maxSessions"] = AT_ONCE
        relay.configure(settings)
        waiting = []
        for first in range(0, MANY, AT_ONCE):
            some = range(first, min(first + AT_ONCE, MANY))
            waiting += [queue(relay.spool, (to(n),), MESSAGE, sender=f"a@{n}.example") for n in some]
            relay.mailer("providers", "reset", "--all")
            api.hold, api.release_at = Event(), api.requests + len(some)
            assert relay.mailer_send("--once").returncode == 0
        api.hold = None
        assert api.requests == len(api.taken) == MANY
        for each in waiting:
            kinds = [event["event"] for event in journal(relay, each)]
            assert "uncertain" in kinds, kinds
            assert ("held" in kinds) is (policy == "hold")
        api.script = []
        for _ in range(2):
            relay.mailer("providers", "reset", "--all")
            relay.mailer("spool", "retry", "--all") if policy == "retry" else None
            assert relay.mailer_send("--once").returncode == 0
    counts = Counter(recipient for taken in api.taken for recipient in taken.recipients)
    assert counts == {to(n): most for n in range(MANY)}


NEVER = {"host": "127.0.0.1", "port": 1, "name": "never"}
"""A provider that what is uncertain must not go to."""


def test_a_gateway_that_never_answers_makes_one_copy_and_then_its_mail_is_held(relay: Relay) -> None:
    """Under `retry`; each release by the operator is one more try."""
    with HttpApi(mailgun) as api:
        api.script = [Fault.SLOW_GATEWAY]
        relay.configure(by_key(api, uncertain="retry"))
        waiting = queue(relay.spool, message=MESSAGE)
        for released, taken in ((False, 1), (False, 2), (False, 2), (True, 3)):
            if released:
                assert journal(relay, waiting)[-1]["event"] == "held"
                assert relay.mailer("spool", "release", waiting).returncode == 0
                assert relay.mailer_send("--once").returncode == 0  # It waits for its time again.
            relay.mailer("providers", "reset", "--all")
            relay.mailer("spool", "retry", "--all")
            assert relay.mailer_send("--once").returncode == 0
            assert len(api.taken) == taken
        assert journal(relay, waiting)[-1]["event"] == "held"
        assert "a second hand-over there did not settle it" in journal(relay, waiting)[-1]["reason"]


def test_a_release_lasts_over_an_attempt_that_does_not_reach_the_interface(relay: Relay) -> None:
    """Under `retry`: the mail is handed over once more, without a second word from the operator."""
    with HttpApi(mailgun) as api:
        api.script = [Fault.SLOW_GATEWAY]
        relay.configure(by_key(api, uncertain="retry"))
        waiting = queue(relay.spool, message=MESSAGE)
        for _ in range(2):
            relay.mailer("providers", "reset", "--all")
            relay.mailer("spool", "retry", "--all")
            assert relay.mailer_send("--once").returncode == 0
        assert journal(relay, waiting)[-1]["event"] == "held"
    assert relay.mailer("spool", "release", waiting).returncode == 0
    relay.mailer("providers", "reset", "--all")
    relay.mailer("spool", "retry", waiting)
    assert relay.mailer_send("--once").returncode == 0
    assert "refused" in journal(relay, waiting)[-1]["reply"]
    with HttpApi(mailgun, port=api.port) as back:
        relay.mailer("providers", "reset", "--all")
        assert relay.mailer_send("--once", under=faketime("+1d")).returncode == 0
        assert (len(api.taken), len(back.taken)) == (2, 1)
    assert found(relay.spool, waiting) is None


@pytest.mark.parametrize(
    "said",
    [
        (200, b"<html>Welcome</html>", {"Content-Type": "text/html"}),
        (200, {"error": {"code": "Nope", "message": "domain is not verified"}}),
        (204, b""),
    ],
)
@pytest.mark.parametrize("name", ["mailgun", "graph"])
def test_a_2yz_that_is_not_the_interfaces_is_uncertain(
    relay: Relay, tokens: TokenServer, name: str, said: tuple[object, ...]
) -> None:
    """A page at a wrong `apiUrl` also answers 200: the mail is tried once more, and held then."""
    with HttpApi(graph if name == "graph" else mailgun) as api:
        api.script = [said]
        relay.configure(through(api, tokens) if name == "graph" else by_key(api))
        waiting = queue(relay.spool, message=MESSAGE)
        assert relay.mailer_send("--once").returncode == 0
        assert journal(relay, waiting)[-1]["event"] == "uncertain"
        told = relay.mailer("spool", "why", waiting).stdout
        assert f"that is not an answer of the {name} interface: see apiUrl" in told
        relay.mailer("providers", "reset", "--all")
        relay.mailer("spool", "retry", waiting)
        assert relay.mailer_send("--once").returncode == 0
        assert journal(relay, waiting)[-1]["event"] == "held"
    assert (api.requests, api.taken) == (2, [])


@pytest.mark.parametrize("answers", [True, False], ids=["504", "killed"])
def test_a_runner_that_is_killed_in_the_second_hand_over_makes_no_third_copy(
    relay: Relay, *, answers: bool
) -> None:
    """Under `retry`; its journal ends with `committing`, and the one before ends so, or with the answer."""
    with HttpApi(mailgun) as api:
        api.script = [Fault.SLOW_GATEWAY]
        relay.configure(by_key(api, uncertain="retry"))
        waiting = queue(relay.spool, message=MESSAGE)
        if answers:
            assert relay.mailer_send("--once").returncode == 0
            relay.mailer("providers", "reset", "--all")
            relay.mailer("spool", "retry", waiting)
        api.hold = Event()
        for copies in range(len(api.taken) + 1, 3):
            with relay.watch() as runner:
                until(lambda copies=copies: api.whole == copies, f"request {copies}")
                runner.kill()
        api.hold.set()
        until(lambda: len(api.taken) == 2, "both requests to be read")
        api.hold, api.script = None, []
        for told in (relay.mailer("route", "--id", waiting), relay.mailer_send("--dry-run")):
            assert f"would be held: the final reply of 127.0.0.1:{api.port} was lost" in told.stdout
        assert "It is not handed over there a third time" in relay.mailer("spool", "why", waiting).stdout
        assert relay.mailer_send("--once").returncode == 0
    assert (api.requests, len(api.taken)) == (2, 2)
    assert [event["event"] for event in journal(relay, waiting)].count("committing") == 2
    assert "a second hand-over there did not settle it" in journal(relay, waiting)[-1]["reason"]


def to(number: int) -> str:
    return f"bob@{number}.example.net"


def test_a_refused_recipient_is_found_among_many(relay: Relay, tokens: TokenServer) -> None:
    """One request has one answer: who is meant is found by asking for fewer, and for each alone at last."""
    many = tuple(f"user{n}@example.net" for n in range(5))
    no = {"error": {"code": "ErrorInvalidRecipients", "message": "At least one recipient is not valid."}}
    with HttpApi(graph, refuses=lambda taken: (400, no) if many[3] in taken.recipients else None) as api:
        relay.configure(through(api, tokens))
        sent = queue(relay.spool, many, MESSAGE)
        assert relay.mailer_send("--once").returncode == 0
    assert sorted(one for taken in api.taken for one in taken.recipients) == sorted({*many} - {many[3]})
    [no_one] = [event for event in journal(relay, sent) if event["event"] == "bounced"]
    assert (no_one["to"], no_one["scope"]) == ([many[3]], "recipient")
    assert no_one["reply"] == "HTTP 400 ErrorInvalidRecipients: At least one recipient is not valid."
    assert "ask them for the right one" in relay.mailer("spool", "why", sent).stdout


def test_what_is_too_large_is_not_posted_and_goes_to_the_next_provider_or_bounces(
    relay: Relay, tokens: TokenServer
) -> None:
    """A request to Graph may have 4 MB, and the message is in base64 there."""
    large = MESSAGE + (b"x" * 70 + b"\r\n") * (3 * 2**20 // 72)
    with HttpApi(graph) as api, Server() as second:
        relay.configure(through(api, tokens, more=[{"host": "127.0.0.1", "port": second.port}]))
        queue(relay.spool, message=large)
        assert relay.mailer_send("--once").returncode == 0
        assert (api.requests, len(second.delivered())) == (0, 1)
        relay.configure(through(api, tokens))
        bounced = queue(relay.spool, message=large)
        queue(relay.spool, message=large[: 3 * 2**20 - 100] + b"\r\n")
        assert relay.mailer_send("--once").returncode == 0
        assert (api.requests, len(api.taken), api.complaints) == (1, 1, [])
    last = journal(relay, bounced)[-1]
    assert (last["event"], last["reply"][:9]) == ("bounced", "552 5.3.4")


def test_who_asks_for_a_pause_is_given_it_to_the_second(relay: Relay, tokens: TokenServer) -> None:
    """429 with Retry-After, the first answer; a pause longer than any of ours."""
    said = {"error": {"code": "ApplicationThrottled", "message": "Application is over its limit."}}
    with HttpApi(graph) as api:
        api.script = [(429, said, {"Retry-After": "7200"})]
        relay.configure(through(api, tokens))
        first = queue(relay.spool, message=MESSAGE)
        before = time.time()
        assert relay.mailer_send("--once").returncode == 0
        after = time.time()
        queue(relay.spool, message=MESSAGE)
        assert relay.mailer_send("--once").returncode == 0
        assert api.requests == 1
    assert journal(relay, first)[-1]["event"] == "deferred"
    [row] = [json.loads(line) for line in relay.mailer("providers", "--json").stdout.splitlines()]
    until = datetime.fromisoformat(row["openUntil"]).timestamp()
    assert before + 7200 - 1 <= until <= after + 7200
    assert row["reason"] == "it accepts no more mail from us for now"


def test_one_mail_closes_its_provider_to_no_other(relay: Relay) -> None:
    """Even if its answer says that the account may not send: the words may be a quotation of the mail."""
    said = {"message": "policy: 'SendingPaused' was found in the subject"}
    with HttpApi(
        mailgun, refuses=lambda taken: (400, said) if "odd@x.example" in taken.recipients else None
    ) as api:
        relay.configure(by_key(api))
        odd = queue(relay.spool, ("odd@x.example",), MESSAGE)
        assert relay.mailer_send("--once").returncode == 0
        queue(relay.spool, TO, MESSAGE)
        assert relay.mailer_send("--once").returncode == 0
        assert [taken.recipients for taken in api.taken] == [TO]
    assert journal(relay, odd)[-1]["event"] == "deferred"


def test_one_mailbox_gets_four_requests_at_once_of_all_runners(relay: Relay, tokens: TokenServer) -> None:
    with HttpApi(graph) as api:
        api.hold = Event()
        relay.configure(through(api, tokens, sending={"concurrency": 20}))
        for _ in range(12):
            queue(relay.spool, message=MESSAGE)
        with relay.watch(), relay.watch():
            until(lambda: api.requests == 4, "four requests")
            api.hold.set()
            until(lambda: len(api.taken) == 12, "all of them")
    assert api.at_once <= 4


@pytest.mark.parametrize(
    ("script", "last"),
    [
        ([(401, {"error": {"code": "InvalidAuthenticationToken", "message": "no"}})], "deferred"),
        ([(403, {"error": {"code": "ErrorAccessDenied", "message": "no"}})], "deferred"),
        ([Fault.REDIRECT], "deferred"),
        ([Fault.LOST], "uncertain"),
        ([(503, b"")], "uncertain"),
    ],
    ids=["401", "403", "redirect", "lost", "503"],
)
def test_what_becomes_of_a_mail(relay: Relay, tokens: TokenServer, script: list[Any], last: str) -> None:
    with HttpApi(graph) as api:
        api.script = script
        relay.configure(through(api, tokens))
        waiting = queue(relay.spool, message=MESSAGE)
        assert relay.mailer_send("--once").returncode == 0
    assert journal(relay, waiting)[-1]["event"] == last, journal(relay, waiting)


def test_a_request_that_is_cut_while_it_is_sent_is_sent_again(relay: Relay, tokens: TokenServer) -> None:
    """Before the request was sent whole, nobody can have got anything.

    The request exceeds what the kernel takes from us (4 MB) and for the server (bounded here). A smaller one
    may have been sent whole before the server ends the connection, and is then uncertain.
    """
    body = (b"x" * 70 + b"\r\n") * 150_000
    with HttpApi(gmail, receive_buffer=64 * 1024) as api:
        api.script = [Fault.REFUSED_EARLY]
        relay.configure(through(api, tokens, "gmail"))
        waiting = queue(relay.spool, message=MESSAGE + body)
        assert relay.mailer_send("--once").returncode == 0
        assert api.whole == 0
    assert journal(relay, waiting)[-1]["event"] == "deferred", journal(relay, waiting)


def test_a_request_that_is_not_answered_in_time_is_uncertain_and_goes_nowhere_else(relay: Relay) -> None:
    """Its ten minutes pass by a fast clock; the interface has the whole request."""
    with HttpApi(mailgun) as api, Server() as second, fast_clock(200) as fast:
        api.hold = Event()
        settings = by_key(api, uncertain="retry")
        settings["forwardProviders"].append({"host": "127.0.0.1", "port": second.port})
        relay.configure(settings)
        waiting = queue(relay.spool, message=MESSAGE)
        assert relay.mailer_send("--once", under=fast).returncode == 0
        api.hold.set()
        assert (api.requests, second.delivered()) == (1, [])
    last = journal(relay, waiting)[-1]
    assert last["event"] == "uncertain"
    assert "the whole request had been sent" in last["reply"]


def test_without_an_answer_the_next_provider_gets_it(relay: Relay, tokens: TokenServer) -> None:
    """Nothing listens; a name is not known; a certificate is nobody's."""
    with HttpApi(gmail, tls=True) as untrusted, Server() as second:
        urls = (f"http://127.0.0.1:{free_port()}", "https://nowhere.invalid", untrusted.url)
        for number, url in enumerate(urls, start=1):
            settings = through(untrusted, tokens, "gmail", more=[{"host": "127.0.0.1", "port": second.port}])
            settings["forwardProviders"][0]["apiUrl"] = url
            relay.configure(settings)
            queue(relay.spool, message=MESSAGE)
            assert relay.mailer_send("--once").returncode == 0
            assert len(second.delivered()) == number
        assert untrusted.requests == 0
        doctor = relay.mailer("doctor").stdout
        assert "its certificate is not trusted" in doctor


def test_doctor_and_auth_test_try_interface_and_token_and_post_nothing(
    relay: Relay, tokens: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HttpApi(graph, tls=True) as api:
        both = tmp_path / "both.pem"
        own = Path(api.trust(tmp_path)["SSL_CERT_FILE"]).read_text()
        both.write_text(Path(os.environ["SSL_CERT_FILE"]).read_text() + own)
        monkeypatch.setenv("SSL_CERT_FILE", str(both))
        relay.configure(through(api, tokens))
        checked = relay.mailer("config", "check")
        assert checked.returncode == 0, checked.stderr
        queue(relay.spool, message=MESSAGE)
        assert relay.mailer_send("--once").returncode == 0
        assert len(api.taken) == 1
        for command in (("doctor",), ("auth", "test", "cloud")):
            told = relay.mailer(*command, "--json").stdout
            rows = [json.loads(line) for line in told.splitlines()]
            found = {row["what"]: row for row in rows if row["about"] == f"localhost:{api.port}"}
            assert [found[what]["grade"] for what in ("connect", "tls", "login")] == ["ok"] * 3
            assert "verified" in found["tls"]["found"]
        assert api.requests == 1


ODD = b"From: <app@example.com>\r\nTo: x@example.com\r\nSubject: odd\r\n\r\n\xff--\r\n.\r\n..\r\nno end"


def test_mailgun_gets_the_bytes_that_were_accepted_and_the_envelopes_recipients(relay: Relay) -> None:
    large = MESSAGE + bytes(range(32, 127)) * 3000 + b"\r\n"
    with HttpApi(mailgun, bearers=lambda key: key == KEY) as api:
        relay.configure(by_key(api, security={"logAllEmails": True}))
        sent = [queue(relay.spool, TO, message) for message in (MESSAGE, ODD, large)]
        done = relay.mailer_send("--once")
        assert (done.returncode, api.complaints) == (0, []), done.stderr
        assert {taken.message for taken in api.taken} == {MESSAGE, ODD, large}
        assert {taken.recipients for taken in api.taken} == {TO}
        told = relay.mailer("spool", "why", sent[0]).stdout
        assert "HTTP 200 Queued. Thank you. id=<" in told
        assert f"{DOMAIN}>" in told
        tried = relay.mailer("test", "--to", TO[0], "--provider", "gun", "--dialogue")
        assert tried.returncode == 0, tried.stderr
        assert f"C: POST {api.url}/v3/{DOMAIN}/messages.mime (" in tried.stdout
        assert "S: HTTP 200 Queued." in tried.stdout
        api.script = [(401, b"Forbidden", {"Content-Type": "text/plain"})]
        queue(relay.spool, TO, MESSAGE)
        assert relay.mailer_send("--once").returncode == 0
    [row] = [json.loads(line) for line in relay.mailer("providers", "--json").stdout.splitlines()]
    assert (row["health"], row["cause"]) == ("open", "apiKeyRefused")
    assert "about account" in relay.mailer("explain-trouble", row["trouble"]).stdout
    assert "the mail is uncertain" in relay.mailer("explain-trouble", "HTTP 504 no reason is given").stdout
    seen = "".join(path.read_text(errors="replace") for path in (relay.spool / "log").rglob("*.*"))
    assert KEY not in seen + done.stderr + told


def test_a_login_that_an_answer_quotes_is_shown_nowhere(relay: Relay) -> None:
    login = b64encode(f"api:{KEY}".encode()).decode()
    with HttpApi(mailgun) as api:
        api.script = [(401, {"message": f"bad {login}, {KEY}"})]
        relay.configure(by_key(api))
        queue(relay.spool, message=MESSAGE)
        assert relay.mailer_send("--once").returncode == 0
    [row] = [json.loads(line) for line in relay.mailer("providers", "--json").stdout.splitlines()]
    assert row["trouble"] == "HTTP 401 bad ***, ***"
