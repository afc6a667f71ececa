"""What real servers do and say that is not in the RFCs, through whole runs.

Alone and with a backup, in one run and from one cron run to the next.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from outbound.hostile import DROP, AtMost, Server, Session
from outbound.internet import Internet
from outbound.runs import HOUR, Cron
from outbound.sending import LOGIN, MESSAGE, forward_to
from outbound.unrelated_mail import MAILS, PAUSE, bounced, strangers
from testbed.ports import LOOPBACK

EHLO = {
    "Postfix 504": ("rcpt", "504 5.5.2 <vm>: Helo command rejected: need fully-qualified hostname"),
    "Postfix 501": ("rcpt", "501 5.5.2 <vm>: Helo command rejected: Invalid name"),
    "Exim": ("rcpt", "550 Access Denied - Invalid HELO name (See RFC2821 4.1.1.1)"),
}
ACCOUNT = {
    "not activated": ("mail", "502 5.7.0 Your SMTP account is not yet activated"),
    "not authenticated": ("mail", "550 Unauthenticated senders not allowed"),
    "activity": ("dot", "550 5.4.6 Unusual sending activity detected. Please try after sometime"),
    "bad sender": ("dot", "550 5.1.8 Access denied, bad outbound sender AS(42004)"),
    "no relaying": ("rcpt", "550 relay not permitted"),
}
QUOTA = {
    "Microsoft": ("dot", "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed"),
    "a day": ("rcpt", "550 User user@example.com has exceeded its 24-hour sending limit. Messages to 250"),
    "credits": ("mail", "451 Maximum credits exceeded"),
    "Zimbra": ("rcpt", '451 4.7.1 Ratelimit "user" exceeded'),
}
OTHER_WORDS = {
    "no words": ("rcpt", "550 no"),
    "a number": ("dot", "554 5.0.0 error 4711 (id AB12CD34)"),
    "for now": ("mail", "451 4.0.0 hm"),
    "closing": ("rcpt", "421 closing"),
    "closing, DATA": ("data", "421 4.0.0 bye"),
    "garbage": ("dot", "571 #5.7.1 :("),
    "a login out of place": ("dot", "535 5.7.8 what"),
    "classes differ": ("rcpt", "550 4.7.1 no"),
}
TO_EVERYBODY = EHLO | ACCOUNT | QUOTA | OTHER_WORDS
SENDERS = {
    "QQ": "501 mail from address must be same as authorization user",
    "163": "553 Mail from must equal authorized user",
    "SendGrid": "550 The from address does not match a verified Sender Identity. Mail cannot be sent",
    "Microsoft": "554 5.2.252 SendAsDenied; a@example.com not allowed to send as b@example.com",
    "Aliyun": "440 mail from account doesn't conform with authentication (Auth Account: a@example.com)",
}


@pytest.mark.parametrize("name", TO_EVERYBODY)
def test_what_a_provider_says_to_everybody_bounces_nothing_and_all_goes_when_it_ends(
    name: str, tmp_path: Path
) -> None:
    phase, words = TO_EVERYBODY[name]
    with Server({phase: words}) as server:
        cron = Cron(tmp_path, forward_to(server))
        strangers(cron)
        cron.run()
        assert cron.health() == ["open"], words
        assert len(cron.statuses()) == MAILS
        assert bounced(cron) == []
        strangers(cron, start=MAILS)
        cron.run_for(6 * HOUR)
        assert len(cron.statuses()) == 2 * MAILS
        assert bounced(cron) == []
        # Each hour one mail asks, beside those that were on their way when it began.
        assert len(server.sessions) < 6 * MAILS
        server.script.clear()
        cron.run_for(PAUSE)
        assert cron.found() == {}
        assert cron.health() == ["closed"]
        assert len({to for to, _ in server.delivered()}) == len(server.delivered()) == 2 * MAILS


@pytest.mark.parametrize("name", TO_EVERYBODY)
def test_with_a_backup_all_goes_there_in_the_same_run_and_later_ones_at_once(
    name: str, tmp_path: Path
) -> None:
    phase, words = TO_EVERYBODY[name]
    with Server({phase: words}) as primary, Server() as backup:
        cron = Cron(tmp_path, forward_to(primary, backup))
        strangers(cron)
        cron.run()
        # What may pass is asked for again where it was asked, until others have met the same.
        cron.run(after=150)
        assert cron.found() == {}
        strangers(cron, start=MAILS)
        asked = len(primary.sessions)
        cron.run()
        assert cron.found() == {}
        assert len(backup.delivered()) == 2 * MAILS
        assert len(primary.sessions) <= asked + 1, "it is left alone, but for one that asks"


@pytest.mark.parametrize("name", SENDERS)
def test_a_sender_that_is_not_this_accounts_goes_to_the_backup_or_is_asked_for_twice(
    name: str, tmp_path: Path
) -> None:
    with Server({"mail": SENDERS[name]}) as primary, Server() as backup:
        cron = Cron(tmp_path, forward_to(primary))
        [mail] = strangers(cron, 1)
        cron.run()
        assert cron.statuses() == {mail: {"deferred"}}
        cron.run(after=150)
        again = {"deferred"} if SENDERS[name].startswith("4") else {"bounced"}
        assert cron.statuses() == {mail: again}
        cron.configure(forward_to(primary, backup))
        strangers(cron, start=1)
        cron.run()
        assert len(backup.delivered()) == MAILS
        assert cron.health() == ["closed", "closed"]
        assert {*cron.statuses()} == {mail}


@pytest.mark.parametrize("name", ["QQ", "163", "SendGrid", "Microsoft"])
def test_a_sender_whose_every_mail_is_refused_loses_none_and_delays_no_other(
    name: str, tmp_path: Path
) -> None:
    """An application with one address, which the account may not use: its operator has days to mend it."""

    def refuse(_session: Session, line: bytes) -> str | None:
        return SENDERS[name] if b"<app@wrong.example>" in line else None

    with Server({"mail": refuse}) as server:
        cron = Cron(tmp_path, forward_to(server))
        for number in range(MAILS):
            cron.queue("app@wrong.example", [f"bob@{number}.example.net"])
        cron.run_for(0)
        cron.run()
        cron.run_for(6 * HOUR)
        assert [*cron.statuses().values()] == [{"deferred"}] * MAILS
        strangers(cron, 1)
        cron.run()
        assert len(server.delivered()) == 1
        server.script.clear()
        cron.run_for(PAUSE)
        assert cron.found() == {}


ONE_MAILS = {
    "content": "421 4.7.0 [TSS04] This message is suspicious due to the nature of the content",
    "recipient": "421 4.7.1 Messages to user@example.net deferred due to excessive volume. Try again later",
    "From domain": "421 4.7.32 Your email has been rate limited because the From: header (RFC5322) isn't "
    "aligned with either the authenticated SPF or DKIM organizational domain",
    "unclear": "421 4.7.0 come back",
    "unclear for good": "554 no",
    "lost": DROP,
}


@pytest.mark.parametrize("phase", ["mail", "rcpt", "data", "dot"])
@pytest.mark.parametrize("name", ONE_MAILS)
def test_one_mails_refusal_stops_no_other_mail(name: str, phase: str, tmp_path: Path) -> None:
    """It is tried again and again, the first each time, as when it was the probe of the only provider."""

    def refuse(session: Session, _line: bytes) -> Any:
        begun = [command for command in session.commands if command.startswith(b"MAIL")]
        return ONE_MAILS[name] if b"<app@0.example>" in begun[-1] else None

    with Server({phase: refuse}) as server:
        cron = Cron(tmp_path, forward_to(server))
        [bad] = strangers(cron, 1)
        for run in range(1, 6):
            cron.run()
            assert cron.health() == ["closed"]
            strangers(cron, 1, start=run)
            cron.run(after=150)
            assert {*cron.statuses()} <= {bad}
        assert len(server.delivered()) >= 5


def test_a_421_about_one_recipient_lets_the_others_of_its_mail_go_at_once(tmp_path: Path) -> None:
    def refuse(_session: Session, line: bytes) -> str | None:
        return ONE_MAILS["recipient"] if b"user@" in line else None

    with Server({"rcpt": refuse}) as server:
        cron = Cron(tmp_path, forward_to(server))
        to = ["ann@example.net", "user@example.net", "bob@example.net"]
        mail = cron.queue("app@example.com", to)
        cron.run()
        left = cron.found()[mail]
        assert left.statuses == {to[0]: "sent", to[1]: "deferred", to[2]: "sent"}
        assert len(server.sessions) == 2


SIZES = ("552 Message too large", "552 size (#5.3.4)", "550 5.7.1:message is too big for us", "523 (#5.3.4)")


@pytest.mark.parametrize("words", SIZES)
def test_a_mail_that_is_too_large_bounces_at_once_and_goes_to_a_backup_that_takes_it(
    words: str, tmp_path: Path
) -> None:
    with Server({"dot": words}) as primary, Server() as backup:
        cron = Cron(tmp_path, forward_to(primary))
        [alone] = strangers(cron, 1)
        cron.run()
        assert cron.statuses() == {alone: {"bounced"}}
        cron.configure(forward_to(primary, backup))
        strangers(cron, 1)
        cron.run()
        assert len(backup.delivered()) == 1
        assert cron.health() == ["closed", "closed"]


@pytest.mark.parametrize("code", ["502 5.5.1", "504 5.7.4", "535 5.7.8", "553 5.7.1", "500", "534 5.7.9"])
def test_a_login_is_tried_by_the_second_mechanism_when_the_first_is_refused(
    code: str, tmp_path: Path
) -> None:
    def refuse(_session: Session, line: bytes) -> str | None:
        return f"{code} not by this one" if line.startswith(b"AUTH PLAIN") else None

    with Server({"auth": refuse}, auth="PLAIN LOGIN") as server:
        provider = {"host": LOOPBACK, "port": server.port, **LOGIN}
        cron = Cron(tmp_path, forward_to(forwardProviders=[provider]))
        strangers(cron)
        cron.run()
        assert cron.found() == {}
        assert len(server.delivered()) == MAILS
        cron.configure(forward_to(forwardProviders=[provider | {"auth": "login"}]))
        named = len(server.sessions)
        strangers(cron)
        cron.run()
        assert cron.found() == {}
        assert not any(b"PLAIN" in line for one in server.sessions[named:] for line in one.commands)


def test_a_password_that_is_wrong_is_shown_twice_and_the_first_answer_is_what_counts(tmp_path: Path) -> None:
    answers = ["535 5.7.8 wrong password", "504 5.5.4 what mechanism"]
    with Server({"auth": answers}, auth="PLAIN LOGIN CRAM-MD5") as server:
        cron = Cron(tmp_path, forward_to(forwardProviders=[{"host": LOOPBACK, "port": server.port, **LOGIN}]))
        strangers(cron, 1)
        cron.run()
        [session] = server.sessions
        assert [line.split()[1] for line in session.commands if line.startswith(b"AUTH")] == [
            b"PLAIN",
            b"LOGIN",
        ]
        [state] = cron.states()
        assert state.trouble == answers[0]


def test_a_mechanism_that_is_named_and_not_offered_is_said_to_be_so(tmp_path: Path) -> None:
    with Server(auth="PLAIN") as server:
        provider = {"host": LOOPBACK, "port": server.port, **LOGIN, "auth": "cram-md5"}
        cron = Cron(tmp_path, forward_to(forwardProviders=[provider]))
        strangers(cron, 1)
        cron.run()
        [state] = cron.states()
        assert state.trouble == "AUTH CRAM-MD5 (key auth) is not offered (offered: PLAIN)"


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ("mail", "451 4.7.0 hm"),
        ("mail", "421 enough"),
        ("mail", "450 4.5.0 nothing more here"),
        ("rcpt", "421 4.7.0 Too many messages for this session"),
        ("rcpt", "421 enough"),
        ("data", "421 4.4.2 enough"),
        ("rcpt", "452 4.3.2 Maximum number of messages per connection reached"),
        ("data", "450 enough"),
        ("mail", "550 5.7.1 too many messages in this session"),
    ],
)
def test_a_session_that_has_reached_its_servers_limit_is_replaced_at_once(
    phase: str, words: str, tmp_path: Path
) -> None:
    def limited(session: Session, _line: bytes) -> str | None:
        return words if len(session.messages) >= 2 else None

    with Server({phase: limited}) as server:
        cron = Cron(tmp_path, forward_to(server, sending={"maxSessionsPerHop": 1}))
        strangers(cron, 6)
        cron.run()
        assert cron.found() == {}
        assert len(server.delivered()) == 6
        assert len(server.sessions) == 3
        assert cron.health() == ["closed"]


@pytest.mark.parametrize(
    "words",
    [
        "452 4.5.3 You have sent too many messages today",
        "451 4.7.1 Ratelimit exceeded: too many recipients per hour",
        "450 4.7.1 Error: too much mail from 192.0.2.1",
        "452 4.5.3 Error: too many recipients per day for your account",
    ],
)
def test_told_at_rcpt_that_we_send_too_much_we_ask_no_more_in_smaller_pieces(
    words: str, tmp_path: Path
) -> None:
    with Server({"rcpt": AtMost(3, words)}) as server:
        cron = Cron(tmp_path, forward_to(server, batchSize=100))
        cron.queue("app@example.com", [f"user{number}@{number}.example.net" for number in range(40)])
        cron.run()
        begun = [line for one in server.sessions for line in one.commands if line.startswith(b"MAIL")]
        assert len(begun) <= 2
        assert len(server.delivered()) == 3


def test_told_to_slow_down_it_gets_fewer_sessions_until_it_is_left_alone(tmp_path: Path) -> None:
    open_now: list[int] = []

    def count(_session: Session, _line: bytes) -> str | None:
        open_now.append(sum(not session.finished for session in server.sessions))
        return "450 4.7.1 Error: too much mail, slow down" if len(open_now) == 8 else None

    with Server({"dot": count}) as server:
        cron = Cron(tmp_path, forward_to(server, sending={"maxSessionsPerHop": 4}))
        strangers(cron, 40)
        cron.run()
        assert max(open_now[:8]) <= 4
        assert max(open_now[-10:]) <= 2
        assert len(server.delivered()) == 39
        assert cron.health() == ["closed"]


@pytest.fixture
def internet() -> Iterator[Internet]:
    zone = {
        ("good.test", "MX"): ["10 mx1.test."],
        ("evil.test", "MX"): ["10 [evil.test."],
        ("half.test", "MX"): ["10 [evil.test.", "20 mx1.test."],
        ("mx1.test", "A"): ["127.0.0.21"],
    }
    with Internet.of(zone) as made:
        yield made


def test_a_destination_with_a_surprising_exchanger_delays_no_other_mail(
    tmp_path: Path, internet: Internet
) -> None:
    server = internet.server("127.0.0.21")
    cron = Cron(tmp_path, internet.settings())
    mail = cron.queue("app@example.com", ["bob@evil.test", "bob@good.test", "bob@half.test"])
    cron.run()
    left = cron.found()[mail]
    assert left.statuses == {"bob@evil.test": "deferred", "bob@good.test": "sent", "bob@half.test": "sent"}
    assert "neither a name nor an address" in str(left.events)
    assert len(server.messages) == 2


def test_a_defect_at_one_destination_is_journalled_and_delays_no_other_mail(
    tmp_path: Path, internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mailer.send.routes import direct  # noqa: PLC0415 - as the run imports it

    real = direct.exchangers

    async def surprised(resolver: Any, domain: str, shuffle: Any) -> Sequence[str]:
        if domain == "evil.test":
            raise ValueError("a surprise")
        return await real(resolver, domain, shuffle)

    monkeypatch.setattr(direct, "exchangers", surprised)
    internet.dns.zone["down.test", "A"] = ["127.0.0.22"]
    server = internet.server("127.0.0.21")
    with Server() as provider:
        cron = Cron(tmp_path, internet.settings(retryCount=1) | forward_to(provider))
        to = ["bob@evil.test", "bob@good.test", "bob@down.test"]
        mail = cron.queue("app@example.com", to)
        cron.run()
        left = cron.found()[mail]
        assert left.statuses == {to[0]: "deferred", to[1]: "sent", to[2]: "sent"}
        # Where the exchanger is down the next route was tried, in the same attempt.
        assert provider.delivered() == [(to[2], MESSAGE)]
    assert "internal error: ValueError" in [event.get("reply") for event in left.events]
    assert len(server.messages) == 1
    assert any(line.startswith("defect") for line in cron.logged)
