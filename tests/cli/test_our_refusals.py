"""What `mailer serve` refuses, it explains: whose limit, which key, and the command that mends it works."""

import json
import re
import shlex
import smtplib
from typing import Any

import pytest
from outbound.sending import SENDER, TO
from testbed.relay import Relay
from testbed.waiting import until

from mailer.cli.our_refusals import ours
from mailer.mail.reply import Reply
from mailer.receive import replies
from mailer.receive.content.fault import Fault


def refusal(relay: Relay) -> str:
    """What the application's next message is answered with, if not with 250."""
    with relay.connect() as client:
        code, text = client.mail(SENDER)
    return "" if code == 250 else f"{code} {text.decode()}"


def test_the_command_in_a_senders_refusal_lets_its_mail_through(relay: Relay) -> None:
    relay.mailer("user", "add", "crm", "--allow", "crm@example.com", given="a good password\n")

    def says() -> str:
        with smtplib.SMTP("127.0.0.1", relay.port) as client:
            client.login("crm", "a good password")
            client.mail("crm@example.com")
            client.rcpt(TO)
            code, text = client.data(b"From: <welcome@example.com>\r\n\r\nhello\r\n")
            return f"{code} {text.decode()}"

    with relay.serve():
        said = says()
        assert said.startswith("553 5.7.1 crm may not send as welcome@example.com, which the From field says")
        assert "it may send as crm@example.com" in said
        explained = relay.mailer("explain-trouble", said).stdout
        assert "mailer user allow USER ADDRESS" in explained
        command = re.search(r"\(mailer (.*)\)$", said)
        assert command
        done = relay.mailer(*shlex.split(command[1]))
        assert done.stdout == "crm may send as crm@example.com welcome@example.com\n"
        until(lambda: says().startswith("250"), "the receiver to see the change")


def test_senders_are_taken_away_again_but_not_the_last(relay: Relay) -> None:
    relay.mailer("user", "add", "crm", given="a good password\n")
    assert "anyone" in relay.mailer("user", "allow", "crm", "crm.example.com").stdout
    assert relay.mailer("user", "deny", "crm", "*").stdout == "crm may send as crm.example.com\n"
    assert relay.mailer("user", "deny", "crm", "other.example").returncode == 66
    assert '"nodomain" is neither an address' in relay.mailer("user", "allow", "crm", "nodomain").stderr
    assert relay.mailer("user", "deny", "crm", "crm.example.com").returncode == 2
    [user] = map(json.loads, relay.mailer("user", "ls", "--json").stdout.splitlines())
    assert user["allowedSenders"] == ["crm.example.com"]


def test_mail_is_refused_while_the_spool_is_not_at_its_path(relay: Relay) -> None:
    """A disk that was unmounted under us would take mail that no runner sees."""
    moved = relay.directory / "moved"
    with relay.serve():
        assert refusal(relay) == ""
        relay.spool.rename(moved)
        until(lambda: "4.3.0 The spool was moved or unmounted" in refusal(relay), "a refusal without a spool")
        relay.spool.mkdir()
        said = refusal(relay)
        assert said.startswith("451 4.3.0 The spool was moved or unmounted")
        assert "then restart mailer" in relay.mailer("explain-trouble", said).stdout
        relay.spool.rmdir()
        moved.rename(relay.spool)
        until(lambda: refusal(relay) == "", "mail to be accepted again")


@pytest.mark.parametrize(
    ("settings", "taken", "said", "explained"),
    [
        (
            {"rateLimits": {"enabled": True, "maxPerHour": 0, "maxPerDay": 2}},
            2,
            (
                r"451 4\.7\.1 2 of 2 messages in a day for app@example\.com \(rateLimits\.maxPerDay\); "
                r"try again in (1d|23h\d+m)"
            ),
            "mailer limits",
        ),
        (
            {"minFreeSpace": 2**60},
            0,
            rf"452 4\.3\.1 .*: \d+ MiB free, {2**40} MiB wanted \(minFreeSpace\); try again later",
            "lower minFreeSpace",
        ),
    ],
)
def test_a_refusal_for_now_says_how_much_of_what_and_explain_trouble_knows_it(
    relay: Relay, settings: dict[str, Any], taken: int, said: str, explained: str
) -> None:
    relay.configure(settings)
    with relay.serve():
        for _ in range(taken):
            with relay.connect() as client:
                client.sendmail(SENDER, [TO], b"Subject: x\r\n\r\nhello\r\n")
        refused = refusal(relay)
        assert re.fullmatch(said, refused), refused
    told = relay.mailer("explain-trouble", refused).stdout
    assert "a refusal of mailer serve" in told
    assert explained in told


def test_the_check_warns_of_a_day_that_takes_less_than_an_hour(relay: Relay) -> None:
    relay.configure({"rateLimits": {"enabled": True, "maxPerHour": 50, "maxPerDay": 25}})
    checked = relay.mailer("config", "check")
    assert checked.returncode == 0
    assert "warning: $.rateLimits.maxPerDay: is 25, below maxPerHour (50)" in checked.stderr


_TOLD_BY_THE_REPLY = {replies.EARLY_TALKER, replies.NEED_ESMTP}
"""About the client's SMTP alone; with them stand those of 500 to 504."""
_ABOUT_THE_MAIL = [
    *(each for each in vars(replies).values() if isinstance(each, Reply) and each.code >= 530),
    *map(replies.content_refused, Fault),
    replies.KEY_IN_USE,
    replies.TLS_FAILED,
    replies.other_mail("0" * 26),
    replies.unencodable("it is signed"),
    replies.too_far_ahead(3600),
    replies.unknown_local_user(33, ""),
]


@pytest.mark.parametrize("reply", sorted(set(_ABOUT_THE_MAIL) - _TOLD_BY_THE_REPLY, key=str), ids=str)
def test_every_refusal_of_mail_is_known_for_ours(reply: Reply) -> None:
    """Else it is explained as another server's, which may mean something else by it."""
    assert ours(str(reply)) is not None
