"""A secret comes from where it is kept, when it is needed, and shows itself to nobody."""

import json
import os
import stat
import traceback
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.config import secrets
from mailer.config.hops import Provider
from mailer.config.model import Config
from mailer.config.secrets import (
    FromCommand,
    FromCredential,
    FromEnvironment,
    FromFile,
    Secret,
    SecretError,
)

VALUE = "hunter2-correct-horse"


def private(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)
    return path


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)
    return path


@pytest.mark.security_case(96)
def test_a_secret_is_masked_wherever_a_configuration_is_printed():
    config = Config(
        default_password=Secret(VALUE), forward_providers=(Provider(host="h", password=Secret(VALUE)),)
    )
    secret = config.default_password
    for text in (repr(config), str(config), repr(secret), str(secret), f"{secret}"):
        assert VALUE not in text


@pytest.mark.parametrize("encode", [msgspec.json.encode, msgspec.to_builtins, json.dumps, vars])
def test_no_encoder_takes_a_secret(encode):
    with pytest.raises(TypeError):
        encode(Secret(VALUE))


def test_an_environment_secret_is_read_when_it_is_needed_and_then_kept():
    environ: dict[str, str] = {}
    secret = Secret(FromEnvironment("PW"), key="$.defaultPassword", environ=environ)
    with pytest.raises(SecretError, match=r"^\$\.defaultPassword: environment variable PW is not set"):
        secret.reveal()
    environ["PW"] = VALUE
    assert secret.reveal() == VALUE
    del environ["PW"]
    assert secret.reveal() == VALUE


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a b\n", "a b"),
        ("a\r\n", "a"),
        ("a", "a"),
        ("a\r", "a\r"),
        ("a\n\n", "a\n"),
        (" a \n", " a "),
        ("pä\n", "pä"),
    ],
)
def test_one_trailing_newline_of_a_file_is_not_part_of_the_secret(tmp_path, content, expected):
    assert Secret(FromFile(private(tmp_path / "pw", content))).reveal() == expected


def test_a_file_that_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path):
    path = private(tmp_path / "my pw", VALUE)
    path.chmod(0o644)
    with pytest.raises(SecretError) as caught:
        Secret(FromFile(path), key="$.k").reveal()
    command = str(caught.value).partition("type: ")[2]
    assert VALUE not in str(caught.value)
    assert os.system(command) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert Secret(FromFile(path)).reveal() == VALUE


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 70_000, VALUE.encode() + b"\xff\xfe"])
def test_an_unusable_file_is_an_error_that_names_the_key_and_not_the_content(tmp_path, content):
    path = private(tmp_path / "pw", content)
    with pytest.raises(SecretError) as caught:
        Secret(FromFile(path), key="$.adminToken").reveal()
    assert str(caught.value).startswith("$.adminToken: ")
    assert VALUE not in "".join(traceback.format_exception(caught.value))
    assert VALUE.encode() not in getattr(caught.value.__context__, "object", b"")


def test_a_missing_file_a_directory_and_a_fifo_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name in ("missing", "fifo", "."):
        with pytest.raises(SecretError, match=r"No such file|not a regular file|Is a directory"):
            Secret(FromFile(tmp_path / name)).reveal()


def test_a_credential_is_a_file_of_the_directory_that_systemd_names(tmp_path):
    private(tmp_path / "smtp", VALUE)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert Secret(FromCredential("smtp"), environ=environ).reveal() == VALUE
    with pytest.raises(SecretError, match="CREDENTIALS_DIRECTORY is not set"):
        Secret(FromCredential("smtp"), environ={}).reveal()


def test_a_command_gets_its_words_unchanged_and_no_shell(tmp_path):
    program = script(tmp_path / "pw", 'printf "%s|" "$@"')
    words = ("$HOME", "a b", ";id", "*")
    assert Secret(FromCommand((str(program), *words))).reveal() == "$HOME|a b|;id|*|"


@pytest.mark.security_case(96)
def test_a_command_inherits_nothing_secret_and_is_run_once(tmp_path):
    program = script(tmp_path / "pw", f"echo run >>{tmp_path}/runs; env")
    environ = {"PATH": os.environ["PATH"], "HOME": "/home/me", "DEFAULT_PASSWORD": VALUE, "LD_PRELOAD": "x"}
    secret = Secret(FromCommand((str(program),)), environ=environ)
    names = {line.partition("=")[0] for line in secret.reveal().splitlines()}
    assert {"PATH", "HOME"} <= names
    assert not names & {"DEFAULT_PASSWORD", "LD_PRELOAD"}
    secret.reveal()
    assert (tmp_path / "runs").read_text() == "run\n"


@pytest.mark.security_case(96)
def test_a_failing_command_is_an_error_without_its_arguments_or_its_output(tmp_path, capfd):
    program = script(tmp_path / "pw", f"echo {VALUE}; echo {VALUE} >&2; exit 3")
    with pytest.raises(SecretError, match="exited with 3") as caught:
        Secret(FromCommand((str(program), "token-in-argv"))).reveal()
    shown = f"{caught.value!r} {caught.value.__context__!r} {capfd.readouterr()}"
    assert VALUE not in shown
    assert "token-in-argv" not in shown


def test_a_command_that_is_not_there_is_an_error():
    with pytest.raises(SecretError, match=r"command no-such-program-here: No such file"):
        Secret(FromCommand(("no-such-program-here",))).reveal()


def test_a_command_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(secrets, "COMMAND_TIMEOUT", 0.05)
    with pytest.raises(SecretError, match="longer than"):
        Secret(FromCommand((str(script(tmp_path / "pw", "exec sleep 600")),))).reveal()


@given(st.text(), st.text())
def test_a_candidate_matches_if_and_only_if_it_is_the_secret_and_there_is_one(value, candidate):
    assert Secret(value).matches(value) == bool(value)
    assert Secret(value).matches(candidate) == (bool(value) and value == candidate)


def test_a_password_that_was_never_set_lets_nobody_in():
    assert not Secret("").matches("")


def test_a_candidate_that_is_no_valid_text_does_not_match_and_does_not_fail():
    assert not Secret(VALUE).matches("\ud800")


def test_secrets_of_one_source_are_equal():
    assert Secret(FromEnvironment("A"), key="x") == Secret(FromEnvironment("A"), key="y")
    assert len({Secret("a"), Secret("b"), Secret("a")}) == 2
