"""`mailer dkim`, from no key at all to mail that verifies, as its operator types it."""

import json
import os
import re
import subprocess
import sys

import pytest
from outbound.signing import MESSAGE, Held, signer
from testbed.name_server import NameServer, txt
from testbed.relay import Relay

from mailer.config.model import DkimKey

NAME = "mail._domainkey.example.com"


@pytest.fixture
def server():
    with NameServer({}) as running:
        yield running


@pytest.fixture
def signing_relay(relay: Relay) -> Relay:
    """A relay that is configured to sign, without a key as yet."""
    relay.configure({"dkim": {"enabled": True, "domain": "example.com"}})
    return relay


def published(relay: Relay, server: NameServer, *arguments: str) -> None:
    """Do what `mailer dkim record` asks for."""
    for line in relay.mailer("dkim", "record", "--json", *arguments).stdout.splitlines():
        record = json.loads(line)
        server.zone[record["name"], "TXT"] = [txt(record["value"])]


def checked(relay: Relay, server: NameServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    return relay.mailer("dkim", "check", "--resolver", str(server), *arguments)


def test_a_key_is_made_published_and_found(signing_relay, server):
    made = signing_relay.mailer("dkim", "keygen", "--domain", "example.com")
    assert made.returncode == 0, made.stderr
    private = signing_relay.directory / "keys" / "example.com" / "mail.private"
    assert f"made {private}, the private key\n" in made.stdout
    assert f"made {private.with_suffix('.txt')}, the record to publish\n" in made.stdout
    assert private.stat().st_mode & 0o777 == 0o600

    assert checked(signing_relay, server).returncode == 1
    published(signing_relay, server)
    found = checked(signing_relay, server)
    assert found.returncode == 0, found.stdout
    assert f"{NAME}: matches our private key" in found.stdout


def test_a_key_is_never_overwritten(signing_relay):
    signing_relay.mailer("dkim", "keygen", "--domain", "example.com")
    private = signing_relay.directory / "keys" / "example.com" / "mail.private"
    before = private.read_bytes()
    again = signing_relay.mailer("dkim", "keygen", "--domain", "example.com")
    assert again.returncode == 73
    assert "never overwritten" in again.stderr
    assert private.read_bytes() == before


def test_the_configured_path_is_where_the_key_goes(relay):
    relay.configure(
        {"dkim": {"domain": "example.com", "selector": "s1", "privateKeyPath": "elsewhere/k.pem"}}
    )
    made = relay.mailer("dkim", "keygen", "--domain", "example.com", "--selector", "s1")
    assert made.returncode == 0, made.stderr
    assert (relay.directory / "elsewhere" / "k.pem").exists()


def test_a_key_can_be_made_before_there_is_a_configuration(relay, tmp_path):
    relay.config.unlink()
    environment = {name: value for name, value in os.environ.items() if name != "MAILER_CONFIG"}
    made = subprocess.run(
        [sys.executable, "-m", "mailer", "dkim", "keygen", "--domain", "example.org", "--type", "ed25519"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "keys" / "example.org" / "ed25519.private").exists()
    assert '{"domain": "example.org", "selector": "ed25519"}' in made.stdout


@pytest.mark.parametrize("domain", ["../up", "a b", ""])
def test_what_is_no_domain_is_a_usage_error(relay, domain):
    assert relay.mailer("dkim", "keygen", "--domain", domain).returncode == 2


def test_a_broken_configuration_is_not_passed_over(relay):
    relay.config.write_text("{")
    assert relay.mailer("dkim", "keygen", "--domain", "example.com").returncode == 78


def test_the_record_is_printed_for_zone_files_and_for_panels(signing_relay):
    signing_relay.mailer("dkim", "keygen", "--domain", "example.com")
    [line] = signing_relay.mailer("dkim", "record", "--json").stdout.splitlines()
    record = json.loads(line)
    assert record["name"] == NAME
    strings = re.findall(r'"([^"]*)"', record["zone"])
    assert "".join(strings) == record["value"]
    assert all(len(string) <= 255 for string in strings)
    said = signing_relay.mailer("dkim", "record").stdout
    assert record["zone"] in said
    assert record["value"] in said


def test_no_key_is_said_in_a_sentence(signing_relay):
    said = signing_relay.mailer("dkim", "record")
    assert said.returncode == 66
    assert "mail.private cannot be read: No such file or directory" in said.stderr


def test_check_tells_another_published_key_by_name(signing_relay, server):
    signing_relay.mailer("dkim", "keygen", "--domain", "example.com")
    server.zone[NAME, "TXT"] = [txt("v=DKIM1; k=rsa; p=AAAA")]
    found = [json.loads(line) for line in checked(signing_relay, server, "--json").stdout.splitlines()]
    [about_key] = [finding for finding in found if finding["what"] == "dkim"]
    assert about_key["grade"] == "problem"
    assert about_key["found"] == "another key than ours is published"
    assert {finding["what"] for finding in found} == {"key", "dkim", "spf", "dmarc", "mx"}


def test_a_configured_domain_that_is_none_is_said_in_a_sentence(relay):
    relay.configure({"dkim": {"keys": [{"domain": "a..b"}]}})
    said = relay.mailer("dkim", "check")
    assert said.returncode == 78
    assert "not a domain name" in said.stderr


def test_check_says_when_dns_does_not_answer(signing_relay, server):
    signing_relay.mailer("dkim", "keygen", "--domain", "example.com")
    server.broken = True
    assert checked(signing_relay, server).returncode == 75


def test_a_resolver_that_is_none_is_a_usage_error(signing_relay):
    said = signing_relay.mailer("dkim", "check", "--resolver", "no.such.host.invalid")
    assert said.returncode == 2


def test_rotation_leaves_the_old_key_in_use(signing_relay, server):
    signing_relay.mailer("dkim", "keygen", "--domain", "example.com")
    published(signing_relay, server)
    rotated = signing_relay.mailer("dkim", "rotate", "--domain", "example.com")
    assert rotated.returncode == 0, rotated.stderr
    [selector] = re.findall(r'by "(mail-\d{8})"', rotated.stdout)
    assert (signing_relay.directory / "keys" / "example.com" / f"{selector}.private").exists()
    assert checked(signing_relay, server).returncode == 0

    new = ("--domain", "example.com", "--selector", selector)
    assert checked(signing_relay, server, *new).returncode == 1
    published(signing_relay, server, *new)
    assert checked(signing_relay, server, *new).returncode == 0


@pytest.fixture
def signed(signing_relay, server) -> bytes:
    """A message that both of a relay's keys have signed, and whose keys are published."""
    keys = []
    for selector, kind in (("mail", "rsa2048"), ("ed", "ed25519")):
        signing_relay.mailer(
            "dkim", "keygen", "--domain", "example.com", "--selector", selector, "--type", kind
        )
        published(signing_relay, server, "--domain", "example.com", "--selector", selector)
        path = signing_relay.directory / "keys" / "example.com" / f"{selector}.private"
        keys.append(DkimKey(domain="example.com", selector=selector, private_key_path=path))
    return signer(*keys, signature_expiry=0, now=1_700_000_000.0).sign(Held(MESSAGE)) + MESSAGE


def verified(relay: Relay, server: NameServer, message: bytes) -> subprocess.CompletedProcess[str]:
    file = relay.directory / "message.eml"
    file.write_bytes(message)
    return relay.mailer("dkim", "verify", "--resolver", str(server), str(file))


def test_a_good_message_verifies(signing_relay, server, signed):
    said = verified(signing_relay, server, signed)
    assert said.returncode == 0, said.stdout
    assert said.stdout == (
        f"pass      {NAME} rsa-sha256\npass      ed._domainkey.example.com ed25519-sha256\n"
    )
    assert verified(signing_relay, server, signed.replace(b"\r\n", b"\n")).returncode == 0


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (b"Hello", b"Hallo", "body hash mismatch"),
        (b"a subject", b"the subject", "does not fit the header"),
        (b"From: App", b"From: eve@example.net\r\nFrom: App", "does not fit the header"),
        (b"a=ed25519-sha256", b"a=rsa-sha256", ""),
    ],
)
def test_a_changed_message_does_not_verify(signing_relay, server, signed, before, after, words):
    assert before in signed
    said = verified(signing_relay, server, signed.replace(before, after))
    assert said.returncode == 1
    assert "fail" in said.stdout
    assert words in said.stdout


def test_a_message_without_a_signature_is_said_to_have_none(signing_relay, server):
    said = verified(signing_relay, server, MESSAGE)
    assert said.returncode == 65
    assert "has no DKIM signature" in said.stderr


def test_a_key_that_is_not_published_is_distinguished_from_a_failed_lookup(signing_relay, server, signed):
    zone, server.zone = server.zone, {}
    said = verified(signing_relay, server, signed)
    assert said.returncode == 1
    assert said.stdout.count("permerror") == 2
    server.zone, server.broken = zone, True
    said = verified(signing_relay, server, signed)
    assert said.returncode == 75
    assert said.stdout.count("temperror") == 2
