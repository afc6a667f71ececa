"""A configuration is found, read whole, and either used or refused with everything that is wrong with it."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailer.config import load as loading
from mailer.config.document import LARGEST
from mailer.config.hops import IpVersion, Provider
from mailer.config.load import find, load
from mailer.config.model import Config, UncertainPolicy
from mailer.config.problem import ConfigError, Problem
from mailer.config.receiving import Offer
from mailer.config.secrets import FromEnvironment, Secret

VALUE = "hunter2-correct-horse"


def write(path: Path, content: object) -> Path:
    data = content if isinstance(content, bytes) else content.encode() if isinstance(content, str) else None
    path.write_bytes(json.dumps(content).encode() if data is None else data)
    return path


@pytest.fixture
def loaded(tmp_path):
    def load_it(content, environ=None, name="config.json"):
        return load(write(tmp_path / name, content), environ or {})

    return load_it


@pytest.fixture
def problems(loaded):
    def refusals(content, environ=None, name="config.json"):
        with pytest.raises(ConfigError) as caught:
            loaded(content, environ, name)
        assert VALUE not in str(caught.value)
        return {problem.path: problem.message for problem in caught.value.problems}

    return refusals


# Finding it.


def test_the_argument_wins_over_the_variable_and_the_variable_over_the_places(tmp_path):
    place = write(tmp_path / "config.json", {})
    assert find("/x/a.json", {"MAILER_CONFIG": "/x/b.json"}, (place,)) == Path("/x/a.json")
    assert find(None, {"MAILER_CONFIG": "/x/b.json"}, (place,)) == Path("/x/b.json")
    assert find(None, {}, (tmp_path / "none.json", place)) == place


def test_the_places_are_the_working_directory_then_etc():
    assert [str(place) for place in loading.PLACES] == [
        "config.json",
        "config.toml",
        "/etc/mailer/config.json",
        "/etc/mailer/config.toml",
    ]


def test_a_configuration_that_is_nowhere_is_an_error_that_lists_where_it_was_looked_for(tmp_path):
    with pytest.raises(ConfigError) as caught:
        find(None, {}, (tmp_path / "config.json", tmp_path / "config.toml"))
    for part in (f"{tmp_path}/config.json", f"{tmp_path}/config.toml", "--config", "MAILER_CONFIG"):
        assert part in str(caught.value)


def test_a_broken_link_or_a_locked_directory_is_not_taken_for_a_missing_file(tmp_path):
    (tmp_path / "loop.json").symlink_to("loop.json")
    assert find(None, {}, (tmp_path / "loop.json",)) == tmp_path / "loop.json"
    with pytest.raises(ConfigError, match=r"loop\.json: cannot be read: Too many levels"):
        load(tmp_path / "loop.json", {})


def test_a_file_that_a_unit_hides_from_its_service_is_said_to_be_so() -> None:
    """ProtectHome= of our units: the administrator sees the file, and the service does not."""
    with pytest.raises(ConfigError, match="a service with ProtectHome= sees nothing below /home"):
        load(Path("/home/nobody-of-this-name/mailer/config.json"), {})


def test_a_named_file_that_is_missing_or_a_directory_is_an_error_that_names_it(tmp_path):
    for path, reason in ((tmp_path / "no.json", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=f"{path.name}.*{reason}"):
            load(path, {})


def test_a_relative_path_is_relative_to_the_configuration_and_not_to_the_working_directory(
    tmp_path, monkeypatch
):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/pw").write_text("from-file")
    (tmp_path / "etc/pw").chmod(0o600)
    document = {"defaultPassword": {"file": "pw"}, "dkim": {"privateKeyPath": "k/x.pem"}}
    write(tmp_path / "etc/config.json", document)
    monkeypatch.chdir(tmp_path)
    config = load("etc/config.json", {}).config
    assert config.spool_dir == tmp_path / "etc/spool"
    assert config.dkim.private_key_path == tmp_path / "etc/k/x.pem"
    assert config.default_password.reveal() == "from-file"


def test_a_secrets_program_with_a_slash_is_beside_the_configuration_and_one_without_is_in_path(
    loaded, tmp_path
):
    (tmp_path / "pw").write_text("#!/bin/sh\necho beside")
    (tmp_path / "pw").chmod(0o700)
    assert loaded({"adminToken": {"command": ["./pw"]}}).config.admin_token.reveal() == "beside"
    assert loaded({"adminToken": {"command": ["echo", "x"]}}).config.admin_token.reveal() == "x"


def test_an_absolute_path_stays(loaded):
    assert loaded({"spoolDir": "/var/spool/mailer"}).config.spool_dir == Path("/var/spool/mailer")


# Reading it.


@pytest.mark.security_case(98)
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("c.json", b"\xef\xbb\xbf{}", "byte order mark"),
        ("c.toml", b"\xef\xbb\xbfsmtpPort = 1", "byte order mark"),
        ("c.json", b'{"a":\n "hunter2-correct-horse\xff"}', "not UTF-8 at line 2"),
        (
            "c.json",
            b'{\n  "defaultPassword": "hunter2-correct-horse"\n  "x": 1}',
            "line 3, column 3: Expecting",
        ),
        ("c.json", b"", "not JSON at line 1, column 1"),
        ("c.json", b'{"a": "hunter2-correct-horse', "not JSON at line 1"),
        ("c.json", b"[" * 200_000, "nested too deeply"),
        ("c.json", b'{"smtpPort": ' + b"9" * 5000 + b"}", "too large"),
        ("c.json", b" " * (LARGEST + 1), "larger than"),
        ("c.toml", b'a = "hunter2-correct-horse', "not TOML"),
        ("c.toml", b"a = 1\na = 2\n[b]", "Cannot overwrite a value (at line 2, column 6)"),
        ("c.toml", b"a = " + b"[" * 100_000, "nested too deeply"),
        ("c.toml", b"a = " + b"9" * 5000, "too large"),
    ],
)
def test_a_file_that_is_not_json_or_toml_is_refused_in_one_sentence(problems, name, content, expected):
    (message,) = problems(content, name=name).values()
    assert expected in message
    assert "\n" not in message


def test_toml_1_1_is_read(loaded):
    """Inline tables over several lines with a comma at their end, which Python's own reader refuses."""
    text = b'defaultPassword = {\n  env = "PW",  # there\n}\nhostname = "\\x61.example.com"\n'
    config = loaded(text, {"PW": VALUE}, name="config.toml").config
    assert (config.default_password.reveal(), config.hostname) == (VALUE, "a.example.com")


def test_a_bad_character_of_a_value_is_not_repeated(problems):
    (message,) = problems(b'{"adminToken": "pw\\q"}').values()
    assert message == "is not JSON at line 1, column 19: Invalid \\escape"
    # Both parsers' own messages would quote it: here a part of somebody's password.
    (message,) = problems(b'a = "pw\x01\x02"', name="c.toml").values()
    assert "\\x01" not in message
    assert "line 1, column 8" in message


def test_json_and_toml_of_the_same_content_are_the_same_configuration(loaded):
    toml = """
        smtpPort = 2525
        defaultPassword = {env = "PW"}
        batchDelay = "250ms"
        uncertain = "hold"
        [retry]
        schedule = [60, "5m"]
        [[forwardProviders]]
        host = "a.example"
        priority = 2
        [[forwardProviders]]
        host = "b.example"
    """
    document = {
        "smtpPort": 2525,
        "defaultPassword": {"env": "PW"},
        "batchDelay": 250,
        "uncertain": "hold",
        "retry": {"schedule": ["1m", 300]},
        "forwardProviders": [{"host": "a.example", "priority": 2}, {"host": "b.example"}],
    }
    config = loaded(toml, name="config.toml").config
    assert config == loaded(document).config
    assert config.uncertain is UncertainPolicy.HOLD
    assert config.retry.schedule == (60, 300)


# What is wrong with it.


@pytest.mark.security_case(98)
def test_every_problem_is_reported_at_once_with_its_path(problems):
    found = problems(
        {
            "smtpPort": "yes",
            "batchSize": True,
            "forwardSMTP": 1,
            "maxMessageSize": "25 apples",
            "uncertain": VALUE,
            "defaultPassword": {"env": "A", "file": VALUE},
            "hostname": "a\r\nb",
            "spoolDir": 7,
            "security": [],
            "retry": {"schedule": [], "maxAge": 0},
            "directDelivery": {"ipVersion": 4, "retryCount": -1},
            "minFreeSpace": -1,
            "dns": {"timeout": True},
            "forwardProviders": [{"host": "a.example"}, {"port": 70000}, VALUE, {"host": ""}, {"host": 7}],
        },
        {"SMTP_PORT": "many", "FORWARD_SSL": "maybe"},
    )
    assert found == {
        "$.smtpPort": "expected a whole number, from 1 to 65535, got a string",
        "$.hostname": "expected a string without control characters, got one with control characters",
        "$.spoolDir": "expected a path, got a whole number",
        "$.maxMessageSize": 'expected a whole number of bytes or a string such as "25MiB", "10MB", from 1, '
        "got another string",
        "$.directDelivery.retryCount": "expected a whole number, from 1 to 1000000, got one out of range",
        "$.directDelivery.ipVersion": 'expected one of "any", "4", "6", got a whole number',
        "$.forwardSMTP": "expected true or false, got a whole number",
        "$.forwardProviders[1].host": "this key is needed",
        "$.forwardProviders[1].port": "expected a whole number, from 1 to 65535, got one out of range",
        "$.forwardProviders[2]": "expected an object, got a string",
        "$.forwardProviders[3].host": "expected a string without control characters, not empty, "
        "got an empty string",
        "$.forwardProviders[4].host": "expected a string without control characters, not empty, "
        "got a whole number",
        "$.minFreeSpace": 'expected a whole number of bytes or a string such as "25MiB", "10MB", '
        "got one out of range",
        "$.dns.timeout": 'expected a number of seconds or a string such as "5m", "1h30m" '
        "(ms, s, m, h, d, w), more than 0, got a boolean",
        "$.batchSize": "expected a whole number, from 1 to 1000000, got a boolean",
        "$.retry.schedule": "expected a list of at least 1, got a shorter one",
        "$.retry.maxAge": 'expected a number of seconds or a string such as "5m", "1h30m" '
        "(ms, s, m, h, d, w), more than 0, got one out of range",
        "$.uncertain": 'expected one of "retry", "hold", got another string',
        "$.security": "expected an object, got a list",
        "$.defaultPassword": 'expected a string, {"env": "NAME"}, {"file": "path"}, {"credential": "name"} '
        'or {"command": ["program", ...]}, got an object',
        "environment SMTP_PORT": "expected a whole number, from 1 to 65535, got a string",
        "environment FORWARD_SSL": "expected true or false, got a string",
    }


@pytest.mark.parametrize(
    ("document", "path", "nearest"),
    [
        ({"smtp_port": 1}, "$.smtp_port", "smtpPort"),
        ({"security": {"requireAuht": True}}, "$.security.requireAuht", "requireAuth"),
        (
            {"forwardProviders": [{"host": "a", "pasword": VALUE}]},
            "$.forwardProviders[0].pasword",
            "password",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(problems, document, path, nearest):
    assert problems(document) == {path: f"unknown key; the nearest known one is {nearest}"}


def test_a_key_from_the_file_cannot_write_to_the_terminal(problems):
    (path,) = problems({"\x1b[2J\n" + "k" * 500: 1})
    assert path.isprintable()
    assert len(path) < 80


def test_a_key_in_two_spellings_is_refused(problems):
    assert problems({"smtpPort": 1, "SMTPPort": 2}) == {"$.smtpPort": "this key is given more than once"}


def test_a_key_given_twice_is_refused_where_it_stands(problems):
    token = '{"env": "A", "env": "B"}'
    text = f'{{"smtpPort": 1, "smtpPort": 2, "dkim": {{"domain": "a", "domain": ""}}, "adminToken": {token}}}'
    assert problems(text) == {
        "$.smtpPort": "this key is given more than once",
        "$.dkim.domain": "this key is given more than once",
        "$.adminToken": problems({"adminToken": {"env": 1}})["$.adminToken"],
    }


def test_ten_thousand_mistakes_are_cut_off_quickly(problems):
    found = problems({f"key{at}": VALUE for at in range(10_000)})
    assert len(found) == 101
    assert found["$"] == "and perhaps more; correct these first"


def test_a_date_of_toml_is_no_text(problems):
    found = problems("hostname = 2026-11-22\nsmtpPort = 25.5", name="config.toml")
    assert found["$.hostname"].endswith("got a date")
    assert found["$.smtpPort"].endswith("got a number with a fraction")


@pytest.mark.parametrize("top", ["[]", "7", '"x"', "null", "true"])
def test_a_document_that_is_no_object_is_refused_and_the_environment_still_checked(problems, top):
    assert set(problems(top, {"BATCH_SIZE": "-1"})) == {"$", "environment BATCH_SIZE"}


@pytest.mark.parametrize(
    "value",
    [
        {"env": ""},
        {"file": ""},
        {"credential": "../x"},
        {"credential": "."},
        {"command": []},
        {"command": "echo x"},
        {"command": ["echo", 1]},
        {"vault": "x"},
        {},
        7,
        "\ud800",
    ],
)
def test_a_secret_of_no_known_form_is_refused(problems, value):
    assert set(problems({"adminToken": value})) == {"$.adminToken"}


def test_numbers_that_json_does_not_have_are_refused(problems):
    assert set(problems('{"smtpPort": NaN, "logRetention": Infinity, "archiveMaxAge": 1e999}')) == {
        "$.smtpPort",
        "$.logRetention",
        "$.archiveMaxAge",
    }


# What it means.


def test_an_empty_configuration_has_the_documented_defaults(loaded, tmp_path):
    config = loaded({}).config
    assert config == Config(spool_dir=tmp_path / "spool", users_file=tmp_path / "users.json")
    assert (config.smtp_host, config.smtp_port, config.health_check_port) == ("127.0.0.1", 25, 8025)
    assert (config.batch_size, config.batch_delay, config.max_message_size) == (20, 1000, 26_214_400)
    assert (config.retry.max_age, config.dkim.signature_expiry) == (432_000, 604_800)
    assert config.retry.schedule == (60, 300, 900, 1800, 3600, 7200, 14400)
    assert config.security.allow_local_only
    assert config.security.require_auth
    assert not config.direct_delivery.enabled
    assert config.direct_delivery.ip_version is IpVersion.ANY
    assert config.providers == ()


def test_null_is_the_default(loaded):
    nothing = {"smtpHost": None, "dkim": None, "forwardProviders": None, "security": {"requireAuth": None}}
    provider = {"forwardSMTP": True, "forwardProviders": [{"host": "a", "port": None, "priority": None}]}
    assert loaded(nothing).config == loaded({}).config
    assert loaded(provider).config.providers == (Provider(host="a"),)


def test_keys_that_were_never_built_are_accepted_with_what_replaces_them(loaded):
    keys = {"continueOnError": True, "workerCount": 5, "queueSize": 100, "processingTimeout": "30s"}
    warnings = loaded({**keys, "directDelivery": {"workerCount": 3}}).warnings
    assert {warning.path for warning in warnings} == {f"$.{key}" for key in keys} | {
        "$.directDelivery.workerCount"
    }
    assert "sending.concurrency" in next(w.message for w in warnings if w.path == "$.workerCount")


@given(st.lists(st.one_of(st.none(), st.integers(-5, 5)), max_size=8))
def test_providers_are_tried_by_priority_then_by_position(priorities):
    providers = tuple(Provider(host=f"h{at}", priority=p) for at, p in enumerate(priorities))
    config = Config(forward_smtp=True, forward_providers=providers)
    ranks = [(at if p is None else p, at) for at, p in enumerate(priorities)]
    assert [provider.host for provider in config.providers] == [f"h{at}" for _, at in sorted(ranks)]


def test_the_legacy_provider_counts_only_while_the_list_is_empty_and_forwarding_is_on(loaded):
    legacy = {
        "forwardHost": "smtp.example.com",
        "forwardPort": 465,
        "forwardUsername": "u",
        "forwardPassword": VALUE,
        "forwardSSL": True,
    }
    provider = Provider(host="smtp.example.com", port=465, username="u", password=Secret(VALUE), ssl=True)
    assert loaded({**legacy, "forwardSMTP": True}).config.providers == (provider,)
    assert loaded({**legacy, "forwardSMTP": False}).config.providers == ()
    listed = loaded({**legacy, "forwardSMTP": True, "forwardProviders": [{"host": "b"}]}).config
    assert listed.providers == (Provider(host="b"),)


@pytest.mark.parametrize(
    ("host", "local_only", "bound"),
    [
        ("0.0.0.0", True, "127.0.0.1"),
        ("", True, "127.0.0.1"),
        ("192.0.2.1", True, "127.0.0.1"),
        ("::1", True, "::1"),
        ("127.0.0.2", True, "127.0.0.2"),
        ("::ffff:7f00:1", True, "127.0.0.1"),
        ("LOCALHOST", True, "127.0.0.1"),
        ("::", True, "127.0.0.1"),
        ("0.0.0.0", False, "0.0.0.0"),
    ],
)
def test_allow_local_only_forces_the_bind_address_to_loopback(loaded, host, local_only, bound):
    config = loaded({"smtpHost": host, "security": {"allowLocalOnly": local_only}}).config
    assert config.bind_address == bound


@pytest.mark.parametrize(
    ("host", "local_only", "offered"),
    [
        ("127.0.0.1", True, Offer.NONE),
        ("127.0.0.2", True, Offer.NONE),
        ("0.0.0.0", True, Offer.NONE),
        ("::1", False, Offer.NONE),
        ("::ffff:7f00:1", False, Offer.NONE),
        ("LOCALHOST", False, Offer.NONE),
        ("0.0.0.0", False, Offer.OFFERED),
        ("192.0.2.1", False, Offer.OFFERED),
    ],
)
def test_local_applications_are_not_offered_the_certificate_of_a_listener(loaded, host, local_only, offered):
    listeners = [{"host": "0.0.0.0", "port": 587, "tls": "required"}]
    config = loaded(
        {"smtpHost": host, "listeners": listeners, "security": {"allowLocalOnly": local_only}}
    ).config
    assert config.offered_tls is offered


@pytest.mark.parametrize(
    ("username", "required", "asked"),
    [("", True, True), ("u", False, True), ("", False, False), ("u", True, True)],
)
def test_a_login_is_required_if_configured_and_whenever_one_is_set(username, required, asked, loaded):
    document = {"defaultUsername": username, "security": {"requireAuth": required}}
    assert loaded(document).config.auth_required is asked


def test_the_dkim_key_defaults_to_the_path_that_the_go_relay_used(loaded, tmp_path):
    dkim = loaded({"defaultUsername": "noreply@example.com", "dkim": {"privateKeyPath": ""}}).config.dkim
    assert dkim.domain == "example.com"
    assert dkim.private_key_path == tmp_path / "keys/example.com/mail.private"
    assert loaded({"defaultUsername": "me"}).config.dkim.private_key_path is None


# The environment.


def test_the_environment_overrules_the_file(loaded):
    environ = {
        "SMTP_HOST": "::1",
        "SMTP_PORT": "2525",
        "DEFAULT_USERNAME": "12345",
        "DEFAULT_PASSWORD": VALUE,
        "FORWARD_SMTP": "1",
        "FORWARD_HOST": "smtp.example.com",
        "FORWARD_PORT": "465",
        "FORWARD_USERNAME": "u",
        "FORWARD_PASSWORD": VALUE,
        "FORWARD_SSL": "TRUE",
        "BATCH_SIZE": "5",
        "BATCH_DELAY": "2s",
        "ENABLE_HEALTH_CHECK": "0",
        "HEALTH_CHECK_PORT": "8026",
    }
    config = loaded({"smtpPort": 25, "defaultPassword": "old", "forwardSMTP": False}, environ).config
    assert (config.smtp_host, config.smtp_port, config.default_username) == ("::1", 2525, "12345")
    assert config.default_password.reveal() == VALUE
    assert config.default_password.reference == FromEnvironment("DEFAULT_PASSWORD")
    (provider,) = config.providers
    assert (provider.host, provider.port, provider.username, provider.ssl) == (
        "smtp.example.com",
        465,
        "u",
        True,
    )
    assert provider.password.reveal() == VALUE
    assert (config.batch_size, config.batch_delay) == (5, 2000)
    assert (config.enable_health_check, config.health_check_port) == (False, 8026)


def test_a_number_of_five_thousand_digits_is_refused_like_any_other(problems):
    assert set(problems({}, {"BATCH_SIZE": "9" * 5000})) == {"environment BATCH_SIZE"}


def test_an_empty_variable_overrules_nothing(loaded):
    assert loaded({"smtpPort": 2525}, {"SMTP_PORT": "", "DEFAULT_PASSWORD": ""}).config.smtp_port == 2525


# Whatever is in it.

KNOWN = """
    smtpPort smtpHost defaultPassword adminToken forwardProviders dkim security retry dns schedule host port
    priority password env file command credential privateKeyPath spoolDir uncertain maxMessageSize batchDelay
    headersToSign nameservers ipVersion directDelivery
"""
KEYS = st.sampled_from(KNOWN.split())
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from([VALUE, f"x{VALUE}", "5m"]),
)
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(), inner),
    max_leaves=25,
)


def attempt(path: Path) -> tuple[Problem, ...]:
    """Load it; nothing but a configuration or a ConfigError may come of it."""
    try:
        assert isinstance(load(path, {}).config, Config)
    except ConfigError as error:
        return error.problems or (Problem("", "a refusal without a reason\n"),)
    return ()


@pytest.mark.exhaustive
@pytest.mark.security_case(98)
@given(st.dictionaries(KEYS, DOCUMENTS))
@example({"uncertain": VALUE})
@example({"directDelivery": {"ipVersion": VALUE}})
@example({"smtpHost": f"{VALUE}\n"})
def test_any_document_is_a_configuration_or_a_refusal_that_repeats_no_value(tmp_path_factory, document):
    for problem in attempt(write(tmp_path_factory.getbasetemp() / "any.json", document)):
        assert VALUE not in str(problem)
        assert str(problem).isprintable()


@pytest.mark.security_case(98)
@given(
    st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_any_bytes_are_a_configuration_or_a_refusal(tmp_path_factory, suffix, data):
    for problem in attempt(write(tmp_path_factory.getbasetemp() / f"bytes.{suffix}", data)):
        assert str(problem).isprintable()
