"""The guides can be followed: each configuration in them can be used, each command can be typed."""

import json
import re
import shlex
from pathlib import Path

import click
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hatchling.builders.wheel import WheelBuilder
from inbound.receiving import issue_certificate
from testbed.relay import Relay
from testbed.terminal import Terminal
from testbed.tools import program
from testbed.waiting import until

from mailer.cli.guide import Guide, guides
from mailer.cli.main import arguments_of_today, cli
from mailer.cli.send import send
from mailer.sendmail import arguments as sendmail

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(?:sudo )?(mailer [^`]*)`")
_COMMENT = re.compile(r"\s+# .*")
GUIDES = {each.topic: each for each in guides("en")}
CHINESE = {each.topic: each for each in guides("zh-CN")}


def blocks(guide: Guide, language: str) -> list[str]:
    return [text for kind, text in _BLOCK.findall(guide.text) if kind == language]


def commands(guide: Guide) -> list[str]:
    """What the guide has its reader type, without `sudo` and what is said beside it."""
    lines = (line for block in blocks(guide, "sh") for line in block.splitlines() if line)
    return [_COMMENT.sub("", line.removeprefix("sudo ")) for line in lines]


ROOT = Path(__file__).parents[2]
UNITS = {each.name for each in (ROOT / "systemd").iterdir()}
CONFIGURATIONS = [(topic, text) for topic, guide in GUIDES.items() for text in blocks(guide, "json")]
COMMANDS = sorted({line for guide in GUIDES.values() for line in commands(guide)})


def test_the_wheel_has_the_guides_and_the_meanings_of_keys() -> None:
    shipped = WheelBuilder(str(ROOT)).recurse_included_files()
    both = {f"mailer/guide/{place}{topic}.md" for topic in GUIDES for place in ("", "zh-CN/")}
    assert both | {"mailer/guide/keys.toml"} <= {each.distribution_path for each in shipped}


def test_the_usual_topics_are_there_and_each_block_is_looked_at() -> None:
    assert {
        *("deployment", "direct-delivery", "configuration", "dkim", "performance", "troubleshooting"),
        *("microsoft365", "google", "ses", "aliyun", "qq", "printer"),
        *("staging", "monitoring", "from-go", "from-postfix", "from-msmtp"),
    } <= GUIDES.keys()
    for guide in GUIDES.values():
        assert guide.text.startswith("# ")
        assert "<!--" not in guide.text
        assert guide.text.count("```") == 2 * len(_BLOCK.findall(guide.text)), guide.topic
        assert blocks(guide, "json") or blocks(guide, "sh")
        assert {kind for kind, _ in _BLOCK.findall(guide.text)} <= {"json", "sh", "powershell", "ini", "cron"}


def test_a_guide_that_another_names_is_there() -> None:
    for guide in GUIDES.values():
        named = set(re.findall(r"`mailer guide ([a-z0-9-]+)`", " ".join(guide.text.split())))
        assert named <= GUIDES.keys(), guide.topic


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
    """Beside what `mailer init` writes, with the guide's files and users in place, and without a warning."""
    chain, key = issue_certificate(tmp_path_factory.mktemp("tls"))
    contents = {".pem": chain.read_bytes(), ".key": key.read_bytes(), ".private": signing_key()}
    keys = json.loads(text.replace("10.7.0.1", elsewhere).replace("/run/mailer", str(relay.directory)))
    # What dkim.privateKeyPath is where it is not written.
    for path in [*files(keys), *(["keys/example.com/mail.private"] if "dkim" in keys else [])]:
        target = relay.directory / path
        target.parent.mkdir(exist_ok=True, parents=True)
        target.touch(mode=0o600)
        target.write_bytes(contents.get(target.suffix, b"kq3X-9vT_aL2"))
    relay.configure({"forwardSMTP": True, "forwardProviders": [{"host": "smtp.example.com"}], **keys})
    for line in commands(GUIDES[topic]) if "user" in text else ():
        if line.startswith("mailer user add"):
            assert relay.mailer(*line.split()[1:], given="kq3X-9vT_aL2\n").returncode == 0
    done = relay.mailer("config", "check", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["errors"], told["warnings"]) == (0, [], []), topic


def signing_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_in_a_guide_can_be_typed(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("unsubscribed.txt", "mail.eml"):
        Path(name).touch()
    for command in line.split(" | "):
        program, *arguments = shlex.split(command.partition(" > ")[0])
        match program:
            case "mailer":
                parse(arguments_of_today(arguments))
            case "mailer-send":
                send.make_context(program, arguments)
            case "mailer-sendmail":
                sendmail.parse([program, *arguments])
            case _ if program.startswith("scripts/"):
                options = {each for each in arguments if each.startswith("--")}
                assert options <= set((ROOT / program).read_text().split()), line
            case "systemctl":
                units = {word for word in arguments[1:] if not word.startswith("--")}
                assert units <= UNITS | {unit.partition(".")[0] for unit in UNITS} | {"postfix"}, line


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
            with command.make_context(name, arguments, parent=context):
                pass


@pytest.mark.parametrize("topic", GUIDES)
def test_the_chinese_guide_says_the_same(topic: str) -> None:
    """The same configurations, commands and tables, and the same names of keys, commands and replies."""
    here, there = GUIDES[topic], CHINESE[topic]
    for language in ("json", "ini", "cron", "powershell"):
        assert blocks(there, language) == blocks(here, language)
    assert commands(there) == commands(here)
    assert _headings(there.text) == _headings(here.text)
    assert there.text.count("\n|") == here.text.count("\n|")
    assert _quoted(there.text) == _quoted(here.text)


def _headings(text: str) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]


def _quoted(text: str) -> set[str]:
    plain = _BLOCK.sub("", text)
    return {" ".join(each.split()) for each in re.findall(r"`([^`]+)`", plain)}


def test_the_chinese_readme_has_the_same_commands() -> None:
    """In indented blocks, where a comment stands after two blanks."""
    command = re.compile(r"^ {4}((?:scripts/|\.venv/|mailer|systemctl).*?)(?: {2,}.*)?$", re.MULTILINE)
    readmes = (ROOT / "README.md", ROOT / "mailer" / "guide" / "zh-CN" / "README.md")
    here, there = (command.findall(readme.read_text()) for readme in readmes)
    assert len(here) > 15
    assert there == here


def test_the_readme_links_every_guide_and_nothing_that_is_not_there() -> None:
    readmes = (ROOT / "README.md", ROOT / "mailer" / "guide" / "zh-CN" / "README.md")
    for readme, shelf in zip(readmes, (ROOT / "mailer" / "guide", readmes[1].parent), strict=True):
        targets = [
            (readme.parent / link).resolve() for link in re.findall(r"\]\(([^)#:]+)\)", readme.read_text())
        ]
        assert [target for target in targets if not target.exists()] == []
        assert {shelf / f"{topic}.md" for topic in GUIDES} <= set(targets)


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
    assert (
        relay.mailer("guide", "printer", under=("env", "LC_ALL=zh_CN.UTF-8")).stdout
        == CHINESE["printer"].text
    )
    assert relay.mailer("guide", "printer", "--language", "zh-CN").stdout == CHINESE["printer"].text
    unknown = relay.mailer("guide", "exim")
    assert unknown.returncode == 2
    assert ", microsoft365, " in unknown.stderr
    assert "mailer guide --grep exim" in unknown.stderr


@pytest.mark.parametrize(
    ("word", "topic", "heading"),
    [
        ("Postfix", "from-postfix", "# From Postfix"),
        ("365", "microsoft365", "# Microsoft 365"),
        ("backup", "deployment", "## Back up and restore\n"),
        ("upgrade", "deployment", "## Upgrade, and go back\n"),
        ("container", "deployment", "## In a container\n"),
        ("oauth", "providers", "## OAuth 2.0\n"),
    ],
)
def test_a_guide_is_found_by_a_part_of_its_name_or_by_the_heading_of_a_section(
    relay: Relay, word: str, topic: str, heading: str
) -> None:
    shown = relay.mailer("guide", word, "--language", "en").stdout
    assert shown.startswith(heading)
    topics = [json.loads(line)["topic"] for line in relay.mailer("guide", word, "--json").stdout.splitlines()]
    if heading.startswith("# "):
        assert shown == GUIDES[topic].text
    else:
        assert shown.endswith(f"\n(mailer guide {topic})\n")
        assert len(shown) < len(GUIDES[topic].text)
        there = relay.mailer("guide", word, "--language", "zh-CN").stdout
        assert there.count("\n## ") == shown.count("\n## ")
    assert topics == [topic]


def test_the_chinese_readme_has_the_same_sections_and_tables() -> None:
    here, there = ((ROOT / place / "README.md").read_text() for place in ("", "mailer/guide/zh-CN"))
    for form in (r"^#+ ", r"^\|", r"^ {4}\S", r"^\d\. ", r"^- "):
        count = [len(re.findall(form, text, re.MULTILINE)) for text in (here, there)]
        assert count[0] == count[1] > 0, form


def test_at_a_terminal_a_guide_is_paged(relay: Relay) -> None:
    argv = [program("mailer"), "guide", "printer"]
    with Terminal(argv, env={"PAGER": "sed s/^/page:/"}, cwd=relay.directory) as terminal:
        until(lambda: "page:# Printer" in terminal.screen(), "the guide's first line, from the pager")
