"""The spool that tests of `drop/` use."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mailer.spool import drop
from mailer.spool.directory import Spool


@pytest.fixture
def spool(spool_path: Path) -> Iterator[Spool]:
    with Spool.open(spool_path, create=True) as opened:
        drop.prepare(opened, wanted=True)
        yield opened
