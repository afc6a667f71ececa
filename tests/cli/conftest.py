"""Fixtures of the tests of several hosts that share a directory."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from outbound.hostile import Server


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    directory = tmp_path / "shared"
    directory.mkdir()
    return directory


@pytest.fixture
def hop() -> Iterator[Server]:
    with Server({}) as server:
        yield server
