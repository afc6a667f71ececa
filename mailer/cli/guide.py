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
_SECTION = compile_late(r"^(?=## )", re.MULTILINE)


class Guide(NamedTuple):
    """A guide: a Markdown file named after its topic."""

    topic: str
    text: str

    @property
    def title(self) -> str:
        return self.text.partition("\n")[0].lstrip("#").strip()

    def sections(self) -> list["Guide"]:
        """Return the parts below second-level headings, in order, each with its heading as title."""
        return [Guide(self.topic, text) for text in _SECTION.split(self.text)[1:]]


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
        "mailer guide backup              the section of that name, in whichever guide it is",
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

    A TOPIC may also be a part of a guide's name, or a word in the headings of sections, which are shown then.

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
        for one in chosen:
            sys.stdout.write(json_line({"topic": one.topic, "title": one.title, "text": one.text}))
    elif sys.stdout.isatty():
        click.echo_via_pager(_together(chosen))
    else:
        sys.stdout.write(_together(chosen))
    return Exit.OK


def _chosen(topic: str | None, language: str) -> list[Guide]:
    """Return the guide that is meant, or the sections; all guides without a topic."""
    every = guides(language)
    if topic is None:
        return every
    named = [each for each in every if each.topic == topic.casefold()]
    similar = named or [each for each in every if topic.casefold() in each.topic]
    if len(similar) == 1:
        return similar
    if sections := list(_sections_named(topic, every)):
        return sections
    import shlex  # noqa: PLC0415 - only here

    from mailer.mail.reply import printable  # noqa: PLC0415 - only here

    there = ", ".join(each.topic for each in every)
    word = printable(shlex.quote(topic), 40)
    raise Failure(
        Exit.USAGE,
        f"no guide and no section of one has {word} in its name; there are: {there}. "
        f"`mailer guide --grep {word}` searches their text",
    )


def _sections_named(word: str, every: list[Guide]) -> Iterator[Guide]:
    """Yield the sections with a word in their heading, here or in the English guide ("backup": "Back up")."""
    wanted = _plain(word)
    for english, shown in zip(guides("en"), every, strict=True):
        for heading, section in zip(english.sections(), shown.sections(), strict=True):
            if wanted in _plain(heading.title) or wanted in _plain(section.title):
                yield section


def _plain(text: str) -> str:
    return "".join(text.casefold().split())


def _together(shown: list[Guide]) -> str:
    """Return the text of a guide, or of sections, each with the guide that it is from."""
    if shown[0].text.startswith("# "):
        return shown[0].text
    return "\n\n".join(f"{each.text.rstrip()}\n\n(mailer guide {each.topic})" for each in shown) + "\n"


def _lines(among: list[Guide], word: str) -> Iterator[tuple[Guide, int, str]]:
    for each in among:
        for number, line in enumerate(each.text.splitlines(), start=1):
            if word.casefold() in line.casefold():
                yield each, number, line
