"""A command imports what it uses: each is typed, completed or asked for by a script many times a day."""

import subprocess
import sys

import pytest
from outbound.sending import SENDER, TO, forward_to, queue
from testbed.relay import Relay

PROGRAM = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
from mailer.cli import main
main()
"""
HEAVY = {
    "aiohttp",
    "aiosmtpd",
    "asyncio",
    "cryptography",
    "dkim",
    "dns",
    "email",
    "filelock",
    "mailer.receive",
    "mailer.send.run",
    "ssl",
}
"""From 10 to 60 ms each, where click and the configuration take 50 with Python itself."""
FOR_ADVICE = {"mailer.send.advice.recipient", "mailer.spool.view.verdict", "unicodedata"}

MODULES = {
    ("spool", "ls"): 245,
    ("spool", "show", "ID"): 235,
    ("spool", "stats"): 240,
    ("providers",): 240,
    ("log",): 235,
}
"""At most; with Python 3.11 and click 8.5 these are 228, 215, 222, 222 and 208."""


def imported(relay: Relay, *command: str) -> set[str]:
    options = () if "--help" in command else ("--config", str(relay.config))
    argv = (sys.executable, "-c", PROGRAM, *command, *options)
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=relay.directory)
    return set(done.stderr.splitlines()[-1].split())


@pytest.fixture
def message(relay: Relay) -> str:
    relay.configure(forward_to(9))
    return queue(relay.spool)


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("command", MODULES, ids=" ".join)
def test_a_look_imports_nothing_that_locks_sends_or_advises(
    relay: Relay, message: str, command: tuple[str, ...]
) -> None:
    loaded = imported(relay, *(message if word == "ID" else word for word in command))
    assert (HEAVY | FOR_ADVICE) & loaded == set()
    assert len(loaded) <= MODULES[command], sorted(loaded)


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    "command", [("spool", "why", "ID"), ("log", "--to", TO), ("explain-trouble",), ("guide",)], ids=" ".join
)
def test_a_verdict_imports_nothing_that_locks_or_sends(
    relay: Relay, message: str, command: tuple[str, ...]
) -> None:
    assert HEAVY & imported(relay, *(message if word == "ID" else word for word in command)) == set()


@pytest.mark.usefixtures("unmeasured", "message")
def test_a_route_by_providers_asks_no_name_server_and_imports_none(relay: Relay) -> None:
    loaded = imported(relay, "route", "--from", SENDER, "--to", TO)
    assert {"dns", "email", "idna", "cryptography"} & loaded == set()


@pytest.mark.usefixtures("unmeasured", "message")
def test_one_message_is_held_without_what_many_are_synced_with(relay: Relay) -> None:
    assert {"asyncio", "ssl"} & imported(relay, "spool", "hold", "--all") == set()


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("group", ["spool", "dkim", "auth", "events"])
def test_the_help_of_a_group_reads_no_configuration(relay: Relay, group: str) -> None:
    assert {"asyncio", "msgspec", "mailer.config"} & imported(relay, group, "--help") == set()
