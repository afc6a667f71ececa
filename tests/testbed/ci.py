"""What is different in continuous integration: nothing is skipped there, as nobody would read of it."""

import os

import pytest

IN_CI = os.environ.get("CI") == "true"


def only_root(reason: str) -> pytest.MarkDecorator:
    """Skip a test for others than root; in CI it runs all the same, and fails."""
    return pytest.mark.skipif(os.geteuid() != 0 and not IN_CI, reason=reason)
