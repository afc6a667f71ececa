"""The page of the benchmark's runs is what its runs make."""

from bench import record


def test_the_page_shows_all_runs_and_the_worst_of_each_work() -> None:
    runs = record.read()
    assert runs
    assert record.PAGE.read_text() == record.page(runs)
    for name in {work["work"] for run in runs for work in run["works"]}:
        worst = min(work["ratio"] for run in runs for work in run["works"] if work["work"] == name)
        assert f"| {name} | " in record.PAGE.read_text()
        (row,) = (line for line in record.PAGE.read_text().splitlines() if line.startswith(f"| {name} |"))
        assert f"**{worst:.2f}**" in row
