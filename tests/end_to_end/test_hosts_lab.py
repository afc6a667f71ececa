"""Three hosts on one directory, one of which only seems dead: the short form of `scripts/hosts_lab`.

Nothing that was acknowledged is lost, at most the transactions under way arrive twice, and a host whose spool
was taken over accepts and delivers nothing 35 seconds after that.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hosts_lab.ground import Local
from hosts_lab.judge import Verdict
from hosts_lab.session import Session

pytestmark = pytest.mark.usefixtures("unmeasured")

KINDS = ("partition", "wrong")


def test_another_host_takes_the_mail_over_and_each_message_arrives(tmp_path: Path) -> None:
    """Of three hosts one cannot renew its lease; of three others one is said to be off, and is not."""

    def round_of(kind: str) -> Verdict:
        (shared := tmp_path / f"{kind}-shared").mkdir()
        session = Session(tmp_path / kind, Local(shared), 1, print, pause=0.05, reply_after=0.2)
        with session.running(1):
            session.round(kind)
        return session.verdict()

    with ThreadPoolExecutor() as threads:  # Most of a round is a wait of 35 seconds.
        for verdict in threads.map(round_of, KINDS):
            assert verdict.wrong == []
            assert verdict.delivered >= verdict.acknowledged > 100
