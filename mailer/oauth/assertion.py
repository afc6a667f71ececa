"""Sign assertions (JWT, RFC 7519) that authenticate an application or a service account (RFC 7523).

No other module here imports `cryptography`, which is slow to load: import this one only to make an assertion.
"""

import hashlib
from base64 import urlsafe_b64encode
from uuid import uuid4

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from mailer.config.oauth import Algorithm

HOLDS = 300.0
"""Seconds that an assertion is valid; Microsoft recommends five to ten minutes, Google accepts an hour."""


class KeyUnusable(ValueError):
    """A certificate or key cannot sign; the text says why, as a continuation of "it ..."."""


class _Account(msgspec.Struct, frozen=True):
    """The fields of Google's key file that are used."""

    client_email: str
    private_key: str
    private_key_id: str = ""


def by_certificate(pem: str, algorithm: Algorithm, client_id: str, audience: str, now: float) -> str:
    """Return a client assertion (RFC 7523 2.2).

    Args:
        pem: a certificate and its private key, in any order.
        algorithm: the signature algorithm.
        client_id: the application's id.
        audience: the URL that it is sent to.
        now: seconds since the epoch.

    Raises:
        KeyUnusable: the certificate or the key is missing, or the key is not an RSA key.
    """
    data = pem.encode()
    try:
        certificate = load_pem_x509_certificate(data)
    except ValueError:
        raise KeyUnusable("has no certificate in PEM form (BEGIN CERTIFICATE)") from None
    thumbprint = _base64url(hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest())
    claims = {"iss": client_id, "sub": client_id, "aud": audience, "jti": str(uuid4())}
    return _signed({"x5t#S256": thumbprint}, claims, algorithm, _key(data), now)


def end_of(pem: str) -> float:
    """Return when a certificate expires, in seconds since the epoch; it must be one that has signed."""
    return load_pem_x509_certificate(pem.encode()).not_valid_after_utc.timestamp()


def by_service_account(key_file: str, user: str, scope: str, audience: str, now: float) -> str:
    """Return an assertion that serves as a grant (RFC 7523 2.1): the service account acts as `user`.

    Args:
        key_file: Google's key file, in JSON.
        user: the mailbox to act for.
        scope: what the token is to allow.
        audience: the URL that it is sent to.
        now: seconds since the epoch.

    Raises:
        KeyUnusable: this is not a key file, or its key is not an RSA key.
    """
    try:
        account = msgspec.json.decode(key_file, type=_Account)
    except msgspec.MsgspecError:
        raise KeyUnusable(
            "is not a service account's key file: JSON with client_email, private_key"
        ) from None
    claims = {"iss": account.client_email, "sub": user, "scope": scope, "aud": audience}
    header = {"kid": account.private_key_id} if account.private_key_id else {}
    return _signed(header, claims, Algorithm.RS256, _key(account.private_key.encode()), now)


def _key(pem: bytes) -> RSAPrivateKey:
    start = pem.find(b"-----BEGIN ")
    while start >= 0 and b"PRIVATE KEY-----" not in pem[start : start + 40]:
        start = pem.find(b"-----BEGIN ", start + 1)  # the certificate may precede the key
    try:
        key = load_pem_private_key(pem[start:] if start >= 0 else pem, password=None)
    except TypeError:
        raise KeyUnusable("has a private key with a passphrase, which no program can enter") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyUnusable("has no private key in PEM form (BEGIN PRIVATE KEY)") from None
    if not isinstance(key, RSAPrivateKey):
        raise KeyUnusable("has a private key that is not an RSA key")
    return key


def _signed(
    header: dict[str, str], claims: dict[str, str], algorithm: Algorithm, key: RSAPrivateKey, now: float
) -> str:
    whole_header = {"alg": algorithm.value, "typ": "JWT", **header}
    times = {"iat": int(now), "nbf": int(now), "exp": int(now + HOLDS)}
    text = b".".join(
        _base64url(msgspec.json.encode(part)).encode() for part in (whole_header, claims | times)
    )
    padding: AsymmetricPadding = PKCS1v15()
    if algorithm is Algorithm.PS256:
        padding = PSS(MGF1(SHA256()), SHA256.digest_size)  # RFC 7518 3.5: the salt is as long as the digest
    return f"{text.decode()}.{_base64url(key.sign(text, padding, SHA256()))}"


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
