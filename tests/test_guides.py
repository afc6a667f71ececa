"""The guides can be followed: each configuration in them can be used, each command can be typed."""

import json
import re
import shlex
from pathlib import Path

import click
import pytest
from hatchling.builders.wheel import WheelBuilder
from receiving import issue_certificate
from testbed.relay import Relay
from testbed.terminal import Terminal
from testbed.tools import program
from testbed.waiting import until

from mailer.cli.guide import Guide, guides
from mailer.cli.main import cli

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(?:sudo )?(mailer [^`]*)`")
GUIDES = {each.topic: each for each in guides()}


def blocks(guide: Guide, language: str) -> list[str]:
    return [text for kind, text in _BLOCK.findall(guide.text) if kind == language]


CONFIGURATIONS = [(topic, text) for topic, guide in GUIDES.items() for text in blocks(guide, "json")]
COMMANDS = [
    line.removeprefix("sudo ")
    for guide in GUIDES.values()
    for block in blocks(guide, "sh")
    for line in block.splitlines()
]


def test_the_wheel_has_the_guides() -> None:
    shipped = WheelBuilder(str(Path(__file__).parents[1])).recurse_included_files()
    assert {f"mailer/guide/{topic}.md" for topic in GUIDES} <= {each.distribution_path for each in shipped}


def test_the_first_topics_are_there_and_each_block_is_looked_at() -> None:
    assert {"microsoft365", "google", "printer"} <= GUIDES.keys()
    for guide in GUIDES.values():
        assert guide.text.startswith("# ")
        assert guide.text.count("```") == 2 * len(_BLOCK.findall(guide.text)), guide.topic
        assert blocks(guide, "json")
        assert {kind for kind, _ in _BLOCK.findall(guide.text)} <= {"json", "sh", "powershell", "ini"}


def files(value: object) -> list[str]:
    """The files that a configuration names."""
    match value:
        case {"file": str(path)}:
            return [path]
        case dict():
            paths = [path for key, path in value.items() if key in {"certificatePath", "privateKeyPath"}]
            return paths + [path for each in value.values() for path in files(each)]
        case list():
            return [path for each in value for path in files(each)]
    return []


@pytest.mark.parametrize(("topic", "text"), CONFIGURATIONS)
def test_a_configuration_in_a_guide_can_be_used(
    relay: Relay, elsewhere: str, tmp_path_factory: pytest.TempPathFactory, topic: str, text: str
) -> None:
    """Beside what `mailer init` writes, with the files put in place, and without a word of warning."""
    made = dict(zip((".pem", ".key"), issue_certificate(tmp_path_factory.mktemp("tls")), strict=True))
    keys = json.loads(text.replace("10.7.0.1", elsewhere))
    for path in files(keys):
        target = relay.directory / path
        target.parent.mkdir(exist_ok=True)
        source = made.get(target.suffix)
        target.touch(mode=0o600)
        target.write_bytes(source.read_bytes() if source else b"kq3X-9vT_aL2")
    relay.configure({"forwardSMTP": True, "forwardProviders": [{"host": "smtp.example.com"}], **keys})
    if topic == "printer":
        [add] = [line for line in COMMANDS if line.startswith("mailer user add")]
        assert relay.mailer(*add.split()[1:], given="kq3X-9vT_aL2\n").returncode == 0
    done = relay.mailer("config", "check", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["errors"], told["warnings"]) == (0, [], []), topic


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("mailer")])
def test_a_command_in_a_guide_can_be_typed(line: str) -> None:
    parse(shlex.split(line)[1:])


def test_a_command_within_a_sentence_is_one() -> None:
    for guide in GUIDES.values():
        for words in _INLINE.findall(" ".join(guide.text.split())):
            command, arguments = cli, words.split()[1:]
            while (
                isinstance(command, click.Group)
                and arguments
                and arguments[0] in command.list_commands(click.Context(command))
            ):
                command = command.get_command(click.Context(command), arguments.pop(0))  # type: ignore[assignment]
            assert command is not cli, words


def parse(arguments: list[str]) -> None:
    """Read a command line as click does, and run nothing."""
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and arguments:
        name, found, rest = command.resolve_command(context, arguments)
        assert name
        assert found
        command, arguments = found, rest
        if not isinstance(command, click.Group):
            command.make_context(name, arguments, parent=context)


def test_a_wrong_command_would_be_found() -> None:
    with pytest.raises(click.UsageError):
        parse(["spool", "retry", "--everything"])
    with pytest.raises(click.UsageError):
        parse(["spool", "rtry"])


def test_guides_are_listed_shown_and_searched(relay: Relay) -> None:
    listed = relay.mailer("guide").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [*GUIDES]
    assert relay.mailer("guide", "printer").stdout == GUIDES["printer"].text
    shown = json.loads(relay.mailer("guide", "google", "--json").stdout)
    assert shown["text"] == GUIDES["google"].text
    hits = list(map(json.loads, relay.mailer("guide", "--grep", "sendasapp", "--json").stdout.splitlines()))
    assert {hit["topic"] for hit in hits} == {"microsoft365"}
    assert all("SMTP.SendAsApp" in hit["text"] for hit in hits)
    assert relay.mailer("guide", "--grep", "no such word at all").returncode == 1
    unknown = relay.mailer("guide", "exim")
    assert unknown.returncode == 2
    assert "google, microsoft365, printer" in unknown.stderr


def test_at_a_terminal_a_guide_is_paged(relay: Relay) -> None:
    argv = [program("mailer"), "guide", "printer"]
    with Terminal(argv, env={"PAGER": "sed s/^/page:/"}, cwd=relay.directory) as terminal:
        until(lambda: "page:# Printer" in terminal.screen(), "the guide's first line, from the pager")
