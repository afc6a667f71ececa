"""At Tab the shell offers what is there: ids, providers, users; it is silent when that cannot be read."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from spools.states import Queue
from testbed.relay import Relay
from testbed.terminal import Terminal
from testbed.tools import program

from mailer.cli import arguments

_LINE_START, _LINE_END, _CLEAR = "\x01", "\x05", "\x15"


@pytest.fixture
def queue(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> Queue:
    relay.configure(
        {
            "forwardProviders": [{"host": "a.example", "name": "My relay"}, {"host": "backup.example.net"}],
            "usersFile": "users.json",
        }
    )
    monkeypatch.setenv("MAILER_CONFIG", str(relay.config))
    relay.mailer("user", "token", "shop", "--allow", "*")
    relay.mailer("user", "allow", "shop", "shop.example.com")
    return Queue(relay.spool)


def files(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*")}


@pytest.fixture
def bash(relay: Relay, queue: Queue) -> Iterator[Terminal]:
    inputrc = relay.directory / "inputrc"
    inputrc.write_text("set enable-bracketed-paste off\n")
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MAILER_CONFIG": str(relay.config),
        "HISTFILE": "",
        "INPUTRC": str(inputrc),
    }
    with Terminal([program("bash"), "--norc", "-i"], env=environment, cwd=relay.directory) as terminal:
        terminal.press('eval "$(mailer completion bash)"; echo $((7*6))\n')
        terminal.await_text("\n42\r\n")
        yield terminal


def completed(bash: Terminal, line: str, last: str) -> None:
    """Type a line and Tab, have bash print the words instead of running them, and await the last one."""
    bash.press(f"{line}\t{_LINE_START}printf '<%s>' {_LINE_END}\n")
    bash.await_text(f"><{last}>")


def test_bash_completes_values_and_nothing_is_written(relay: Relay, queue: Queue, bash: Terminal) -> None:
    waiting, held = queue.new(), queue.new()
    queue.hold(held, "later")
    gone = queue.new()
    assert relay.mailer("spool", "rm", gone).returncode == 0
    before = files(relay.directory)
    for line, last in (
        (f"mailer spool hold {waiting[:-2].lower()}", waiting),
        ("mailer spool release ", held),
        (f"mailer spool why {held[:-1]}", held),
        (f"mailer log --id {gone[:-1]}", gone),
        ("mailer providers reset My", "My relay"),
        ("mailer test --provider ba", "backup.example.net"),
        ("mailer user rm s", "shop"),
        ("mailer user deny shop shop.", "shop.example.com"),
        ("mailer spool ls --state fai", "failed"),
        ("mailer log --status unc", "uncertain"),
        ("mailer config keys retry.m", "retry.maxAge"),
    ):
        completed(bash, line, last)
    assert files(relay.directory) == before
    bash.press("export MAILER_CONFIG=/nonexistent\n")
    completed(bash, "mailer spool why 01J", "01J")
    completed(bash, "mailer user rm s", "s")
    assert "nonexistent:" not in bash.screen()


def test_all_that_is_queued_has_in_common_what_the_offered_ids_have(
    relay: Relay,
    queue: Queue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A shell types what all that is offered has in common: with some left out that must not grow."""
    monkeypatch.setattr(arguments, "_MOST", 3)
    at_tab = click.Context(click.Command("why"))
    made = sorted(queue.new(received=1e9 + 1e7 * each) for each in range(8))
    offered = arguments.message_ids(at_tab, "")
    assert offered == [made[7], made[6], made[0]]
    assert arguments.message_ids(at_tab, made[3].lower()) == [made[3]]
    assert arguments.message_ids(at_tab, "") == offered


@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ("zsh", {"COMP_WORDS": "mailer providers reset M", "COMP_CWORD": "3"}),
        ("fish", {"COMP_WORDS": "mailer providers reset M", "COMP_CWORD": "M"}),
    ],
)
def test_zsh_and_fish_get_names_as_they_are_for_they_quote_them(
    relay: Relay,
    queue: Queue,
    monkeypatch: pytest.MonkeyPatch,
    shell: str,
    words: dict[str, str],
) -> None:
    for name, value in (words | {"_MAILER_COMPLETE": f"{shell}_complete"}).items():
        monkeypatch.setenv(name, value)
    said = relay.mailer()
    assert said.stderr == ""
    assert "My relay" in said.stdout.replace(",", "\n").splitlines()
