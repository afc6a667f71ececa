"""Beside what it prints for people, each command has the same for programs, and says what the fields are."""

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from spools.states import Queue
from testbed.relay import Relay

from mailer.cli.main import cli

_STAY = {"up", "serve", "session", "monitor", "receive-moved"}
_OWN_FORMAT = {"completion", "show"}
"""Scripts for a shell; a message, or the configuration, which is JSON without being asked."""


def commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_every_command_that_prints_an_outcome_has_json_and_documents_it() -> None:
    for path, command in commands(cli):
        if path[-1] in _STAY | _OWN_FORMAT:
            continue
        (option,) = (each for each in command.params if "--json" in each.opts)
        assert isinstance(option, click.Option)
        assert ": " in (option.help or "") or "JSON" in (command.help or ""), path


@pytest.fixture
def states(relay: Relay) -> Queue:
    relay.configure(
        {
            "forwardSMTP": True,
            "forwardProviders": [{"host": "a.example", "name": "main"}],
            "usersFile": "users.json",
            "rateLimits": {"enabled": True},
        }
    )
    return Queue(relay.spool)


def test_outcomes_are_objects_with_the_documented_fields(relay: Relay, states: Queue, tmp_path: Path) -> None:
    message = states.new()
    states.hold(message, "later")
    written, all_told = tmp_path / "made.json", []
    for line, given, expected in (
        (f"spool why {message}", "", {"id": message, "state": "hold"}),
        ("top", "", {"paused": False, "providers": [{"name": "main", "health": "in use", "trouble": ""}]}),
        ("pause", "", {"paused": True, "changed": True}),
        ("resume", "", {"paused": False, "changed": True}),
        ("providers reset main", "", {"name": "main", "host": "a.example", "port": 587, "action": "reset"}),
        ("user add shop", "correct horse\n", {"name": "shop", "action": "added"}),
        ("user allow shop a.example", "", {"name": "shop", "allowedSenders": ["*", "a.example"]}),
        ("user check shop", "correct horse\n", {"name": "shop", "right": True}),
        ("user rm shop", "", {"name": "shop", "action": "removed"}),
        ("dkim keygen --domain d.example", "", {"name": "mail._domainkey.d.example"}),
        (
            f"init --local --sender app@example.com --port 2525 --config {written}",
            "",
            {"config": str(written), "port": 2525, "username": "app@example.com", "provider": ""},
        ),
    ):
        done = relay.mailer(*line.split(), "--json", given=given)
        assert done.returncode == 0, (line, done.stderr)
        told = json.loads(done.stdout)
        assert {key: told.get(key) for key in expected} == expected, line
        all_told.append(told)
    assert all_told[0]["verdict"]
    assert [event["event"] for event in all_told[0]["events"]] == ["accepted", "held"]
    assert all_told[1]["queue"]["hold"]["count"] == 1


def test_reload_says_of_each_program_what_became_of_it(relay: Relay) -> None:
    with relay.serve() as receiver:
        relay.configure({"maxRecipients": 7})
        (told,) = map(json.loads, relay.mailer("reload", "--json").stdout.splitlines())
    said = told.pop("said")
    assert told == {"program": "mailer serve", "pid": receiver.pid, "reloaded": True, "restart": []}
    assert str(relay.config) in said
