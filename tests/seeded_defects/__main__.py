"""Plants each defect by itself in a copy of the product, and runs the tests that are to catch it."""

# ruff: noqa: T201 - a command that prints

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from seeded_defects.catalogue import DEFECTS, Defect

ROOT = Path(__file__).parents[2]
PAGE = Path(__file__).with_name("RESULTS.md")
_PATIENCE = 600.0
"""Seconds for the tests of one defect."""
_TESTS_FAILED = 1
"""pytest's exit code; others say that it could not run them."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one defect."""

    defect: Defect
    caught_by: str
    """The test that failed first; empty: none did."""
    seconds: float

    def row(self) -> str:
        caught_by = self.caught_by or "**not caught**"
        when = f"{datetime.now(UTC):%Y-%m-%d}, {_commit()}"
        return (
            f"| {self.defect.name} | {self.defect.harm} | {caught_by} | {self.seconds:.0f} s | {when} "
            f"| {self.defect.digest} |"
        )


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def copy_of_the_product() -> Iterator[Path]:
    """Copy what git tracks, as it is now, and what the tests need beside it."""
    with tempfile.TemporaryDirectory(prefix="mailer-seeded-") as name:
        copy = Path(name).resolve()
        copy.chmod(0o755)  # Tests that become another user look in there.
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for file in filter(None, listed.stdout.split("\0")):
            if (ROOT / file).is_file():
                (copy / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, copy / file)
        if (ROOT / ".testbed").exists():
            (copy / ".testbed").symlink_to((ROOT / ".testbed").resolve())
        yield copy


def run_tests(copy: Path, defect: Defect) -> Result:
    """Run the tests of one defect in a copy that has it, up to the first that fails.

    Raises:
        RuntimeError: they could not be run.
    """
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=no", *defect.tests],
        cwd=copy / "tests",
        env=os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "CI": "true"},
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    failed = [line.split()[1] for line in ran.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if ran.returncode not in {0, _TESTS_FAILED}:
        raise RuntimeError(
            f"{defect.name}: the tests could not be run: {ran.stdout[-2000:]}{ran.stderr[-500:]}"
        )
    caught_by = failed[0].removeprefix("tests/") if failed else ""
    return Result(defect, caught_by, time.monotonic() - began)


def plant_and_run(copy: Path, defect: Defect) -> Result:
    """Put a defect into a copy, run its tests, and take it out again; raises as `run_tests`."""
    module = copy / "mailer" / defect.module
    sound = module.read_text(encoding="utf-8")
    module.write_text(defect.plant(sound), encoding="utf-8")
    try:
        return run_tests(copy, defect)
    finally:
        module.write_text(sound, encoding="utf-8")


_HEAD = """# Seeded defects

Each defect was put into a copy of the product by itself, and the tests that `catalogue.py` names were run
on that copy until one failed: `scripts/defects`. The time is until that failure, on a machine that did
other work as well; date and commit are those of the run. What this does not show: that defects of other
kinds would be caught. `tests/house/test_seeded_defects.py` fails when a defect was added or changed after its
run.

| defect | what it does to mail | caught by | after | run | of |
| --- | --- | --- | --- | --- | --- |
"""


def write_page(results: Sequence[Result]) -> None:
    """Put results on the page, beside those of the other defects."""
    rows = {row.split(" | ")[0]: row for row in PAGE.read_text(encoding="utf-8").splitlines()}
    rows |= {f"| {result.defect.name}": result.row() for result in results}
    known = [rows[name] for defect in DEFECTS if (name := f"| {defect.name}") in rows]
    PAGE.write_text(_HEAD + "".join(f"{row}\n" for row in known), encoding="utf-8")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/defects",
        description="Puts known defects into a copy of the product, one at a time, and says which test "
        "catches each. Ends with 1 if one is not caught.",
        epilog=f"Without NAME all {len(DEFECTS)} are tried, which takes some ten minutes. The results are "
        f"put into {PAGE.relative_to(ROOT)}.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--list", action="store_true", help="name the defects, and try none")
    asked = parser.parse_args()
    wanted = [defect for defect in DEFECTS if not asked.names or defect.name in asked.names]
    if unknown := set(asked.names) - {defect.name for defect in DEFECTS}:
        parser.error(f"unknown defect: {', '.join(sorted(unknown))}; --list names all")
    if asked.list:
        print(*(f"{defect.name}: {defect.harm} (mailer/{defect.module})" for defect in wanted), sep="\n")
        return 0
    for defect in wanted:
        defect.plant((ROOT / "mailer" / defect.module).read_text(encoding="utf-8"))
    results: list[Result] = []
    with copy_of_the_product() as copy:
        for number, defect in enumerate(wanted, 1):
            results.append(plant_and_run(copy, defect))
            write_page(results)
            print(f"[{number}/{len(wanted)}] {results[-1].row()}", flush=True)
    missed = [result.defect.name for result in results if not result.caught_by]
    print(f"{len(results) - len(missed)} of {len(results)} caught", *missed, sep="\nnot caught: ")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
