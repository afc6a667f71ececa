"""Ids sort by arrival, never meet, and are told from every other name."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.spool.ids import arrival, is_id, is_prefix, new_id

moments = st.floats(0, 2**48 / 1000 - 1)


@given(moments)
def test_an_id_has_26_characters_and_tells_its_time_to_the_millisecond(now: float) -> None:
    name = new_id(now)
    assert len(name) == 26
    assert is_id(name)
    assert arrival(name) == int(now * 1000) / 1000


@given(st.lists(moments, min_size=2, max_size=20))
def test_ids_sort_by_arrival(times: list[float]) -> None:
    ids = sorted(new_id(now) for now in times)
    assert all(arrival(a) <= arrival(b) for a, b in pairwise(ids))


@given(st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_every_random_bit_shows(first: bytes, second: bytes) -> None:
    one, other = new_id(1.0, lambda _: first), new_id(1.0, lambda _: second)
    assert (one == other) == (first == second)


def test_ids_never_meet_under_a_clock_that_stands_still_or_jumps() -> None:
    """Also after the battery died, and after a virtual machine was copied: there is no state to repeat."""
    clock = [1e9, 1e9, 1e9 + 315_360_000, 1e9 - 31_536_000, 0.0, 1e9] * 2000
    ids = {new_id(now) for now in clock}
    assert len(ids) == len(clock)
    assert all(map(is_id, ids))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "01JD0M3Q5V8Z7X2C4B6N8M0K1",
        "01JD0M3Q5V8Z7X2C4B6N8M0K1JJ",
        "81JD0M3Q5V8Z7X2C4B6N8M0K1J",
        "01jd0m3q5v8z7x2c4b6n8m0k1j",
        "01JD0M3Q5V8Z7X2C4B6N8M0K1I",
        "01JD0M3Q5V8Z7X2C4B6N8M0K1J\n",
        "../../../../../etc/passwd.",
        "01JD0M3Q5V8Z/X2C4B6N8M0K1J",
        "\u0660\u0661JD0M3Q5V8Z7X2C4B6N8M0K1J",
        "*" * 26,
    ],
)
def test_other_names_are_no_ids(name: str) -> None:
    assert not is_id(name)


@given(moments, st.integers(1, 26))
def test_every_beginning_of_an_id_is_a_prefix(now: float, length: int) -> None:
    assert is_prefix(new_id(now)[:length])


@pytest.mark.parametrize("text", ["", "*", "..", "01JD/", "%2e", "0" * 27, "I"])
def test_what_no_id_begins_with_is_no_prefix(text: str) -> None:
    assert not is_prefix(text)
