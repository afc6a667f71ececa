"""What the long runs have shown: `tests/lab/runs.json`, from which the page of results is made."""

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "lab" / "runs.json"
STATE = ROOT / ".testbed" / "faults"
"""What a run needs to go on where the last one stopped."""


def _git(*arguments: str) -> str:
    ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def version() -> str:
    """The product's own files, as committed: figures of one version are never added to another's."""
    return _git("rev-parse", "--short", "HEAD:mailer")


def note(run: str, part: str, figures: Mapping[str, Any]) -> None:
    """Write down what a part of a run has shown so far, with the commit and the day."""
    runs = read()
    when = {"commit": _git("rev-parse", "--short", "HEAD"), "date": time.strftime("%Y-%m-%d", time.gmtime())}
    runs.setdefault(run, {})[part] = {**figures, **when}
    FILE.write_text(json.dumps(runs, indent=1, sort_keys=True) + "\n")


def read() -> dict[str, dict[str, dict[str, Any]]]:
    return dict(json.loads(FILE.read_text())) if FILE.exists() else {}
