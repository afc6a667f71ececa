"""Operators of other mail servers type other words for the same: they are taken, or answered with ours."""

import click
import pytest
from click.testing import CliRunner

from mailer.cli.main import cli
from mailer.cli.similar import similar
from mailer.cli.synonyms import COMMANDS, EVENTS, STATES, Word
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


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("mailq", "`mailer spool ls`"),
        ("Queue", "`mailer spool ls`"),
        ("ls", "`mailer spool ls`"),
        ("status", "`mailer spool ls` or `mailer top` or `mailer doctor`"),
        ("doctr", "`mailer doctor`"),
        ("spool list", "`mailer spool ls`"),
        ("spool lst", "`mailer spool ls`"),
        ("suppress delete", "`mailer suppress rm`"),
        ("spool doctor", "`mailer doctor`"),
    ],
)
def test_an_unknown_command_is_answered_with_the_ones_that_may_be_meant(typed, meant):
    done = CliRunner().invoke(cli, typed.split(), prog_name="mailer")
    assert done.exit_code == 2
    assert f"No such command '{typed.split()[-1]}'. Did you mean {meant}" in done.output


def test_a_word_like_none_of_ours_is_an_error_without_a_proposal():
    done = CliRunner().invoke(cli, ["xyzzy"], prog_name="mailer")
    assert "No such command 'xyzzy'." in done.output
    assert "mean" not in done.output


def test_each_word_for_a_command_means_commands_that_are_there():
    with click.Context(cli, info_name="mailer") as ctx:
        for word, meanings in COMMANDS.items():
            assert word not in cli.list_commands(ctx)
            for meaning in meanings:
                words = [each for each in meaning.split() if not each.startswith("-")]
                found = cli
                for each in words:
                    found = found.get_command(ctx, each)
                    assert found is not None, meaning
            assert similar(word, ctx)
