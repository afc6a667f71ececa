"""`mailer guide`: print the guides that are installed with mailer, on the server where they are needed."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_option, examples, json_of, language_option, preferred_language
from mailer.cli.output import end_with_the_pipe, json_line
from mailer.mail.lazy_pattern import compile_late

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_SHELF = Path(__file__).parents[1] / "guide"
_DIRECTORIES = {"en": _SHELF, "zh-CN": _SHELF / "zh-CN"}
_COMMENT = compile_late(r"^<!--.*-->\n+", re.MULTILINE)
"""For those who edit the file."""


class Guide(NamedTuple):
    """A guide: a Markdown file named after its topic."""

    topic: str
    text: str

    @property
    def title(self) -> str:
        return self.text.partition("\n")[0].removeprefix("# ")


def guides(language: str) -> list[Guide]:
    """Return all guides in `en` or `zh-CN`, by topic, without the comments in them."""
    paths = sorted(_DIRECTORIES[language].glob("*.md"))
    return [
        Guide(path.stem, _COMMENT.sub("", path.read_text("utf-8"))) for path in paths if path.stem != "README"
    ]


def _topics(_: click.Context, __: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only for a Tab

    return [
        CompletionItem(each.topic, help=each.title)
        for each in guides(preferred_language())
        if each.topic.startswith(incomplete)
    ]


@click.command(
    epilog=examples(
        "mailer guide                     the topics",
        "mailer guide microsoft365        from nothing to the first delivered mail",
        "mailer guide troubleshooting | less",
        "mailer guide --grep 5.7.139      which guide has this word, and where",
        "mailer guide --language zh-CN dkim",
    )
)
@click.argument("topic", required=False, shell_complete=_topics)
@click.option("--grep", "word", metavar="WORD", help="Print the lines that contain WORD, whatever its case.")
@language_option
@json_of("topic, title; of a TOPIC the text, too; with --grep topic, line, text")
@config_option
def guide(topic: str | None, *, word: str | None, language: str | None, as_json: bool) -> Exit:
    """Read a guide: how to set something up, step by step; without TOPIC list them.

    On a terminal the guide is shown page by page ($PAGER, or less); otherwise its Markdown is written as is.
    With --grep the exit code is 1 when no line contains the word.
    """
    end_with_the_pipe()
    chosen = _chosen(topic, language or preferred_language())
    if word is not None:
        found = list(_lines(chosen, word))
        for each, number, line in found:
            told: dict[str, object] = {"topic": each.topic, "line": number, "text": line}
            sys.stdout.write(json_line(told) if as_json else f"{each.topic}:{number}: {line}\n")
        return Exit.OK if found else Exit.FINDINGS
    if topic is None:
        for each in chosen:
            said: dict[str, object] = {"topic": each.topic, "title": each.title}
            sys.stdout.write(json_line(said) if as_json else f"{each.topic:16} {each.title}\n")
    elif as_json:
        [one] = chosen
        sys.stdout.write(json_line({"topic": one.topic, "title": one.title, "text": one.text}))
    elif sys.stdout.isatty():
        click.echo_via_pager(chosen[0].text)
    else:
        sys.stdout.write(chosen[0].text)
    return Exit.OK


def _chosen(topic: str | None, language: str) -> list[Guide]:
    every = guides(language)
    chosen = [each for each in every if topic is None or each.topic == topic]
    if not chosen:
        there = ", ".join(each.topic for each in every)
        raise Failure(Exit.USAGE, f"there is no guide of that name; there are: {there}")
    return chosen


def _lines(among: list[Guide], word: str) -> Iterator[tuple[Guide, int, str]]:
    for each in among:
        for number, line in enumerate(each.text.splitlines(), start=1):
            if word.casefold() in line.casefold():
                yield each, number, line
