from itertools import product

import pytest

from mailer.mail.outcome import Outcome, Scope, Status
from mailer.mail.reply import Reply
from mailer.send.phase import Phase
from mailer.send.trouble import TABLE, Action, Hardness, HopTrouble, SessionLost, decide, judge, rule

DOMAIN = list(product(Scope, Hardness, (True, False)))
MAIL = {Scope.RECIPIENT, Scope.MESSAGE}


@pytest.mark.parametrize(("scope", "hardness", "hops_left"), DOMAIN)
def test_exactly_one_row_covers_each_combination(scope, hardness, hops_left):
    assert sum(row.covers(scope, hardness, hops_left=hops_left) for row in TABLE) == 1


def test_every_row_gives_its_reason_and_its_source():
    assert all(row.reason and row.source for row in TABLE)


def test_nothing_but_a_permanent_refusal_of_this_mail_bounces():
    for scope, hardness, hops_left in DOMAIN:
        action = decide(scope, hardness, hops_left=hops_left)
        if action is Action.BOUNCE:
            assert scope in MAIL
            assert hardness in {Hardness.PERMANENT, Hardness.PERMANENT_HERE}
        if action is Action.SECOND_OPINION:
            assert scope in MAIL
            assert (hardness, hops_left) == (Hardness.UNCLEAR, False)


def test_uncertain_mail_never_goes_to_another_hop():
    for scope, hops_left in product(Scope, (True, False)):
        assert decide(scope, Hardness.UNCERTAIN, hops_left=hops_left) is Action.SAME_HOP


def test_no_recipient_is_passed_on_without_a_next_hop():
    for scope, hardness in product(Scope, Hardness):
        assert decide(scope, hardness, hops_left=False) is not Action.NEXT_HOP


def test_only_trouble_of_the_hop_counts_against_its_health():
    for scope, hardness, hops_left in DOMAIN:
        counts = rule(scope, hardness, hops_left=hops_left).breaker
        assert counts == (scope in {Scope.HOST, Scope.PROVIDER} and hardness is not Hardness.UNCERTAIN)


@pytest.mark.parametrize(
    ("phase", "reply", "status", "scope", "with_hop", "without"),
    [
        ("rcpt", "550 5.1.1 no such user", Status.BOUNCED, Scope.RECIPIENT, Action.BOUNCE, Action.BOUNCE),
        ("rcpt", "550 no such user", Status.BOUNCED, Scope.RECIPIENT, Action.BOUNCE, Action.BOUNCE),
        ("rcpt", "552 5.2.2 mailbox full", Status.BOUNCED, Scope.RECIPIENT, Action.BOUNCE, Action.BOUNCE),
        (
            "rcpt",
            "550 5.7.1 we do not like you",
            Status.BOUNCED,
            Scope.RECIPIENT,
            Action.NEXT_HOP,
            Action.SECOND_OPINION,
        ),
        ("rcpt", "450 4.2.0 greylisted", Status.DEFERRED, Scope.RECIPIENT, Action.RETRY, Action.RETRY),
        ("rcpt", "452 4.5.3 too many", Status.DEFERRED, Scope.RECIPIENT, Action.RETRY, Action.RETRY),
        ("rcpt", "552 5.5.3 too many", Status.DEFERRED, Scope.RECIPIENT, Action.RETRY, Action.RETRY),
        ("mail", "553 5.1.8 sender unknown", Status.BOUNCED, Scope.MESSAGE, Action.BOUNCE, Action.BOUNCE),
        ("mail", "530 5.7.0 log in first", Status.DEFERRED, Scope.PROVIDER, Action.NEXT_HOP, Action.RETRY),
        ("mail", "550 5.4.5 daily quota", Status.DEFERRED, Scope.PROVIDER, Action.NEXT_HOP, Action.RETRY),
        ("mail", "452 4.3.1 disk full", Status.DEFERRED, Scope.HOST, Action.NEXT_HOP, Action.RETRY),
        ("mail", "502 5.5.1 no", Status.DEFERRED, Scope.HOST, Action.NEXT_HOP, Action.RETRY),
        ("mail", "451 hm", Status.DEFERRED, Scope.MESSAGE, Action.RETRY, Action.RETRY),
        ("dot", "554 5.6.0 bad content", Status.BOUNCED, Scope.MESSAGE, Action.BOUNCE, Action.BOUNCE),
        ("dot", "552 5.3.4 too big", Status.BOUNCED, Scope.MESSAGE, Action.NEXT_HOP, Action.BOUNCE),
        ("dot", "421 4.3.2 going down", Status.DEFERRED, Scope.HOST, Action.NEXT_HOP, Action.RETRY),
        # Sizes without an enhanced code, or with it elsewhere, are the mail's.
        ("dot", "552 Message too large", Status.BOUNCED, Scope.MESSAGE, Action.NEXT_HOP, Action.BOUNCE),
        ("mail", "552 size (#5.3.4)", Status.BOUNCED, Scope.MESSAGE, Action.NEXT_HOP, Action.BOUNCE),
        # One mail's refusal, however it is coded, and whatever becomes of the session.
        (
            "dot",
            "421 4.7.0 this message is suspicious due to the nature of the content",
            Status.DEFERRED,
            Scope.MESSAGE,
            Action.RETRY,
            Action.RETRY,
        ),
        (
            "dot",
            "421 4.7.1 Messages to bob@example.net deferred due to excessive volume",
            Status.DEFERRED,
            Scope.MESSAGE,
            Action.RETRY,
            Action.RETRY,
        ),
        ("dot", "421 4.7.0 hm", Status.DEFERRED, Scope.MESSAGE, Action.RETRY, Action.RETRY),
        # The sender is not this account's: another provider may know it, whatever the first digit says.
        (
            "mail",
            "501 mail from address must be same as authorization user",
            Status.BOUNCED,
            Scope.MESSAGE,
            Action.NEXT_HOP,
            Action.SECOND_OPINION,
        ),
        (
            "mail",
            "440 mail from account doesn't conform with authentication",
            Status.DEFERRED,
            Scope.MESSAGE,
            Action.NEXT_HOP,
            Action.RETRY,
        ),
        # Our account, our pace, our host: never a bounce.
        (
            "rcpt",
            "504 5.5.2 <vm>: Helo command rejected: need fully-qualified hostname",
            Status.DEFERRED,
            Scope.PROVIDER,
            Action.NEXT_HOP,
            Action.RETRY,
        ),
        ("rcpt", "550 relay not permitted", Status.DEFERRED, Scope.PROVIDER, Action.NEXT_HOP, Action.RETRY),
        (
            "mail",
            "502 5.7.0 not yet activated account: activate your account",
            Status.DEFERRED,
            Scope.PROVIDER,
            Action.NEXT_HOP,
            Action.RETRY,
        ),
        (
            "rcpt",
            "452 4.5.3 You have sent too many messages today",
            Status.DEFERRED,
            Scope.PROVIDER,
            Action.NEXT_HOP,
            Action.RETRY,
        ),
        # It does not say what it is about.
        ("rcpt", "550 no", Status.BOUNCED, Scope.RECIPIENT, Action.NEXT_HOP, Action.SECOND_OPINION),
        (
            "dot",
            "554 failed",
            Status.BOUNCED,
            Scope.MESSAGE,
            Action.NEXT_HOP,
            Action.SECOND_OPINION,
        ),
    ],
)
def test_what_a_reply_means(phase, reply, status, scope, with_hop, without):
    code, _, text = reply.partition(" ")
    judged = judge(Phase(phase), Reply(int(code), (text,)))
    assert judged == (status, scope)
    hardness = Hardness.of(Outcome("bob@example.net", *judged[:1], "hop", reply, scope))
    assert decide(scope, hardness, hops_left=True) is with_hop
    assert decide(scope, hardness, hops_left=False) is without


def test_no_code_at_all_is_judged_to_bounce_where_the_table_would_not():
    for phase, code, detail in product(
        ("mail", "rcpt", "data", "dot"), range(400, 600), ("", "1.1", "3.2", "4.5", "7.8")
    ):
        enhanced = f"{code // 100}.{detail} x" if detail else "x"
        status, scope = judge(Phase(phase), Reply(code, (enhanced,)))
        if status is Status.BOUNCED:
            assert decide(scope, Hardness.PERMANENT, hops_left=False) is Action.BOUNCE


def test_trouble_of_a_hop_says_where_and_when_and_is_what_callers_catch():
    trouble = SessionLost("mx[192.0.2.1]:25", Phase.MAIL, "Connection reset by peer")
    assert str(trouble) == "mx[192.0.2.1]:25: mail: Connection reset by peer"
    assert isinstance(trouble, HopTrouble)
    assert isinstance(trouble, ConnectionError)
    assert trouble.hardness is Hardness.TEMPORARY


def test_success_is_no_trouble():
    with pytest.raises(ValueError, match="sent is not a failure"):
        Hardness.of(Outcome("bob@example.net", Status.SENT, "hop", "250 ok"))
