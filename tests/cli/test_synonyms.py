"""Operators of other mail servers type other words for the same: they are taken, or answered with ours."""

import click
import pytest

from mailer.cli.synonyms import EVENTS, STATES, Word
from mailer.maillog import ledger
from mailer.spool.scan import QUEUE

STATE, EVENT = Word([*QUEUE, "sent"], STATES), Word(ledger.EVENTS, EVENTS)


@pytest.mark.parametrize(
    ("kind", "typed", "ours"),
    [
        (STATE, "deferred", "retry"),
        (STATE, "Frozen", "hold"),
        (STATE, "delivered", "sent"),
        (STATE, "retry", "retry"),
        (Word(["retry", "hold"], STATES), "undelivered", "retry hold"),
        (STATE, "queued", "new cur retry"),
        (EVENT, "delivered", "sent"),
        (EVENT, "failed", "bounced expired"),
        (EVENT, "BOUNCED", "bounced"),
    ],
)
def test_a_word_of_other_mail_servers_is_taken_or_answered_with_ours(kind, typed, ours):
    option = click.Option(["--state"])
    if " " not in ours:
        assert kind.convert(typed, option, None) == ours
        return
    with pytest.raises(click.BadParameter) as refused:
        kind.convert(typed, option, None)
    assert refused.value.message.partition(": ")[2].split() == " --state ".join(["", *ours.split()]).split()


def test_each_synonym_means_words_of_ours_and_is_none_itself():
    for synonyms, known in ((STATES, {*QUEUE, "sent"}), (EVENTS, set(ledger.EVENTS))):
        assert {word for words in synonyms.values() for word in words} <= known
        assert not synonyms.keys() & known


def test_an_unknown_word_is_refused_with_the_list_of_ours():
    with pytest.raises(click.BadParameter, match=r"'new'.*'corrupt'"):
        STATE.convert("lost", click.Option(["--state"]), None)
