"""A config.json in the current directory may be another program's; then it is not read as ours."""

import os
from pathlib import Path

import pytest

from mailer.config.load import find, load
from mailer.config.problem import ConfigError

WEB = '{"port": 3000, "database": {"host": "localhost"}}'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory of an ordinary user: root takes no configuration from one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return tmp_path


def test_a_web_applications_file_is_passed_over(here: Path) -> None:
    (here / "config.json").write_text(WEB)
    ours = here / "etc.json"
    ours.write_text("{}")
    places = (Path("config.json"), ours)
    assert find(None, {}, places) == ours
    ours.unlink()
    with pytest.raises(ConfigError, match=r"config\.json has none of mailer's keys and is taken for another"):
        find(None, {}, places)
    # Whoever names it means it.
    assert find("config.json", {}, places) == Path("config.json")


@pytest.mark.parametrize("text", ['{"smtpPort": 2525, "prot": 1}', '{"workerCount": 3}', "{}", "{"])
def test_a_file_that_may_be_ours_is_read(here: Path, text: str) -> None:
    (here / "config.json").write_text(text)
    assert find(None, {}, (Path("config.json"),)) == Path("config.json")


def test_a_mistake_in_a_default_file_is_reported_with_its_name(here: Path) -> None:
    (here / "config.json").write_text('{"smtpPort": 2525, "prot": 1}')
    with pytest.raises(ConfigError) as found:
        load(None, {})
    assert found.value.found == here / "config.json"
    with pytest.raises(ConfigError) as named:
        load("config.json", {})
    assert named.value.found is None
