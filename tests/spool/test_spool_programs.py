"""Running programs are found by those that ask, however often these ask."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from mailer.spool.directory import Spool
from mailer.spool.state.programs import RECEIVER, Registration, running

STARTS = 300
LOOKS = 4


def test_a_program_that_starts_while_others_look_is_found(tmp_path: Path) -> None:
    """Looking removes the files of dead programs; a file that is just being made must not resemble one."""
    with Spool.open(tmp_path / "spool", create=True) as spool, ThreadPoolExecutor(2) as pool:

        def look() -> None:
            for _ in range(LOOKS):
                running(spool)

        for _ in range(STARTS):
            with ExitStack() as started:
                # All have looked before the program ends: the next one here has the same process id.
                looks = [pool.submit(look) for _ in range(2)]
                started.enter_context(Registration(spool, RECEIVER, "/config.json"))
                for each in looks:
                    each.result()
                assert [program.name for program in running(spool)] == [RECEIVER]
        assert running(spool) == []
        assert list((tmp_path / "spool/state").glob(".program-*")) == []
