"""What the Go relay's users have loads unchanged, our example is complete, what is shown hides secrets."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from mailer.config.checks import refuse_to_serve
from mailer.config.hops import Provider
from mailer.config.load import load
from mailer.config.model import Config
from mailer.config.show import effective
from mailer.config.warnings import warnings

GO_RELAY = Path(__file__).parents[1] / "data" / "go-relay"
EXAMPLE = Path(__file__).parents[2] / "config.example.json"
VALUE = "hunter2-correct-horse"


def copy(source: Path, directory: Path) -> Path:
    path = directory / "config.json"
    path.write_bytes(source.read_bytes())
    path.chmod(0o600)
    return path


def test_the_go_relays_example_means_what_it_meant(tmp_path):
    config = load(copy(GO_RELAY / "config.example.json", tmp_path), {}).config
    assert [(p.host, p.port, p.username, p.ssl) for p in config.providers] == [
        ("smtp.primary.com", 587, "user@primary.com", False),
        ("smtp.backup.com", 587, "user@backup.com", False),
    ]
    assert config.providers[1].password.reveal() == "password2"
    assert config.direct_delivery.enabled
    assert config.dkim.private_key_path == tmp_path / "keys/example.com/mail.private"
    assert config.security.log_all_emails
    assert config.rate_limits.max_per_day == 2000


def test_the_go_relays_readme_means_what_it_meant(tmp_path):
    config = load(copy(GO_RELAY / "config.readme.json", tmp_path), {}).config
    (provider,) = config.providers
    assert (provider.host, provider.port, provider.ssl) == ("smtp.gmail.com", 587, False)
    assert provider.password.reveal() == "your-app-password"
    assert config.dkim.headers_to_sign == ("From", "To", "Subject", "Date", "Message-ID")


def test_spellings_zeros_and_comments_that_the_go_relay_took_mean_what_they_meant(tmp_path):
    """Its JSON library compared no case, and ignored unknown keys; the relay took 0 for a key left out."""
    given = {
        "_comment": "the office relay",
        "SMTPHost": "127.0.0.1",
        "smtpPort": 0,
        "batchSize": 0,
        "healthcheckport": 0,
        "directDelivery": {"RetryCount": 0},
        "dkim": {"Selector": "", "//": "see the wiki"},
        "forwardSmtp": True,
        "ForwardProviders": [{"Host": "smtp.example.com", "port": 0, "$schema": ""}],
        "security": {"AllowLocalOnly": True},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(given))
    loaded = load(path, {})
    config = loaded.config
    assert (config.smtp_port, config.batch_size, config.health_check_port) == (25, 20, 8025)
    assert (config.direct_delivery.retry_count, config.dkim.selector) == (3, "mail")
    assert [(provider.host, provider.port) for provider in config.providers] == [("smtp.example.com", 587)]
    told = {problem.path: problem.message for problem in loaded.warnings}
    assert told["$.SMTPHost"] == "is taken for smtpHost: correct its spelling"
    assert told["$.smtpPort"] == "is not set, so the default applies"
    assert told["$.dkim.//"] == told["$._comment"] == "is ignored, as a comment"


@pytest.mark.parametrize("source", [*sorted(GO_RELAY.glob("*.json")), EXAMPLE], ids=lambda path: path.name)
def test_an_example_warns_of_its_placeholders_and_is_not_served(tmp_path, source):
    loaded = load(copy(source, tmp_path), {})
    assert "$.defaultPassword" in [problem.path for problem in warnings(loaded)]
    assert [problem.path for problem in refuse_to_serve(loaded)] == ["$.defaultPassword"]


def keys(kind, prefix=""):
    for field in msgspec.structs.fields(kind):
        yield f"{prefix}{field.encode_name}"
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from keys(field.type, f"{prefix}{field.encode_name}.")


def given(document, prefix=""):
    for key, value in document.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from given(value, f"{prefix}{key}.")


def test_our_example_has_every_key():
    document = json.loads(EXAMPLE.read_text())
    providers = document["forwardProviders"]
    assert set(given(document)) == set(keys(Config))
    assert all(set(provider) == set(keys(Provider)) for provider in providers)


def test_our_example_says_the_defaults_where_it_need_not_choose(tmp_path):
    shown = effective(load(copy(EXAMPLE, tmp_path), {}).config)
    plain = effective(load(copy(GO_RELAY / "config.readme.json", tmp_path), {}).config)
    for key in ("retry", "sending", "dns", "minFreeSpace", "maxMessageSize", "archiveMaxAge", "logRetention"):
        assert shown[key] == plain[key], key


def test_what_is_shown_loads_again_as_the_same_configuration_but_for_the_secrets(tmp_path):
    shown = effective(load(copy(EXAMPLE, tmp_path), {}).config)
    again = tmp_path / "again.json"
    again.write_text(json.dumps(shown))
    assert effective(load(again, {}).config) == shown
    assert (shown["smtpPort"], shown["batchDelay"], shown["maxMessageSize"]) == (25, 1000, 26_214_400)
    assert shown["retry"] == {"schedule": [60, 300, 900, 1800, 3600, 7200, 14400], "maxAge": 432_000}


def test_what_is_shown_has_no_secret_and_says_where_they_are(tmp_path):
    path = tmp_path / "config.json"
    secrets = [VALUE, {"env": "PW"}, {"file": "pw"}, {"credential": "pw"}, {"command": ["pass", VALUE]}, ""]
    document = {"forwardProviders": [{"host": "h", "password": secret} for secret in secrets]}
    path.write_text(
        json.dumps({**document, "defaultPassword": VALUE, "adminToken": VALUE, "forwardPassword": VALUE})
    )
    shown = effective(load(path, {"PW": VALUE}).config)
    assert VALUE not in json.dumps(shown)
    assert shown["defaultPassword"] == shown["adminToken"] == shown["forwardPassword"] == "********"
    assert [provider["password"] for provider in shown["forwardProviders"]] == [
        "********",
        {"env": "PW"},
        {"file": str(tmp_path / "pw")},
        {"credential": "pw"},
        {"command": ["pass", "********"]},
        "",
    ]


@pytest.mark.usefixtures("unmeasured")
def test_loading_imports_nothing_that_a_start_each_minute_should_not_pay_for(tmp_path):
    path = copy(EXAMPLE, tmp_path)
    program = "import sys; from mailer.config.load import load; load(sys.argv[1], {}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    heavy = {"subprocess", "difflib", "tomli", "tomllib", "hashlib", "asyncio", "shlex"}
    assert not heavy & set(done.stdout.split())
