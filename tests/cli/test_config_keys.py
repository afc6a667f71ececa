"""`mailer config keys` explains each key, and finds the one that was meant."""

import json

import pytest
from testbed.relay import Relay

from mailer.config.key_list import keys


def test_without_a_key_all_are_listed_with_their_defaults(relay: Relay) -> None:
    shown = dict(line.split(maxsplit=1) for line in relay.mailer("config", "keys").stdout.splitlines())
    assert shown.keys() == {key.path for key in keys()}
    assert shown["sending.ratePerHop"] == "0 (no limit)"
    assert shown["spoolDir"] == "spool"


def test_a_key_is_explained_by_meaning_values_and_default(relay: Relay) -> None:
    assert relay.mailer("config", "keys", "sending.ratePerHop").stdout == (
        "sending.ratePerHop\n"
        "  transactions a minute at one next hop, of each runner\n"
        "  value: 0 to 1,000,000,000\n"
        "  default: 0 (no limit)\n"
    )


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("retry", ["retry.schedule", "retry.maxAge"]),
        ("RETRY.maxage", ["retry.maxAge"]),
        ("maxAge", ["retry.maxAge"]),
        ("$.dkim.keys[3].domain", ["dkim.keys[].domain"]),
        (
            "dkim.keys",
            ["dkim.keys[]", *(f"dkim.keys[].{key}" for key in ("domain", "selector", "privateKeyPath"))],
        ),
        ("cidr", ["listeners[].trustedNetworks[].cidr"]),
    ],
)
def test_a_key_is_found_by_its_group_its_last_part_or_its_path_in_a_message(
    relay: Relay, typed: str, meant: list[str]
) -> None:
    lines = relay.mailer("config", "keys", typed, "--json").stdout.splitlines()
    assert [json.loads(line)["key"] for line in lines] == meant


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("sending.ratePerHopp", 'did you mean "sending.ratePerHop"?'),
        ("ratelimit", 'did you mean "rateLimits"?'),
        ("maxAgee", 'did you mean "maxAge"?'),
        ("forwardProvider", 'did you mean "forwardProviders[]"?'),
        ("retry.", 'did you mean "retry"?'),
        ("", "`mailer config keys` lists all"),
        ("\x1b[2J", "`mailer config keys` lists all"),
    ],
)
def test_a_key_that_is_not_there_is_a_usage_error_that_names_the_nearest(
    relay: Relay, typed: str, hint: str
) -> None:
    done = relay.mailer("config", "keys", typed)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mailer: there is no key ")
    assert done.stderr.endswith(f"; {hint}\n")
    assert "\x1b" not in done.stderr


def test_the_language_is_that_of_the_environment_or_the_option(relay: Relay) -> None:
    chinese = relay.mailer("config", "keys", "healthCheckPort", under=("env", "LC_ALL=zh_CN.UTF-8")).stdout
    assert chinese == "healthCheckPort\n  `mailer monitor` 的端口\n  取值: 1 至 65,535\n  默认值: 8025\n"
    assert relay.mailer("config", "keys", "healthCheckPort", "--language", "zh-CN").stdout == chinese


def test_json_has_what_the_model_knows(relay: Relay) -> None:
    records = [json.loads(line) for line in relay.mailer("config", "keys", "--json").stdout.splitlines()]
    by_key = {each["key"]: each for each in records}
    assert by_key["retry.schedule"]["form"] == "list"
    assert by_key["retry.schedule"]["default"] == ["1m", "5m", "15m", "30m", "1h", "2h", "4h"]
    assert (by_key["smtpPort"]["minimum"], by_key["smtpPort"]["maximum"]) == (1, 65535)
    assert by_key["longLines"]["choices"] == ["pass", "quotedPrintable", "reject"]
    assert by_key["hostname"] | {"default": "", "unset": "the system's full name"} == by_key["hostname"]
    assert [each["key"] for each in records if each["required"]] == [
        *("listeners[].trustedNetworks[].cidr", "listeners[].trustedNetworks[].user", "localUsers[].user"),
        *(
            "routes[].header.name",
            "tlsPolicies[].destination",
            "tlsPolicies[].level",
            "forwardProviders[].host",
        ),
        *("forwardProviders[].auth.type", "forwardProviders[].auth.grant", "domainBudgets[].domains"),
        "dkim.keys[].domain",
    ]


def test_it_needs_no_configuration_that_can_be_used(relay: Relay) -> None:
    relay.config.write_text('{"rety": {}}')
    assert relay.mailer("config", "check").returncode == 78
    assert relay.mailer("config", "keys", "retry").returncode == 0
