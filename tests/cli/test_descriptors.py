"""A program that may have too few descriptors says so and ends; it is no defect, and no mail is lost."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from signal import SIGTERM

import pytest
from spools.walk import walk
from testbed.forked import Program, Spec
from testbed.relay import USERNAME, Relay
from testbed.waiting import until

from mailer.cli.exits import Exit

TO = "bob@example.net"
BEGUN = ("listening", "delivered")
"""What a program says that has descriptors enough."""
WAITS = "the spool cannot be read or written; waiting"
"""What one says that stays, and tries again."""


@pytest.mark.parametrize(
    "argv",
    [("mailer", "serve"), ("mailer-send", "--once", "-v"), ("mailer-send", "--watch"), ("mailer", "monitor")],
    ids=" ".join,
)
def test_a_program_with_too_few_descriptors_ends_in_words_and_loses_nothing(
    relay: Relay, argv: Sequence[str], tmp_path: Path
) -> None:
    """At every limit below what it needs, wherever the one that is too many is opened."""
    relay.configure({"enableHealthCheck": True, "healthCheckPort": relay.http_port})
    with relay.serve(), relay.connect() as client:
        client.sendmail(USERNAME, TO, "From: app@example.com\r\n\r\nhello\r\n")
    ends: list[tuple[int, int, str]] = []
    for most in range(6, 100):
        spec = Spec(
            argv, tmp_path, tmp_path / str(most), {"MAILER_CONFIG": str(relay.config)}, descriptors=most
        )
        with Program(spec) as program:
            until(partial(_is_known, program), "the program to begin, or to end")
            if _begun(program):
                break
            if WAITS in program.said:
                program.signal(SIGTERM)
                assert program.wait() == 0
                continue
            said = program.said
            ends.append((most, program.wait(), said))
        assert len(walk(relay.spool, ("new", "cur"))) == 1
    assert len(ends) > 5
    assert [end for end in ends if end[1:] != (Exit.TEMPORARY, _words(argv[0], end[2]))] == []


def _words(name: str, said: str) -> str:
    """Return the one line that there is to be, about whichever file it is."""
    words = rf"{name}: ([^:\n]+: )?Too many open files; .*\n|stopped: .* error=\"Too many open files\"\n"
    return said if re.fullmatch(words, said) else ""


def _is_known(program: Program) -> bool:
    return _begun(program) or WAITS in program.said or not program.running


def _begun(program: Program) -> bool:
    return any(word in program.said for word in BEGUN)
