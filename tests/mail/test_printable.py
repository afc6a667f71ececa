"""Control characters that others wrote, and marks that turn text, reach no terminal (security case 113)."""

import json
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from testbed.relay import Relay

from mailer.mail import clock
from mailer.mail.patterns import AddressPatterns
from mailer.mail.reply import printable, printable_json
from mailer.maillog.ledger import Line, encode

HOSTILE = "\x1b[2J\x9b31m\u202egpj.exe\u2066\u200f\ufeff"


def obeyed(text: str) -> set[str]:
    return {character for character in text if unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp"}}


@given(st.text())
def test_json_stays_the_same_value_and_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    for written in (json.dumps(text, ensure_ascii=False), json.dumps({text: [text]}, ensure_ascii=False)):
        shown = printable_json(written)
        assert json.loads(shown) == json.loads(written)
        assert obeyed(shown) == set()
    assert obeyed(printable(text)) == set()


@pytest.mark.security_case(113)
def test_what_a_client_or_an_operator_wrote_is_escaped_wherever_it_is_printed(relay: Relay) -> None:
    assert relay.mailer_send("--once").returncode == 0
    assert relay.mailer("pause", "--reason", HOSTILE).returncode == 0
    sent_by = Line(at=clock.rfc3339(time.time()), event="rejected", sender=HOSTILE, reply=HOSTILE)
    [day] = (relay.spool / "log").glob("*.jsonl")
    with day.open("ab") as ledger:
        ledger.write(encode(sent_by))
    for command in (["log"], ["log", "--json"], ["spool", "ls"], ["send", "--dry-run"]):
        done = relay.mailer(*command)
        assert done.returncode == 0, done.stderr
        assert obeyed(done.stdout + done.stderr) <= {"\n"}, command
    lines = [json.loads(line) for line in relay.mailer("log", "--json").stdout.splitlines()]
    assert (lines[0]["reason"], lines[1]["from"]) == (printable(HOSTILE), HOSTILE)


@pytest.mark.security_case(112)
@pytest.mark.parametrize("address", ["\u212a@example.com", "BO\u212a@example.com", "bob@\u0131.example"])
def test_a_pattern_means_no_other_letter_than_it_has(address: str) -> None:
    """Security case 112: the lower case of KELVIN SIGN is a plain k; in a domain DNS makes it one, too."""
    patterns = AddressPatterns.of(("k@example.com", "bok@example.com", "k.example", "i.example"))
    assert not patterns.match(address)
    assert patterns.match("K@Example.COM")
    assert patterns.match("x@K.example")
    assert patterns.match("x@\u212a.example")
