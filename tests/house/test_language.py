"""Comments, messages and documents are plain English: these idioms have been riddles to readers."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

RIDDLES = re.compile(
    r"\b(whoever|whomever|no use|left alone|leaves? alone|in hand|for good|so many|aside from"
    r"|nobody would|black hole|the eyes of"
    r"|(?<!there )(?<!There )(?:is|are) no (?!longer|more|larger|less|later|bigger)[a-z]+)\b"
)
"""Programs are `it`, not `who`; a number has a name; what is left alone is skipped, paused or kept; what
"is no file" is not a file."""


def prose(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each comment, docstring and string of a module."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in {tokenize.STRING, tokenize.COMMENT}:
            yield token.start[0], token.string


def riddles(texts: Iterator[tuple[int, str]]) -> list[str]:
    return [f"{line}: {found[0]}" for line, text in texts for found in RIDDLES.finditer(text)]


def whole(text: str) -> Iterator[tuple[int, str]]:
    return iter(enumerate(text.splitlines(), start=1))


def test_the_product_its_documents_and_scripts_have_no_riddles() -> None:
    modules = sorted((ROOT / "mailer").rglob("*.py"))
    guides = [*(ROOT / "mailer" / "guide").glob("*.md"), *(ROOT / ".github").glob("*.md")]
    readmes = [ROOT / place / "README.md" for place in ("", "mailer", "spool", "tests", "tests/lab")]
    scripts = [path for path in (ROOT / "scripts").iterdir() if path.is_file()]
    assert len(modules) > 400
    assert len(guides) > 20
    found = {path: riddles(prose(path.read_text(encoding="utf-8"))) for path in modules}
    found |= {path: riddles(whole(path.read_text(encoding="utf-8"))) for path in guides + readmes + scripts}
    assert {str(path.relative_to(ROOT)): lines for path, lines in found.items() if lines} == {}


def test_a_riddle_is_seen() -> None:
    source = '"""A file in hand\nis left alone."""\nx = "this is no name"  # by whoever; there is no file\n'
    assert riddles(prose(source)) == ["1: in hand", "1: left alone", "3: is no name", "3: whoever"]
    assert riddles(whole("It is no longer there.\n\nIt is for good.")) == ["3: for good"]
