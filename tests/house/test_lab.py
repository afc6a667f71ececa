"""The simulator: fixed stories hold, a number is one story, defects are seen, the page is of now."""

from collections.abc import Iterator

import pytest
from lab import judge
from lab.disk import Disk
from lab.explore import Counts, Explorer, explore, shortest
from lab.hops import Log
from lab.results import PAGE, VERSION
from lab.seam import installed
from lab.themes import story_of
from lab.threads import Worker
from seeded_defects.catalogue import DEFECTS

from mailer.spool.directory import Spool

pytestmark = pytest.mark.exhaustive

STORIES = (1, 2, 3, 4, 5, 8, 10, 11, 12, 13, 19, 20, 21, 23, 26)
"""One of each theme: those that take the least time."""
FOUND = (7, 268, 297, 335, 495, 550, 576, 773, 1022, 1691)
"""Seeds that showed a defect of the product or of the judge once."""


@pytest.fixture(autouse=True)
def _no_threads_are_left() -> Iterator[None]:
    yield
    Worker.end_all()


@pytest.mark.parametrize("seed", sorted((*STORIES, *FOUND)))
def test_no_promise_is_broken_wherever_a_story_ends(seed: int) -> None:
    """At each system call: kill -9 of all programs, and power cuts; beside the story's own faults."""
    counts = Counts()
    assert [str(failure) for failure in explore([seed], counts)] == []
    assert counts.worlds > 3


def test_a_number_is_one_story(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was explored before it: a failure is replayed from its number alone."""

    def explored(*before: int) -> tuple[list[str], list[tuple[int, int]]]:
        left: list[tuple[int, int]] = []

        def note(disk: Disk, log: Log, _: judge.Terms) -> list[str]:
            left.append((disk.fingerprint(), log.signature()))
            return []

        monkeypatch.setattr(judge, "verdict", note)
        counts = Counts()
        assert list(explore(before, counts)) == []
        left.clear()
        with installed():
            explorer = Explorer(story_of(8), counts, traces=True)
            assert list(explorer.failures()) == []
        return explorer.trace or [], left

    assert explored() == explored(1)


def test_a_directory_that_is_not_synced_loses_mail_and_the_shortest_story_says_how(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Spool, "sync_directory", lambda *_: None)
    failure = next(explore(range(5), Counts()))
    assert any("lost" in wrong for wrong in failure.wrong)
    short = shortest(failure)
    assert len(short.story.mails) == 1
    assert f"seed {failure.story.seed}" in str(short)
    assert any("rename" in call for call in short.calls)


def test_the_page_is_of_this_simulator_and_of_these_defects() -> None:
    """After a change of the simulator: `VERSION`, scripts/lab, scripts/lab --results."""
    text = PAGE.read_text(encoding="utf-8")
    assert f"simulator, version {VERSION} |" in text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    shown = {row[0]: row[-1] for row in rows}
    digests = {defect.name: defect.digest for defect in DEFECTS}
    assert len(shown.keys() & digests.keys()) >= 15
    assert {name: digest for name, digest in shown.items() if digests.get(name, digest) != digest} == {}
