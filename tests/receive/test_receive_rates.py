"""Rate limits: exact sliding windows, which outlast a restart and a kill."""

import re
import signal
import smtplib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from testbed.relay import Relay
from testbed.waiting import until

from mailer.receive.users.rates import DAY, HOUR, Rate, RateLimiter, RateRules, Sent


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


@given(
    st.integers(1, 4),
    st.integers(1, 6),
    st.lists(st.floats(0, 2 * HOUR, allow_nan=False).map(lambda seconds: round(seconds, 3)), max_size=60),
)
def test_no_hour_and_no_day_ever_holds_more_than_its_limit_and_no_message_waits_in_vain(hour, day, pauses):
    clock = Clock()
    limiter = RateLimiter(RateRules(per_sender=Rate(hour, day)), clock)
    taken: list[float] = []
    for pause in pauses:
        clock.now += pause
        counts = [
            (sum(at > clock.now - window for at in taken), most)
            for window, most in ((HOUR, hour), (DAY, day))
        ]
        allowed = all(count < most for count, most in counts)
        wait = limiter.wait("", "a@example.com")
        assert (wait == 0) == allowed
        if wait:
            clock.now += wait
            assert limiter.wait("", "a@example.com") == 0
        taken.append(limiter.charge("", "a@example.com"))


def test_senders_are_counted_apart_and_without_case():
    limiter = RateLimiter(RateRules(per_sender=Rate(per_hour=1)), Clock())
    limiter.charge("", "A@example.com")
    assert limiter.wait("", "a@EXAMPLE.com") == HOUR
    assert limiter.wait("", "b@example.com") == 0


@pytest.mark.parametrize(
    "spelling",
    [
        '"app"@b\u00fccher.example',
        '"a\\pp"@b\u00fccher.example',
        "app@xn--bcher-kva.example",
        "APP@B\u00dcCHER.example",
    ],
)
def test_a_sender_has_one_limit_in_all_spellings(spelling):
    limiter = RateLimiter(RateRules(per_sender=Rate(per_hour=1)), Clock())
    limiter.charge("", "app@b\u00fccher.example")
    assert limiter.wait("", spelling) == HOUR


def test_the_global_limit_counts_everybody():
    limiter = RateLimiter(RateRules(overall=Rate(per_day=2)), Clock())
    limiter.charge("", "a@example.com")
    limiter.charge("shop", "b@example.com")
    assert limiter.wait("", "c@example.com") == DAY


def test_a_users_own_limit_replaces_the_senders_whatever_the_sender():
    rules = RateRules(per_sender=Rate(per_hour=1), of_user={"shop": Rate(per_hour=3)}.get)
    limiter = RateLimiter(rules, Clock())
    for sender in "ab":
        limiter.charge("shop", sender)
    assert limiter.wait("shop", "a") == 0
    limiter.charge("shop", "c")
    assert limiter.wait("shop", "d") == HOUR
    assert limiter.wait("", "a") == 0


def test_what_is_given_back_does_not_count():
    limiter = RateLimiter(RateRules(per_sender=Rate(per_hour=1)), Clock())
    at = limiter.charge("", "a")
    limiter.refund("", "a", at)
    assert limiter.wait("", "a") == 0


def test_a_clock_that_was_a_year_ahead_blocks_no_user_for_a_year():
    clock = Clock()
    limiter = RateLimiter(RateRules(per_sender=Rate(per_hour=1)), clock)
    clock.now += 365 * DAY
    limiter.charge("", "a")
    clock.now -= 365 * DAY
    assert limiter.wait("", "a") <= HOUR


def test_memory_is_bounded_by_the_senders_of_a_day():
    clock = Clock()
    limiter = RateLimiter(RateRules(per_sender=Rate(per_hour=1)), clock)
    for n in range(5000):
        clock.now += 60
        limiter.charge("", f"{n}@example.com")
    assert len(limiter.uses()) < 3500


def test_what_another_host_accepted_counts_from_when_it_did():
    clock = Clock()
    limiter = RateLimiter(RateRules(per_sender=Rate(per_hour=3)), clock)
    limiter.charge("", "a@example.com")
    clock.now += 10
    limiter.charge("", "a@example.com")
    limiter.count_elsewhere(Sent(clock.now - 5, "", "A@example.com"))
    assert limiter.wait("", "a@example.com") == HOUR - 10
    clock.now += HOUR - 10
    assert limiter.wait("", "a@example.com") == 0
    limiter.charge("", "a@example.com")
    assert limiter.wait("", "a@example.com") == 5


def test_another_hosts_clock_that_is_ahead_blocks_no_user_for_longer():
    clock = Clock()
    limiter = RateLimiter(RateRules(per_sender=Rate(per_hour=1)), clock)
    limiter.count_elsewhere(Sent(clock.now + DAY, "", "a@example.com"))
    assert limiter.wait("", "a@example.com") == HOUR


def test_history_counts():
    clock = Clock()
    history = [Sent(clock.now - HOUR - 1, "", "a"), Sent(clock.now - 600, "", "a")]
    limiter = RateLimiter(RateRules(per_sender=Rate(1, 3)), clock, history)
    assert limiter.wait("", "a") == HOUR - 600


def test_a_message_on_its_way_in_counts_also_when_the_configuration_is_read_again(relay: Relay) -> None:
    relay.configure({"rateLimits": {"enabled": True, "maxPerHour": 1}})
    with relay.serve() as server, relay.connect() as slow, relay.connect() as client:
        slow.mail("a@example.com")
        slow.rcpt("b@example.net")
        slow.docmd("DATA")
        relay.configure({"maxRecipients": 7})
        server.signal(signal.SIGHUP)
        until(lambda: "the configuration was read again" in server.output(), "the new configuration")
        assert client.mail("a@example.com")[0] == 451
        slow.send(b"Subject: 1\r\n\r\n.\r\n")
        assert slow.getreply()[0] == 250
        assert client.mail("a@example.com")[0] == 451


def test_a_user_who_is_given_a_limit_is_counted_from_the_ledger_at_sighup(relay: Relay) -> None:
    assert relay.mailer("user", "add", "shop", given="secret one\n").returncode == 0
    with relay.serve() as server, relay.connect() as client, smtplib.SMTP("127.0.0.1", relay.port) as shop:
        shop.login("shop", "secret one")
        shop.sendmail("a@example.com", ["b@example.net"], "Subject: 1\r\n\r\n")
        assert relay.mailer("user", "rm", "shop").returncode == 0
        limited = relay.mailer("user", "add", "shop", "--max-per-hour", "1", given="secret one\n")
        assert limited.returncode == 0
        server.signal(signal.SIGHUP)
        until(lambda: "the configuration was read again" in server.output(), "the new configuration")
        shop.rset()
        assert shop.mail("a@example.com")[0] == 451
        assert client.mail("a@example.com")[0] == 250


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_limits_outlast_the_receiver_and_mailer_limits_shows_them(relay: Relay, end: str) -> None:
    relay.configure({"rateLimits": {"enabled": True, "maxPerHour": 2, "globalMaxPerDay": 10}})
    with relay.serve() as server:
        with relay.connect() as client:
            client.sendmail("a@example.com", ["b@example.net"], "Subject: 1\r\n\r\n")
            client.sendmail("a@example.com", ["b@example.net"], "Subject: 2\r\n\r\n")
        getattr(server, end)()
    with relay.serve(), relay.connect() as client:
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            client.sendmail("a@example.com", ["b@example.net"], "Subject: 3\r\n\r\n")
        assert refused.value.smtp_code == 451
        assert re.search(rb"^4\.7\.1 .* in (1h|5\dm\d*s?)$", refused.value.smtp_error)
        client.sendmail("c@example.com", ["b@example.net"], "Subject: 4\r\n\r\n")
        client.sendmail("", ["b@example.net"], "Subject: 5\r\n\r\n")
    shown = relay.mailer("limits")
    assert "sender a@example.com: 2 of 2 this hour, 2 of 2000 this day  waits " in shown.stdout
    assert "sender <>: 1 of 2 this hour, 1 of 2000 this day\n" in shown.stdout
    assert "everybody: 4 of any this hour, 4 of 10 this day\n" in shown.stdout
    assert '"who":"sender c@example.com","hour":1' in relay.mailer("limits", "--json").stdout
