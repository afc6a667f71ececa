"""What is listed of each key is what the loader does with it."""

import json
from pathlib import Path

import pytest

from mailer.config.decode import ZEROS
from mailer.config.key_list import Form, Key, Kind, keys
from mailer.config.load import load
from mailer.config.problem import ConfigError
from mailer.config.show import effective

KEYS = {key.path: key for key in keys()}
PLAIN = [key for key in KEYS.values() if "[]" not in key.path]


def loaded(directory: Path, document: object) -> dict[str, object]:
    path = directory / "config.json"
    path.write_text(json.dumps(document))
    path.chmod(0o600)
    return effective(load(path, {}).config)


def with_key(path: str, value: object) -> dict[str, object]:
    """A document that has this key only."""
    first, _, rest = path.partition(".")
    return {first: with_key(rest, value) if rest else value}


def test_the_defaults_may_be_written_into_a_file_and_change_nothing(tmp_path: Path) -> None:
    nothing = loaded(tmp_path, {})
    for key in PLAIN:
        assert loaded(tmp_path, with_key(key.path, key.default)) == nothing, key.path


@pytest.mark.parametrize("key", [key for key in PLAIN if key.least is not None], ids=lambda key: key.path)
def test_the_bounds_are_those_that_the_loader_keeps(tmp_path: Path, key: Key) -> None:
    for value in (key.least, key.most):
        if value is not None:
            loaded(tmp_path, with_key(key.path, value))
    # 0 is the Go relay's way to leave out some keys.
    below = -1 if f"$.{key.path}" in ZEROS else key.least - 1
    for value in (below, *([] if key.most is None else [key.most + 1])):
        with pytest.raises(ConfigError, match=r"out of range|expected"):
            loaded(tmp_path, with_key(key.path, value))


@pytest.mark.parametrize("key", [key for key in PLAIN if key.choices], ids=lambda key: key.path)
def test_the_choices_are_those_that_the_loader_takes(tmp_path: Path, key: Key) -> None:
    many = key.form is Form.LIST
    for choice in key.choices:
        loaded(tmp_path, with_key(key.path, [choice] if many else choice))
    with pytest.raises(ConfigError, match="expected one of"):
        loaded(tmp_path, with_key(key.path, ["nonsense"] if many else "nonsense"))


@pytest.mark.parametrize("key", [key for key in PLAIN if key.kind is Kind.DURATION], ids=lambda key: key.path)
def test_a_duration_of_zero_is_refused_where_it_is_listed_so(tmp_path: Path, key: Key) -> None:
    document = with_key(key.path, [0] if key.form is Form.LIST else 0)
    if key.above_zero:
        with pytest.raises(ConfigError, match="more than 0"):
            loaded(tmp_path, document)
    else:
        loaded(tmp_path, document)


def test_objects_in_lists_and_beside_words_are_entered() -> None:
    assert KEYS["listeners[]"].kind is Kind.OBJECT
    assert KEYS["listeners[].trustedNetworks[].cidr"].required
    auth = KEYS["forwardProviders[].auth"]
    assert (auth.kind, auth.object, auth.choices) == (Kind.CHOICE, True, ("plain", "login", "cram-md5"))
    assert KEYS["forwardProviders[].auth.grant"].required
    assert KEYS["routes[].header"].kind is Kind.OBJECT
    assert KEYS["routes[].sender"].form is Form.ONE_OR_LIST
    assert KEYS["aliases"].form is Form.TABLE
