"""The fuzzer's seeds, without the fuzzer: every target holds for them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
import peers
import targets

TARGETS = targets.TARGETS | peers.TARGETS
CASES = [(name, seed) for of in (targets, peers) for name, seeds in of.SEEDS.items() for seed in seeds]


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_the_target_holds(name, seed):
    TARGETS[name](seed)
