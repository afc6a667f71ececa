"""The manual pages: man(1) shows them without a complaint, and they say what `--help` says."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from testbed.tools import program

from mailer.cli.main import cli
from mailer.cli.manual import roff
from mailer.cli.manual.pages import pages
from mailer.cli.send import send
from mailer.sendmail.usage import HELP

NAMES = {"mailer.1", "mailer-send.1", "mailer-sendmail.8", "mailer.config.5"}


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages as `scripts/install` has them printed."""
    into = tmp_path_factory.mktemp("man")
    for name in NAMES:
        with (into / name).open("wb") as page:
            subprocess.run([sys.executable, "-m", "mailer.cli.manual", name], check=True, stdout=page)
    return {name: into / name for name in NAMES}


def shown(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    wide = {**os.environ, "MANWIDTH": "200", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [program("man"), *options, "-l", page], check=True, capture_output=True, text=True, env=wide
    )


def test_a_page_that_is_not_there_is_a_usage_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mailer.cli.manual", "mailer.8"], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert set(done.stderr.removeprefix("name one of ").strip().split(", ")) == NAMES == pages().keys()


@pytest.mark.parametrize("name", sorted(NAMES))
def test_man_formats_a_page_without_a_warning_and_apropos_can_find_it(
    manual: dict[str, Path], name: str
) -> None:
    assert shown(manual[name], "--warnings", "-Tutf8", "-Z").stderr == ""
    found = subprocess.run(
        [program("lexgrog"), manual[name]], check=True, capture_output=True, text=True
    ).stdout
    assert re.search(rf': "{re.escape(name[:-2])} - \w', found)


def test_every_command_is_there_with_its_options_and_its_words(manual: dict[str, Path]) -> None:
    text = squeezed(shown(manual["mailer.1"]).stdout)
    for path, command in below(cli, "mailer"):
        assert squeezed(path) in text
        for said in words_of(command):
            assert squeezed(said) in text, path
    text = squeezed(shown(manual["mailer-send.1"]).stdout)
    for said in words_of(send):
        assert squeezed(said) in text


def squeezed(text: str) -> str:
    """Without blanks, since lines end elsewhere on a page, and without the marks that become bold there."""
    return "".join(text.split()).replace("`", "")


def below(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            inner = command.get_command(click.Context(command), name)
            assert inner is not None
            if not inner.hidden:
                yield from below(inner, f"{path} {name}")


def words_of(command: click.Command) -> Iterator[str]:
    """The first line of its help, and its options with their help."""
    yield (command.help or "").partition("\n")[0]
    context = click.Context(command)
    for option in command.get_params(context):
        if record := option.get_help_record(context):
            yield " ".join(record)


def test_sendmails_page_has_its_options_and_the_configurations_page_its_keys(
    manual: dict[str, Path],
) -> None:
    text = squeezed(shown(manual["mailer-sendmail.8"]).stdout).casefold()
    for line in HELP.splitlines():
        assert squeezed(line.removeprefix("Usage:").removesuffix(":")).casefold() in text
    text = shown(manual["mailer.config.5"]).stdout
    assert re.search(r"^ +spoolDir\n +a directory of its own.*Default: spool\.", text, re.MULTILINE)
    assert "`" not in text


def test_what_troff_would_take_for_its_own_is_shown() -> None:
    assert roff.escape(".so /etc/passwd") == r"\&.so /etc/passwd"
    assert roff.escape("one\n'two\\n") == "one\n\\&'two\\en"
    assert roff.of_markdown("A **word** and `--key`, see [here](x.md).") == (
        ".PP\nA \\fBword\\fR and \\fB\\-\\-key\\fR, see here.\n"
    )
