"""The operator is told what is wrong with a configuration that loads, and what to type."""

import json
import os
import stat
from pathlib import Path

import pytest

from mailer.cli.receiving.receiver import settings
from mailer.config.checks import refuse_to_send, refuse_to_serve
from mailer.config.load import load
from mailer.config.model import Config
from mailer.config.problem import ConfigError
from mailer.config.secrets import is_placeholder
from mailer.config.warnings import warnings

GOOD = "kq3X-9vT_aL2"
LOGIN = {"defaultUsername": "me", "defaultPassword": GOOD}
QUIET = {
    **LOGIN,
    "enableHealthCheck": False,
    "forwardSMTP": True,
    "forwardProviders": [{"host": "smtp.example.com"}],
}


@pytest.fixture
def loaded(tmp_path):
    def load_it(document, environ=None, mode=0o600):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(document))
        path.chmod(mode)
        return load(path, environ or {})

    return load_it


def paths(found):
    assert all(GOOD not in str(problem) for problem in found)
    return [problem.path for problem in found]


def test_a_sound_configuration_is_neither_refused_nor_warned_of(loaded):
    sound = loaded(QUIET)
    assert refuse_to_serve(sound) == refuse_to_send(sound) == warnings(sound) == ()


@pytest.mark.parametrize(
    "password",
    [
        "change-this-password",
        "your-strong-password",
        "your-app-password",
        "changeme",
        "Change Me",
    ],
)
def test_a_placeholder_password_is_refused_with_how_to_make_one(loaded, password):
    (problem,) = refuse_to_serve(loaded({**QUIET, "defaultPassword": password}))
    assert problem.path == "$.defaultPassword"
    assert "python3 -c 'import secrets; print(secrets.token_urlsafe(24))'" in problem.message
    assert password not in problem.message
    assert paths(warnings(loaded({**QUIET, "defaultPassword": password}))) == ["$.defaultPassword"]


@pytest.mark.parametrize(
    "password", [GOOD, "x9", "passwords-are-long", "exchange-this-password-please", "my-secret"]
)
def test_a_password_that_only_resembles_a_placeholder_is_not_one(password):
    assert not is_placeholder(password)


@pytest.mark.parametrize("password", ["password1", "secret", "Admin", "test123"])
def test_a_password_that_anyone_would_guess_is_warned_of_and_works(loaded, password):
    """A configuration that runs under the Go relay today must run with us."""
    weak = loaded({**QUIET, "defaultPassword": password})
    assert refuse_to_serve(weak) == ()
    assert paths(warnings(weak)) == ["$.defaultPassword"]


def test_a_placeholder_from_the_environment_is_refused_too(loaded):
    assert paths(refuse_to_serve(loaded(QUIET, {"DEFAULT_PASSWORD": "changeme"}))) == ["$.defaultPassword"]


def test_an_invalid_bounce_address_is_refused(loaded):
    (problem,) = refuse_to_send(loaded({**QUIET, "bounce": "nobody"}))
    assert problem.path == "$.bounce"
    assert 'is neither "sender" nor "off", and no address' in problem.message
    for good in ("sender", "off", "postmaster@example.com"):
        assert refuse_to_send(loaded({**QUIET, "bounce": good})) == ()


@pytest.mark.parametrize("domain", ["a b.example", "-x.example", "a@b.example", "bücher.example"])
def test_a_domain_that_could_complete_no_address_is_refused(loaded, domain):
    (problem,) = refuse_to_serve(loaded({**QUIET, "originDomain": domain}))
    assert problem.path == "$.originDomain"
    assert refuse_to_serve(loaded({**QUIET, "originDomain": "example.com"})) == ()


def test_an_alias_that_is_no_full_address_is_refused(loaded):
    (problem,) = refuse_to_serve(loaded({**QUIET, "aliases": {"root": "ops", "*": "ops@example.com"}}))
    assert problem.path == "$.aliases.root"
    with pytest.raises(ConfigError, match=r"aliases\.root: expected a string"):
        loaded({**QUIET, "aliases": {"root": 1}})
    with pytest.raises(ConfigError, match="aliases: expected an object"):
        loaded({**QUIET, "aliases": []})


def test_no_login_where_one_is_required_is_refused(loaded):
    assert paths(refuse_to_serve(loaded({}))) == ["$.defaultUsername"]
    assert paths(refuse_to_serve(loaded({"security": {"requireAuth": False}}))) == []


def test_a_login_whose_password_cannot_be_had_is_refused(loaded):
    (problem,) = refuse_to_serve(loaded({**LOGIN, "defaultPassword": {"env": "NOT_SET"}}))
    assert problem.message == "environment variable NOT_SET is not set"


def test_a_sender_needs_no_login(loaded):
    assert refuse_to_send(loaded({})) == ()


@pytest.mark.security_case(88)
@pytest.mark.parametrize("mode", [0o644, 0o604])
def test_literal_secrets_that_others_can_read_are_refused_with_the_chmod_to_type(loaded, mode):
    exposed = loaded(QUIET, mode=mode)
    for refuse in (refuse_to_serve, refuse_to_send, warnings):
        (problem,) = refuse(exposed)
        assert "$.defaultPassword" in problem.message
        command = problem.message.partition("type: ")[2]
        assert command == f"chmod 0640 {exposed.path}"
    assert os.system(command) == 0
    assert stat.S_IMODE(exposed.path.stat().st_mode) == 0o640
    assert refuse_to_serve(load(exposed.path, {})) == ()


def test_a_readable_configuration_whose_secrets_are_elsewhere_is_fine(loaded):
    elsewhere = loaded({**QUIET, "defaultPassword": {"env": "PW"}}, {"PW": GOOD}, mode=0o644)
    assert refuse_to_serve(elsewhere) == refuse_to_send(elsewhere) == warnings(elsewhere) == ()
    overridden = loaded({**QUIET, "defaultPassword": ""}, {"DEFAULT_PASSWORD": GOOD}, mode=0o644)
    assert refuse_to_serve(overridden) == ()


@pytest.mark.security_case(88)
@pytest.mark.parametrize(("mode", "refused"), [(0o644, True), (0o640, False), (0o600, False)])
def test_a_private_key_that_others_can_read_is_refused(loaded, tmp_path, mode, refused):
    key = tmp_path / "mail.private"
    key.write_text("key")
    key.chmod(mode)
    signing = loaded(
        {**QUIET, "dkim": {"enabled": True, "domain": "example.com", "privateKeyPath": "mail.private"}}
    )
    for refuse in (refuse_to_serve, refuse_to_send):
        found = refuse(signing)
        assert paths(found) == ["$.dkim.privateKeyPath"] * refused
        assert all(f"chmod 0640 {key}" in problem.message for problem in found)


def test_a_key_that_is_not_used_is_not_looked_at(loaded, tmp_path):
    (tmp_path / "k").write_text("key")
    (tmp_path / "k").chmod(0o644)
    assert refuse_to_send(loaded({**QUIET, "dkim": {"privateKeyPath": "k"}})) == ()


@pytest.mark.security_case(71)
@pytest.mark.parametrize(
    ("host", "local_only", "refused"),
    [
        ("0.0.0.0", False, True),
        ("", False, True),
        ("mail.example.com", False, True),
        ("192.0.2.1", False, True),
        ("127.0.0.2", False, False),
        ("::1", False, False),
        ("localhost", False, False),
        ("0.0.0.0", True, False),
    ],
)
def test_an_open_relay_is_refused(loaded, host, local_only, refused):
    document = {"smtpHost": host, "security": {"allowLocalOnly": local_only, "requireAuth": False}}
    assert paths(refuse_to_serve(loaded(document))) == ["$.security.requireAuth"] * refused


def test_a_login_makes_a_public_address_no_open_relay(loaded):
    document = {**LOGIN, "smtpHost": "0.0.0.0", "security": {"allowLocalOnly": False, "requireAuth": False}}
    assert refuse_to_serve(loaded(document)) == ()


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"forwardSMTP": False}, "$.forwardSMTP", "local Maildir"),
        ({"forwardProviders": []}, "$.forwardSMTP", "no provider"),
        ({"workerCount": 3}, "$.workerCount", "sending.concurrency"),
        ({"security": {"requireAuth": False}}, "$.security.requireAuth", "all the same"),
        ({"defaultUsername": "", "security": {"requireAuth": False}}, "$.security.requireAuth", "as anyone"),
        (
            {"forwardProviders": [{"host": "a"}, {"host": "h", "username": "u"}]},
            "$.forwardProviders[1].password",
            "is empty, and h has a username",
        ),
        (
            {"forwardProviders": [], "forwardHost": "h", "forwardUsername": "u"},
            "$.forwardPassword",
            "is empty, and h has a username",
        ),
        (
            {"forwardProviders": [{"host": "h", "username": "u", "password": "your-app-password"}]},
            "$.forwardProviders[0].password",
            "placeholder",
        ),
        (
            {"forwardProviders": [{"host": "h", "password": "correct horse"}]},
            "$.forwardProviders[0].password",
            "is not used, since h has no username",
        ),
        (
            {"forwardProviders": [{"host": "h", "insecureSkipVerify": True}]},
            "$.forwardProviders[0].insecureSkipVerify",
            "can read the password",
        ),
        (
            {"forwardProviders": [{"host": "a", "weight": 3}, {"host": "h"}]},
            "$.forwardProviders[0].weight",
            "shares nothing without a priority",
        ),
        ({"adminToken": "changeme"}, "$.adminToken", "anyone can guess"),
        ({"alerts": {"webhook": "hooks.example/x"}}, "$.alerts.webhook", 'must begin with "https://"'),
        ({"alerts": {"failedMoreThan": -1}}, "$.alerts.failedMoreThan", "a whole number from 0"),
        ({"logRetention": "1d"}, "$.logRetention", "less than 2 days"),
        ({"maxMessageSize": 25}, "$.maxMessageSize", "is 25 bytes"),
        ({"retry": {"maxAge": 5}}, "$.retry.maxAge", "deferred once is given up"),
        ({"delayWarning": "5d"}, "$.delayWarning", "nobody is warned"),
    ],
)
def test_what_an_operator_should_know_is_a_warning_and_no_refusal(loaded, change, path, words):
    doubtful = loaded({**QUIET, **change})
    (warning,) = warnings(doubtful)
    assert warning.path == path
    assert words in warning.message
    assert refuse_to_serve(doubtful) == refuse_to_send(doubtful) == ()


def test_an_admin_token_that_cannot_be_had_is_a_warning(loaded):
    found = warnings(loaded({**QUIET, "adminToken": {"file": "not-there"}}))
    assert paths(found) == ["$.adminToken"]
    assert any("No such file" in warning.message for warning in found)


def test_a_password_of_two_lines_is_a_warning(loaded, tmp_path):
    """`echo` and editors add a line; only one line end is taken away, since a password may end in blanks."""
    file = tmp_path / "password"
    file.touch(mode=0o600)
    provider = {"host": "h", "username": "u", "password": {"file": "password"}}
    for text, expected in (("secret\n", []), ("secret\n\n", ["$.forwardProviders[0].password"])):
        file.write_text(text)
        assert paths(warnings(loaded({**QUIET, "forwardProviders": [provider]}))) == expected


def test_a_dkim_key_that_is_not_there_is_a_warning(loaded, tmp_path):
    dkim = {"enabled": True, "domain": "example.com"}
    found = warnings(loaded({**QUIET, "dkim": dkim}))
    assert paths(found) == ["$.dkim.privateKeyPath"]
    assert f"{tmp_path}/keys/example.com/mail.private" in found[0].message
    assert paths(warnings(loaded({**QUIET, "dkim": {"enabled": True}})))[0] == "$.dkim.domain"


def test_checking_runs_no_command(loaded, tmp_path):
    touch = {"command": ["touch", str(tmp_path / "ran")]}
    warnings(loaded({**QUIET, "defaultPassword": touch, "adminToken": touch}))
    assert not Path(tmp_path / "ran").exists()


def test_the_receiver_takes_its_syntax_from_the_configuration():
    lenient = settings(Config(hostname="mail.example.com"), None)
    assert (lenient.strict_syntax, lenient.origin_domain) == (False, "mail.example.com")
    aliases = {"Root": "Ops@example.com"}
    assert settings(Config(aliases=aliases), None).aliases == {"root": "Ops@example.com"}
    strict = settings(Config(strict_syntax=True, origin_domain="example.com"), None)
    assert (strict.strict_syntax, strict.origin_domain) == (True, "example.com")


@pytest.mark.parametrize(
    ("terms", "wrong"),
    [
        ({"confirmAfter": "1d", "keepFor": "1d"}, ["keepFor"]),
        ({"confirmAfter": "1d", "keepFor": "30m"}, ["keepFor"]),
        ({"confirmAfter": "1d", "keepFor": "36500d"}, []),
        ({"confirmAfter": 0, "keepFor": 0}, []),
        ({}, []),
    ],
)
def test_times_by_which_no_entry_of_the_list_would_count_are_refused(loaded, terms, wrong):
    sound = loaded({**QUIET, "suppressUnknown": {"enabled": True} | terms})
    found = [f"$.suppressUnknown.{name}" for name in wrong]
    assert paths(refuse_to_send(sound)) == paths(warnings(sound)) == found
    assert refuse_to_send(loaded({**QUIET, "suppressUnknown": {"enabled": False} | terms})) == ()
