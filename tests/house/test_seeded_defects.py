"""The seeded defects fit the product, the page of results is about them, and the harness works."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from seeded_defects.__main__ import PAGE, ROOT, copy_of_the_product, plant_and_run
from seeded_defects.catalogue import DEFECTS, Defect

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_fits_the_product(defect: Defect) -> None:
    """Its text is there once, what takes its place is Python, and the tests that are to catch it exist."""
    planted = defect.plant((ROOT / "mailer" / defect.module).read_text(encoding="utf-8"))
    compile(planted, defect.module, "exec")
    for name in defect.tests:
        file, _, function = name.partition("::")
        assert f"def {function or 'test_'}" in (TESTS / file).read_text(encoding="utf-8")


def test_the_page_shows_that_every_defect_was_caught_as_it_is_now() -> None:
    """A new or changed defect needs a run of scripts/defects."""
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")][2:]
    shown = [(row[0].removeprefix("| "), row[-1].removesuffix(" |")) for row in rows]
    assert shown == [(defect.name, defect.digest) for defect in DEFECTS]
    assert [row for row in rows if "/test_" not in row[2]] == []


def test_a_defect_is_caught_and_a_harmless_change_is_not() -> None:
    [defect] = [one for one in DEFECTS if one.name == "acts-as-another"]
    harmless = replace(defect, broken=f"{defect.sound}  # planted")
    module = ROOT / "mailer" / defect.module
    before = module.read_bytes()
    with copy_of_the_product() as copy:
        assert plant_and_run(copy, defect).caught_by == defect.tests[0]
        assert plant_and_run(copy, harmless).caught_by == ""
    assert module.read_bytes() == before, "the product itself stays as it is"


def test_an_unknown_defect_is_named() -> None:
    command = [sys.executable, "-m", "seeded_defects", "no-such-defect"]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown defect: no-such-defect; --list names all" in done.stderr
