"""The documents say of each configuration key what the model says, and its meaning is written once."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from mailer.cli.guide import guides
from mailer.cli.keys.reference import Described, Group, Meaning, Source, Text, described, read
from mailer.cli.keys.tables import faults
from mailer.cli.options import LANGUAGES
from mailer.config.key_list import Key, Kind, keys

ROOT = Path(__file__).parents[2]
GUIDES = ["mailer/guide/configuration.md", "mailer/guide/zh-CN/configuration.md"]


def test_every_key_has_a_meaning_in_both_languages() -> None:
    assert list(faults(read(), keys())) == []


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `scripts/keys` needs, as a copy that may be changed."""
    for name in ("mailer", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    # Its environment exists; the module that it runs is the copy, because the working directory comes first.
    (tmp_path / "scripts" / "venv").write_text("#!/bin/sh\n")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def written(checkout: Path, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [checkout / "scripts" / "keys", *options]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_tables_are_those_that_the_model_and_the_meanings_make(checkout: Path) -> None:
    done = written(checkout, "--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_changed_default_is_stale_until_the_tables_are_written(checkout: Path) -> None:
    change(checkout / "mailer/config/hops.py", "concurrency: Count = 20", "concurrency: Count = 21")
    stale = written(checkout, "--check")
    assert stale.returncode == 1
    said = "its table differs from the model and keys.toml; run scripts/keys"
    assert stale.stderr.splitlines() == [f"{guide}: {said}" for guide in GUIDES]
    before = (checkout / GUIDES[0]).read_text()
    assert (written(checkout).returncode, written(checkout, "--check").returncode) == (0, 0)
    row = "| `sending.concurrency` | 1 to 1,000,000 | {} |"
    assert (checkout / GUIDES[0]).read_text() == before.replace(row.format(20), row.format(21))


def test_a_new_key_without_a_meaning_is_an_error_and_nothing_is_written(checkout: Path) -> None:
    change(
        checkout / "mailer/config/hops.py",
        "    concurrency: Count = 20",
        "    hurry: bool = False\n    concurrency: Count = 20",
    )
    before = [(checkout / guide).read_text() for guide in GUIDES]
    refused = written(checkout)
    assert refused.returncode == 1
    assert refused.stderr == (
        "sending.hurry: this key of the model has no meaning; "
        'add [group.key."sending.hurry"] to mailer/guide/keys.toml\n'
    )
    assert [(checkout / guide).read_text() for guide in GUIDES] == before


LIMIT = Key(path="retry.limit", kind=Kind.NUMBER, default=3)
SOUND = Meaning("at most 3 `attempts`", "最多 3 次 `attempts`")


def source(**meanings: Meaning) -> Source:
    keys = {name.replace("_", "."): meaning for name, meaning in meanings.items()}
    return Source({}, [Group("Retries", "重试", keys)])


@pytest.mark.parametrize(
    ("meanings", "fault"),
    [
        ({}, 'retry.limit: this key of the model has no meaning; add [group.key."retry.limit"] to'),
        (
            {"retry_limit": SOUND, "retry_limt": SOUND},
            "retry.limt: mailer/guide/keys.toml has a meaning for it, but the model has no such key",
        ),
        (
            {"retry_limit": Meaning("a", "b", Text("never", "从不"))},
            "retry.limit: unset describes an empty default, and the key is 3 by default; remove unset",
        ),
        (
            {"retry_limit": Meaning("at most `attempts`", "最多次数")},
            "retry.limit: en and zh-CN do not quote the same names",
        ),
        (
            {"retry_limit": Meaning("at most 3", "最多 4 次")},
            "retry.limit: en and zh-CN do not have the same numbers",
        ),
        ({"retry_limit": Meaning("a | b", "甲")}, "retry.limit: a meaning is one line without |"),
        ({"retry_limit": Meaning("the default is 3", "3")}, "retry.limit: the meaning states a default"),
        ({"retry_limit": Meaning("limit", "限制默认为三")}, "retry.limit: the meaning states a default"),
    ],
)
def test_each_fault_of_the_meanings_is_a_sentence(meanings: dict[str, Meaning], fault: str) -> None:
    assert list(faults(source(retry_limit=SOUND), [LIMIT])) == []
    [said] = faults(source(**meanings), [LIMIT])
    assert said.startswith(fault)


def test_a_key_in_two_groups_is_a_fault() -> None:
    once = source(retry_limit=SOUND)
    [said] = faults(msgspec.structs.replace(once, group=[*once.group, *once.group]), [LIMIT])
    assert said == "retry.limit: mailer/guide/keys.toml has it in two groups; remove one"


def named(name: str, every: list[Described]) -> Described:
    """The key that a guide calls `name`, which may leave out the list of providers."""
    paths = {each.key.path: each for each in every}
    return paths.get(name) or paths[f"forwardProviders[].{name}"]


def rows(text: str, head: str) -> Iterator[list[str]]:
    for table in re.findall(rf"^{re.escape(head)}\n\| ---.*\n((?:\|.*\n)+)", text, re.MULTILINE):
        for line in table.splitlines():
            yield [cell.strip() for cell in line.strip("| ").split(" | ")]


_IN_PROSE = re.compile(r"`([\w.\[\]]+)` ?[(（](\d+[a-zA-Z]*)")  # noqa: RUF001 - Chinese


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_default_that_another_guide_names_is_the_models(language: str) -> None:
    """In a table headed `default`, and where a key has its default in brackets."""
    source = read()
    words, every = source.in_language(language), described(language, source)
    head = f"| {words['key']} | {words['default']} | {words['meaning']} |"
    tables = prose = 0
    for guide in guides(language):
        for cells in rows(guide.text, head):
            name, default, _ = cells
            assert named(name.strip("`"), every).default == default, (guide.topic, name)
            tables += 1
        for name, default in _IN_PROSE.findall(guide.text):
            if name in {each.key.path for each in every}:
                assert named(name, every).default == default, (guide.topic, name)
                prose += 1
    assert tables >= 20
    assert prose >= 3


CHOSEN = {
    *("smtpTls", "smtpAuth", "defaultUsername", "defaultPassword"),
    *("directDelivery.ehloDomain", "dkim.domain", "dkim.privateKeyPath", "forwardSMTP"),
    *(f"forwardProviders[].{key}" for key in ("name", "host", "port", "ssl", "username", "password")),
    *(f"forwardProviders[].{key}" for key in ("priority", "weight", "maxSessions", "maxPerMinute")),
    *("tlsPolicies[].destination", "tlsPolicies[].level"),
    *("alerts.queueOlderThan", "alerts.failedMoreThan", "alerts.noRunFor", "alerts.eventsOlderThan"),
}
"""Keys of which `config.example.json` shows another value than the default."""


def leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    match value:
        case {"file": _}:
            yield path, value
        case dict() if value:
            for key, each in value.items():
                yield from leaves(each, f"{path}.{key}" if path else key)
        case [dict(), *_]:
            for each in value:
                yield from leaves(each, f"{path}[]")
        case _:
            yield path, value


def test_the_example_has_the_defaults_of_the_model() -> None:
    model = {key.path: key for key in keys()}
    others = set()
    for path, value in leaves(json.loads((ROOT / "config.example.json").read_text()), ""):
        key = model.get(path) or model[f"{path}[]"]
        if value != key.default and not (value == "" and key.default is None):
            others.add(path)
    assert others == CHOSEN
