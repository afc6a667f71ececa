"""`mailer config check` finds providers that cannot work as written, and names that receivers refuse."""

import json

import pytest

from mailer.config.hops import Provider, by_name, find_providers
from mailer.config.load import load
from mailer.config.own_name import system_name
from mailer.config.warnings import warnings
from mailer.mail.host_name import fault

BASE = {"defaultUsername": "me", "defaultPassword": "kq3X-9vT_aL2", "forwardSMTP": True}
P = "$.forwardProviders[0]."


@pytest.fixture
def told(tmp_path):
    """Path and message of each warning."""

    def check(document):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(BASE | document))
        path.chmod(0o600)
        return {problem.path: problem.message for problem in warnings(load(path, {}))}

    return check


def of_provider(told, **keys):
    return told({"forwardProviders": [{"host": "smtp.example.com", **keys}]})


@pytest.mark.parametrize(
    ("port", "ssl", "wrong"),
    [
        (465, False, True),
        (465, True, False),
        (587, True, True),
        (587, False, False),
        (25, True, True),
        (25, False, False),
        (2525, True, True),
        (2465, True, False),
        (1025, False, False),
    ],
)
def test_a_port_that_does_not_fit_ssl_is_reported(told, port, ssl, wrong):
    assert (f"{P}ssl" in of_provider(told, port=port, ssl=ssl)) is wrong


def test_the_one_provider_of_the_go_relay_is_looked_at_under_its_own_keys(told):
    found = told({"forwardHost": "smtp://smtp.example.com:587", "forwardPort": 465})
    assert set(found) == {"$.forwardHost", "$.forwardSSL"}


@pytest.mark.parametrize(
    ("host", "right"),
    [
        ("smtp://smtp.example.com", "smtp.example.com"),
        ("smtps://smtp.example.com:465/", "smtp.example.com"),
        ("smtp.example.com:587", "smtp.example.com"),
        ("[smtp.example.com]", "smtp.example.com"),
        ("[smtp.example.com]:587", "smtp.example.com"),
        ("[192.0.2.1]", "192.0.2.1"),
        ("[2001:db8::1]:25", "2001:db8::1"),
        (" smtp.example.com", "smtp.example.com"),
        ("smtp.example.com ", "smtp.example.com"),
        ("smtp example.com", "smtp.example.com"),
        ("user@smtp.example.com", "smtp.example.com"),
    ],
)
def test_a_host_that_is_more_than_a_name_is_reported_with_what_to_write(told, host, right):
    assert f'write "{right}"' in of_provider(told, host=host)[f"{P}host"]


@pytest.mark.parametrize(
    "host",
    ["smtp.example.com", "SMTP.Example.com.", "192.0.2.1", "2001:db8::1", "fe80::1%eth0", "under_score.test"],
)
def test_a_host_that_can_be_looked_up_is_not(told, host):
    assert f"{P}host" not in of_provider(told, host=host)


@pytest.mark.parametrize(
    ("host", "port", "more", "itself"),
    [
        ("127.0.0.1", 25, {}, True),
        ("localhost", 25, {}, True),
        ("::1", 2500, {"smtpPort": 2500}, True),
        ("relay.example.com", 25, {"hostname": "relay.example.com"}, True),
        ("127.0.0.1", 587, {"listeners": [{"port": 587}]}, True),
        ("192.0.2.7", 25, {"smtpHost": "192.0.2.7", "security": {"allowLocalOnly": False}}, True),
        ("127.0.0.1", 1025, {}, False),
        ("smtp.example.com", 25, {}, False),
        ("192.0.2.7", 25, {"smtpHost": "192.0.2.7"}, False),
    ],
)
def test_a_provider_that_is_our_own_receiver_is_reported(told, host, port, more, itself):
    found = told({"forwardProviders": [{"host": host, "port": port}], **more})
    assert (f"{P}port" in found) is itself


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mail.example.com", ""),
        ("mail.example.com.", ""),
        ("xn--bcher-kva.example", ""),
        ("mail", "short name"),
        ("localhost", "short name"),
        ("localhost.localdomain", "this network only"),
        ("printer.local", "this network only"),
        ("vm.internal", "this network only"),
        ("my_host.example.com", "underscore"),
        ("192.0.2.1", "without brackets"),
        ("2001:db8::1", "without brackets"),
        ("[192.0.2.1]", "many receivers refuse"),
        ("[IPv6:2001:db8::1]", "many receivers refuse"),
        ("mail.example.1", "ends in a number"),
        ("-.example.com", "not a host name"),
        ("mail..example.com", "not a host name"),
        ("mail example.com", "not a host name"),
        ("", "not a host name"),
    ],
)
def test_names_that_receivers_refuse_are_known(told, name, words):
    assert words in fault(name)
    assert bool(fault(name)) is bool(words)
    if name:
        assert ("$.hostname" in of_provider_with(told, hostname=name)) is bool(words)


def of_provider_with(told, **keys):
    return told({"forwardProviders": [{"host": "smtp.example.com"}], **keys})


def test_from_of_a_domain_without_a_key_is_reported_unless_the_provider_signs(told):
    provider = {"host": "h.example", "sender": "me@mailbox.example", "rewriteFrom": "replace"}
    settings = {"dkim": {"enabled": True, "keys": [{"domain": "example.com"}]}}
    assert f"{P}rewriteFrom" in told({"forwardProviders": [provider], **settings})
    assert f"{P}rewriteFrom" not in told({"forwardProviders": [provider | {"dkim": False}], **settings})


@pytest.mark.parametrize(
    ("kernel", "hosts", "mailname", "name"),
    [
        (
            "mail.example.com",
            "127.0.1.1 other.example.com mail.example.com\n",
            "x.example\n",
            "mail.example.com",
        ),
        ("mail", "127.0.0.1 localhost\n127.0.1.1 mail.example.com mail # us\n", "", "mail.example.com"),
        ("mail", "127.0.1.1 mail mail.example.com\n", "", "mail.example.com"),
        ("mail", "127.0.1.1 mailbox.example.com mailbox\n", "example.org\n", "example.org"),
        ("mail", "127.0.1.1 mail.local mail\n127.0.0.1 localhost.localdomain mail", "", "mail"),
        ("my_host.example.com", "192.0.2.1 host.example.com my_host.example.com\n", "", "host.example.com"),
        ("mail", "\xff\xfe garbage\n\n#\n1\n", "", "mail"),
        ("mail", None, None, "mail"),
    ],
)
def test_the_systems_full_name_is_found_without_asking_anybody(tmp_path, kernel, hosts, mailname, name):
    for file, text in (("hosts", hosts), ("mailname", mailname)):
        if text is not None:
            (tmp_path / file).write_text(text, encoding="latin-1")
    assert system_name(tmp_path, kernel) == name


def test_each_provider_has_a_name_of_its_own_and_an_address_names_all_there():
    first, second = (Provider(host="smtp.example.com", username=f"{who}@example.com") for who in "ab")
    other, misleading = (
        Provider(host="smtp.example.com", port=25),
        Provider(host="x", name="smtp.example.com #2"),
    )
    every = (first, second, other, misleading)
    host = "smtp.example.com"
    assert by_name(every) == {
        host: first,
        f"{host} #3": second,
        f"{host} #4": other,
        f"{host} #2": misleading,
    }
    for text, meant in (
        (host, [first]),
        (f"{host} #3", [second]),
        (f"{host} #2", [misleading]),
        (f"{host}:587", [first, second]),
        (f"b@example.com@{host}", [second]),
        (f"b@example.com@{host}:587", [second]),
        ("x:587", [misleading]),
        (f"{host} #5", []),
        ("b@example.com", []),
    ):
        assert [*find_providers(every, text).values()] == meant
