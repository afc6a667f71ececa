"""That every row of the faults is made by some test."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fault_rows import ROWS

TESTS = Path(__file__).parents[1]


def marked() -> Iterator[int]:
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault_row":
                yield from (each.value for each in node.args if isinstance(each, ast.Constant))  # type: ignore[misc]


def test_every_row_is_tried_and_every_mark_names_one() -> None:
    tried = Counter(marked())
    assert list(ROWS) == list(range(1, len(ROWS) + 1))
    assert ROWS.keys() - tried.keys() == set()
    assert tried.keys() - ROWS.keys() == set()
