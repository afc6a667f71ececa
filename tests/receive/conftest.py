"""Fixtures of the receiver's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from inbound.submitting import Door, http_running


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """A receiver that takes mail by HTTP, and a client of it."""
    with http_running(tmp_path) as running:
        yield running
