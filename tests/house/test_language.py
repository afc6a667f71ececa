"""Comments and docstrings of the product are plain English: these idioms have been riddles to readers."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

MAILER = Path(__file__).resolve().parents[2] / "mailer"

RIDDLES = re.compile(
    r"\b(whoever|whomever|no use|left alone|leaves? alone|in hand|for good|so many|aside from"
    r"|nobody would|black hole|the eyes of|is no (work|crowd|reader|address))\b"
)
"""Programs are `it`, not `who`; a number has a name; what is left alone is skipped, paused or kept."""


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each comment and docstring."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        documents = token.type == tokenize.STRING and token.line.lstrip().startswith('"""')
        if documents or token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def riddles(source: str) -> list[str]:
    return [f"{line}: {found[0]}" for line, text in comments(source) for found in RIDDLES.finditer(text)]


@pytest.mark.parametrize("path", sorted(MAILER.rglob("*.py")), ids=lambda path: str(path.relative_to(MAILER)))
def test_comments_have_no_riddles(path: Path) -> None:
    assert riddles(path.read_text(encoding="utf-8")) == []


def test_a_riddle_is_seen() -> None:
    source = '"""A file in hand\nis left alone."""\nx = "in hand"  # by whoever\n'
    assert riddles(source) == ["1: in hand", "1: left alone", "3: whoever"]
