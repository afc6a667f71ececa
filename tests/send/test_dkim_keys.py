"""Key files: read once, looked at each time, and never used when they are not what they were."""

import base64
import os
import re
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from outbound.signing import pem, record_of, write_key

from mailer.send.dkim.key_files import KeyFile, KeyTrouble, published_key, record_path, write_new, zone_record
from mailer.send.dkim.keys import KeyType, KeyUnusable, generate, parse, verify_ed25519


@pytest.fixture
def rsa_pem():
    return pem("rsa", KeyType.RSA2048)


def rewritten(private: bytes, form: PrivateFormat, protection=None) -> bytes:
    key = load_pem_private_key(private, None)
    return key.private_bytes(Encoding.PEM, form, protection or NoEncryption())


def test_a_key_is_the_same_in_either_of_its_forms(rsa_pem):
    old_form = rewritten(rsa_pem, PrivateFormat.TraditionalOpenSSL)
    assert b"BEGIN RSA PRIVATE KEY" in old_form
    assert parse(old_form).record == parse(rsa_pem).record


def test_the_record_of_an_ed25519_key_is_the_bare_key():
    private = parse(generate(KeyType.ED25519))
    public = base64.b64decode(private.public)
    assert len(public) == 32
    assert private.record == f"v=DKIM1; k=ed25519; p={private.public}"
    digest = bytes(range(32))
    assert verify_ed25519(public, private.sign(digest), digest)
    assert not verify_ed25519(public, private.sign(digest), bytes(32))


def test_openssl_reads_the_record_of_an_rsa_key(rsa_pem, tmp_path):
    der = base64.b64decode(parse(rsa_pem).public)
    said = subprocess.run(
        ["openssl", "pkey", "-pubin", "-inform", "DER", "-text", "-noout"],
        input=der,
        capture_output=True,
        check=True,
    )
    assert b"(2048 bit)" in said.stdout


def damaged(private: bytes) -> bytes:
    """A private key whose exponents do not belong to its modulus."""
    whole = load_pem_private_key(private, None).private_numbers()
    wrong = rsa.RSAPrivateNumbers(
        whole.p, whole.q, whole.d + 2, whole.dmp1 + 2, whole.dmq1 + 2, whole.iqmp, whole.public_numbers
    )
    key = wrong.private_key(unsafe_skip_rsa_key_validation=True)
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


UNUSABLE = {
    "garbage": (lambda _: b"garbage", "not a private key in PEM form"),
    "nothing": (lambda _: b"", "not a private key in PEM form"),
    "a key cut short": (lambda private: private[: len(private) // 2], "not a private key in PEM form"),
    "a public key": (
        lambda private: (
            subprocess.run(
                ["openssl", "pkey", "-pubout"], input=private, capture_output=True, check=True
            ).stdout
        ),
        "not a private key in PEM form",
    ),
    "one with a passphrase": (
        lambda private: rewritten(private, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
        "passphrase",
    ),
    "one of an elliptic curve": (
        lambda _: ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ),
        "neither RSA nor Ed25519",
    ),
    "a short one": (
        lambda _: subprocess.run(["openssl", "genrsa", "768"], capture_output=True, check=True).stdout,
        "has 768 bits",
    ),
    "a damaged one": (damaged, "damaged"),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_what_cannot_sign_is_refused_with_the_reason(rsa_pem, what):
    make, reason = UNUSABLE[what]
    with pytest.raises(KeyUnusable, match=reason):
        parse(make(rsa_pem))


@pytest.fixture
def written(tmp_path):
    """A key file in use."""
    key = write_key(tmp_path, "mail", KeyType.ED25519)
    file = KeyFile(key.private_key_path)
    file.key()
    return file


def test_a_key_that_vanishes_is_missed_at_once_and_used_again_when_it_is_back(written):
    elsewhere = written.path.with_suffix(".away")
    written.path.rename(elsewhere)
    with pytest.raises(KeyTrouble, match=rf"{written.path}.*No such file or directory"):
        written.key()
    elsewhere.rename(written.path)
    assert written.key().algorithm == "ed25519-sha256"


def replace(path, content: bytes) -> None:
    fresh = path.with_suffix(".fresh")
    fresh.write_bytes(content)
    fresh.chmod(0o600)
    fresh.rename(path)


def test_a_key_that_is_swapped_during_a_run_is_not_used(written):
    before = written.path.read_bytes()
    replace(written.path, generate(KeyType.ED25519))
    for _ in range(2):
        with pytest.raises(KeyTrouble, match="was replaced after this program had begun"):
            written.key()
    replace(written.path, before)
    assert written.key().algorithm == "ed25519-sha256"


def test_a_key_that_was_swapped_before_the_run_is_found_by_the_record_beside_it(written):
    replace(written.path, generate(KeyType.ED25519))
    with pytest.raises(KeyTrouble, match="does not match the record in"):
        KeyFile(written.path).key()


def test_the_same_key_written_anew_is_used(written):
    known = written.key()
    replace(written.path, written.path.read_bytes())
    assert written.key().public == known.public


def test_a_key_without_a_record_beside_it_is_used(written):
    record_path(written.path).unlink()
    assert KeyFile(written.path).key().algorithm == "ed25519-sha256"


def test_a_key_that_everybody_can_read_is_not_used(written):
    written.path.chmod(0o644)
    with pytest.raises(KeyTrouble, match=r"every user of this host can read.*chmod 0640"):
        written.key()


def test_a_key_that_is_a_directory_is_trouble(tmp_path):
    with pytest.raises(KeyTrouble, match="Is a directory"):
        KeyFile(tmp_path).key()


def test_what_opendkim_made_is_used_with_its_record(tmp_path):
    subprocess.run(
        [
            "opendkim-genkey",
            "--bits=2048",
            "--domain=example.com",
            "--selector=mail",
            f"--directory={tmp_path}",
        ],
        check=True,
    )
    file = KeyFile(tmp_path / "mail.private")
    assert published_key(file.path) == file.key().public


def test_a_new_key_is_its_owners_alone_whatever_the_umask(tmp_path):
    path = tmp_path / "keys" / "example.com" / "mail.private"
    old = os.umask(0)
    try:
        write_new(path, b"key", "record")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("there", ["mail.private", "mail.txt"])
def test_a_new_key_never_overwrites_anything(tmp_path, there):
    (tmp_path / there).write_text("precious")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "mail.private", b"key", "record")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {there: "precious"}


def test_a_new_key_does_not_follow_a_link(tmp_path):
    (tmp_path / "mail.private").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "mail.private", b"key", "record")
    assert not (tmp_path / "elsewhere").exists()


def test_a_zone_record_has_strings_that_a_zone_file_takes(tmp_path):
    key = write_key(tmp_path, "mail", KeyType.RSA2048)
    line = zone_record("mail._domainkey.example.com", record_of(key))
    strings = re.findall(r'"([^"]*)"', line)
    assert "".join(strings) == record_of(key)
    assert max(map(len, strings)) <= 255
    assert line.startswith('mail._domainkey.example.com. IN TXT ( "v=DKIM1; k=rsa; p=')
