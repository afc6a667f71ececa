"""The DKIM part of the configuration: its defaults, and what it is refused for before any mail is touched."""

import json

import pytest

from mailer.config.checks import refuse_to_send
from mailer.config.load import load
from mailer.config.model import MissingKey
from mailer.config.warnings import warnings
from mailer.send.dkim.signer import Signer


@pytest.fixture
def loaded(tmp_path):
    def make(dkim, **settings):
        file = tmp_path / "config.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps({"dkim": {"enabled": True, **dkim}, **settings}))
        return load(file, {})

    return make


def refusals(loaded) -> list[str]:
    return [problem.path for problem in refuse_to_send(loaded)]


def keys_of(loaded):
    return [(key.domain, key.selector, str(key.private_key_path)) for key in loaded.config.dkim.signing_keys]


def test_several_keys_have_the_paths_of_one(loaded, tmp_path):
    made = loaded(
        {"keys": [{"domain": "a.test"}, {"domain": "b.test", "selector": "s", "privateKeyPath": "k.pem"}]},
        defaultUsername="app@example.com",
    )
    assert keys_of(made) == [
        ("a.test", "mail", f"{tmp_path}/keys/a.test/mail.private"),
        ("b.test", "s", f"{tmp_path}/k.pem"),
    ]
    assert refusals(made) == []


def test_the_key_of_the_domain_is_one_of_the_keys(loaded):
    made = loaded({"domain": "a.test", "keys": [{"domain": "a.test", "selector": "ed"}]})
    assert [(domain, selector) for domain, selector, _ in keys_of(made)] == [
        ("a.test", "mail"),
        ("a.test", "ed"),
    ]


def test_mail_without_a_key_is_held_unless_told_otherwise(loaded):
    assert loaded({}).config.dkim.on_missing_key is MissingKey.HOLD
    assert loaded({"onMissingKey": "send"}).config.dkim.on_missing_key is MissingKey.SEND


LONG = ".".join(["x" * 60] * 4)


@pytest.mark.parametrize(
    ("dkim", "path"),
    [
        ({"domain": LONG}, "$.dkim.domain"),
        ({"domain": "x" * 64 + ".test"}, "$.dkim.domain"),
        ({"domain": "a..test"}, "$.dkim.domain"),
        ({"domain": "a.test; d=b.test"}, "$.dkim.domain"),
        ({"domain": "bücher.test"}, "$.dkim.domain"),
        ({"domain": "../../etc"}, "$.dkim.domain"),
        ({"domain": "a.test", "selector": "a b"}, "$.dkim.selector"),
        ({"domain": "a.test", "keys": [{"domain": "a.test"}]}, "$.dkim.keys[0].selector"),
        (
            {"keys": [{"domain": "a.test"}, {"domain": "A.test", "selector": "MAIL"}]},
            "$.dkim.keys[1].selector",
        ),
        ({"keys": [{"domain": "a.test"}, {"domain": LONG}]}, "$.dkim.keys[1].domain"),
        ({"domain": "a.test", "headersToSign": ["From", "To:"]}, "$.dkim.headersToSign[1]"),
        ({"domain": "a.test", "headersToSign": ["a;b=c"]}, "$.dkim.headersToSign[0]"),
        ({"domain": "a.test", "headersToSign": ["Bcc"]}, "$.dkim.headersToSign[0]"),
        ({"domain": "a.test", "headersToSign": ["received"]}, "$.dkim.headersToSign[0]"),
        ({"domain": "a.test", "headersToSign": ["Ä"]}, "$.dkim.headersToSign[0]"),
    ],
)
def test_a_signature_that_could_not_be_verified_is_refused_with_its_place(loaded, dkim, path):
    made = loaded(dkim)
    assert refusals(made) == [path]
    assert path in [problem.path for problem in warnings(made)]


def test_nothing_is_refused_while_dkim_is_off(loaded):
    assert refusals(loaded({"enabled": False, "domain": LONG})) == []


def test_the_longest_domain_that_fits_is_signed_for(loaded):
    domain = LONG[: 253 - len("mail._domainkey.")]
    made = loaded({"domain": domain})
    assert refusals(made) == []
    assert Signer(made.config.dkim, lambda: 0.0).signing_domains(domain) == (domain,)


def test_each_key_that_is_missing_or_open_to_all_is_named(loaded, tmp_path):
    (tmp_path / "open.pem").write_text("key")
    (tmp_path / "open.pem").chmod(0o644)
    made = loaded({"keys": [{"domain": "a.test"}, {"domain": "b.test", "privateKeyPath": "open.pem"}]})
    assert refusals(made) == ["$.dkim.keys[1].privateKeyPath"]
    assert "$.dkim.keys[0].privateKeyPath" in [problem.path for problem in warnings(made)]
