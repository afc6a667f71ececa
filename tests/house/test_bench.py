"""The benchmark runs, measures what it says, and ends what it started. How fast anything is, no test asks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def test_the_benchmark_measures_every_work_and_leaves_nothing_running(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    argv = [sys.executable, "-m", "bench", "--scale", "0.002", "--rounds", "1", "--under", str(tmp_path)]
    ran = subprocess.run(
        [*argv, "--json", str(figures)],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    measured = json.loads(figures.read_text())
    works = {row["work"]: row for row in measured["works"]}
    assert len(works) == 13
    for row in works.values():
        assert {"mailer", "mailer again", "Postfix"} <= set(row["contestants"])
        for who in row["contestants"].values():
            assert 0 < who["min"] <= who["median"] <= who["max"]
        assert f"| {row['work']} | mailer |" in ran.stdout
    # Of programs that end, the system tells microseconds; of those that stay, ticks, and this is little work.
    for name in ("deliver, one runner", "deliver, two runners", "list a deep queue"):
        ours, again = (works[name]["contestants"][who] for who in ("mailer", "mailer again"))
        assert 0 < ours["per_core_second"] == pytest.approx(1e6 / ours["cpu_us_each"])
        assert works[name]["control"] == pytest.approx([ours["cpu_us_each"] / again["cpu_us_each"]] * 3)
    assert {"OpenSMTPD", "dma", "nullmailer"} <= set(works["deliver, one runner"]["contestants"])
    reused = works["accept, connections reused"]["contestants"]
    assert {"OpenSMTPD", "Exim"} <= set(reused)
    # Each message is synced, and a group's directory once; Postfix syncs each message.
    assert reused["mailer"]["syncs_per_message"] > 1
    assert reused["Postfix"]["syncs_per_message"] >= 1
    assert all(figure > 0 for figure in (*measured["limits"].values(), *measured["start_up"].values()))
    assert list(tmp_path.glob("bench-*")) == []
    assert (
        str(tmp_path) not in subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout
    )
