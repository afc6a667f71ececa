"""Durations and sizes mean what they say, exactly, or are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.config import key_types

MICROSECONDS = {
    "ms": 10**3,
    "s": 10**6,
    "m": 60 * 10**6,
    "h": 3600 * 10**6,
    "d": 86400 * 10**6,
    "w": 604800 * 10**6,
}
FACTORS = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}

parts = st.lists(
    st.tuples(st.integers(0, 700), st.sampled_from(sorted(MICROSECONDS))), min_size=1, max_size=6
)


@given(parts, st.sampled_from(["", " "]))
def test_a_duration_is_the_sum_of_its_parts(given_parts, gap):
    text = gap.join(f"{count}{unit}" for count, unit in given_parts)
    total = sum(count * MICROSECONDS[unit] for count, unit in given_parts)
    assert key_types.seconds(text) == total / 10**6


@given(st.integers(0, 10**12 - 1))
def test_milliseconds_as_text_and_as_a_number_are_one_value(count):
    assert key_types.milliseconds(f"{count}ms") == key_types.milliseconds(count) == count


@given(st.integers(0, 10**6), st.integers(0, 999))
def test_decimals_are_exact(whole, thousandths):
    assert key_types.milliseconds(f"{whole}.{thousandths:03}s") == whole * 1000 + thousandths


@given(st.integers(0, 10**6), st.sampled_from(sorted(FACTORS)))
def test_a_size_is_its_count_times_its_unit(count, unit):
    assert key_types.size(f"{count}{unit}") == key_types.size(count * FACTORS[unit]) == count * FACTORS[unit]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5m", 300),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("250ms", 0.25),
        ("5d", 432_000),
        ("1w", 604_800),
        ("0s", 0),
        ("1.5h", 5400),
    ],
)
def test_durations_people_write_are_read(text, expected):
    assert key_types.seconds(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("25MiB", 26_214_400), ("1.5 KiB", 1536), ("10MB", 10_000_000)]
)
def test_sizes_people_write_are_read(text, expected):
    assert key_types.size(text) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "5",
        "m",
        "5 m",
        "-5m",
        "5M",
        "5min",
        "5m,",
        " 5m",
        "\N{ARABIC-INDIC DIGIT FIVE}m",
        "1e3s",
        "5m\n",
        "99999999999d",
        "9" * 5000 + "s",
        "1.0001s",
        True,
        None,
        -1,
        float("nan"),
        float("inf"),
        10**400,
        [],
    ],
)
def test_what_is_no_duration_is_refused_without_being_repeated(value):
    with pytest.raises(ValueError, match=r"^(not a duration|out of range)$"):
        key_types.seconds(value)


@pytest.mark.parametrize(
    "value", ["", "25", "25 mib", "25M", "-1B", "0.5B", "9999999TiB", True, 1.5, -1, 2**63, None]
)
def test_what_is_no_size_is_refused(value):
    with pytest.raises(ValueError, match=r"^(not a|out of)"):
        key_types.size(value)


@pytest.mark.parametrize("value", [1.5, True, -1, "0.5ms", None, "5"])
def test_a_part_of_a_millisecond_is_refused(value):
    with pytest.raises(ValueError, match=r"^(not a|out of|a part)"):
        key_types.milliseconds(value)


@given(st.text() | st.from_regex(r"[0-9]{0,14}\.?[0-9]{0,4} ?[A-Za-z]{0,3}", fullmatch=True))
@pytest.mark.parametrize("read", [key_types.seconds, key_types.milliseconds, key_types.size])
def test_any_text_is_a_value_or_refused_in_fixed_words(read, text):
    reason = ""
    try:
        assert read(text) >= 0
    except ValueError as error:
        reason = str(error)
    assert reason in {"", "not a duration", "not a size", "out of range", "a part of a millisecond"}
