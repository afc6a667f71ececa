"""Each command meets a kill or an error at system calls that matter: a few here, all by `scripts/faults`.

Nothing acknowledged is lost, nothing refused is delivered, nobody gets a second copy unless a file says that
the reply to the first was lost, a command that says "done" has done it, and the queue drains.
"""

from pathlib import Path

import pytest
from call_faults.faults import Point
from call_faults.rows import ROWS
from call_faults.trial import try_at
from fault_runs import page

pytestmark = [pytest.mark.fault_row(1, 4, 5, 6, 7, 8), pytest.mark.usefixtures("unmeasured")]

POINTS = {
    "accept": ("EIO:fsync:1", "kill:renameat2:1"),
    "accept-keyed": ("ENOSPC:fsync:2",),
    "send": ("kill:sendto:2", "EDQUOT:fallocate:1"),
    "bounce": ("EIO:fsync:1",),
    "retry": ("EROFS:renameat2:1",),
    "archive": ("ENOSPC:mkdirat:1",),
    "spool-hold": ("EIO:fsync:1",),
    "spool-release": ("kill:renameat2:1",),
    "spool-retry": ("EROFS:renameat2:1",),
    "spool-rm": ("EIO:fsync:1",),
    "spool-replay": ("EMFILE:epoll_create1:1",),
    "spool-replay-once": ("kill:renameat2:1",),
    "move-out": ("kill:unlinkat:1",),
    "move-in": ("kill:renameat2:2",),
    "suppress-add": ("kill:fsync:1",),
    "suppress-rm": ("EIO:fsync:1",),
    "pause": ("EIO:fsync:1",),
    "resume": ("EROFS:unlinkat:1",),
    "drop-leave": ("EIO:fsync:1",),
    "drop-take": ("kill:unlinkat:1",),
    "tokens": ("kill:renameat2:1",),
    "budgets": ("kill:renameat2:1",),
    "events": ("EIO:fsync:1",),
}


def test_the_page_of_the_long_runs_is_that_of_their_figures() -> None:
    assert page.PAGE.read_text() == page.page(), "run scripts/faults page"


def test_every_command_has_its_turn() -> None:
    assert POINTS.keys() == ROWS.keys()


@pytest.mark.parametrize(
    ("row", "point"), [(row, point) for row, points in POINTS.items() for point in points]
)
def test_a_command_keeps_what_it_promised(row: str, point: str, tmp_path: Path) -> None:
    trial = try_at(row, Point.of(point), tmp_path)
    assert trial.wrong == []
    assert trial.outcome == "held", "the fault did not come where it should"
