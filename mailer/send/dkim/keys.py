"""Private keys for DKIM, and the DNS record that goes with each (RFC 6376 3.6.1, RFC 8463).

No other module here imports `cryptography`, which takes 35 ms: import this one only where a key is needed.
OpenSSL makes thirty times as many RSA-2048 signatures in a second as dkimpy's own arithmetic.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

MIN_RSA_BITS = 1024
"""RFC 8301 3.2: signers must not use shorter keys, and verifiers refuse their signatures."""

_PADDING = PKCS1v15()
_DIGEST = Prehashed(SHA256())
_SPECIMEN = bytes(32)


class KeyType(StrEnum):
    """The types of keys that can be generated."""

    RSA2048 = "rsa2048"
    ED25519 = "ed25519"


class KeyUnusable(ValueError):
    """The private key cannot sign; the text says why, as a continuation of "the key ..."."""


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key that has been tested."""

    algorithm: str
    """a= of a signature: `rsa-sha256` or `ed25519-sha256`."""
    bits: int
    public: str
    """p= of the DNS record."""
    sign: Callable[[bytes], bytes]
    """Signs a SHA-256 digest of 32 bytes."""

    @property
    def record(self) -> str:
        """The TXT record's value, as one string."""
        return f"v=DKIM1; k={self.algorithm.partition('-')[0]}; p={self.public}"


def parse(pem: bytes) -> PrivateKey:
    """Parse a private key, RSA (PKCS #1 or #8) or Ed25519 (PKCS #8), and test it.

    Raises:
        KeyUnusable: it is not a private key, has a passphrase, is of another type or too short, or does not
            work.
    """
    try:
        # OpenSSL's own check of an RSA key tests its primes and takes 60 ms, more than the rest of a short
        # run; `_try` detects a damaged key in half a millisecond.
        key = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise KeyUnusable("has a passphrase, which no program can enter: use one without") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyUnusable("is not a private key in PEM form") from None
    match key:
        case RSAPrivateKey():
            return _rsa(key)
        case Ed25519PrivateKey():
            return _ed25519(key)
    raise KeyUnusable("is neither RSA nor Ed25519")


def generate(kind: KeyType) -> bytes:
    """Generate a private key; return it as PEM (PKCS #8)."""
    key: RSAPrivateKey | Ed25519PrivateKey
    if kind is KeyType.ED25519:
        key = Ed25519PrivateKey.generate()
    else:
        key = generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _rsa(key: RSAPrivateKey) -> PrivateKey:
    if key.key_size < MIN_RSA_BITS:
        raise KeyUnusable(f"has {key.key_size} bits; verifiers refuse RSA keys under {MIN_RSA_BITS}")

    def sign(digest: bytes) -> bytes:
        return key.sign(digest, _PADDING, _DIGEST)

    def verify(signature: bytes) -> None:
        key.public_key().verify(signature, _SPECIMEN, _PADDING, _DIGEST)

    _try(sign, verify)
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PrivateKey("rsa-sha256", key.key_size, base64.b64encode(public).decode(), sign)


def _ed25519(key: Ed25519PrivateKey) -> PrivateKey:
    public: Ed25519PublicKey = key.public_key()
    _try(key.sign, lambda signature: public.verify(signature, _SPECIMEN))
    # RFC 8463 4.2: the raw key, without the SubjectPublicKeyInfo structure that RSA keys have.
    bare = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return PrivateKey("ed25519-sha256", 256, base64.b64encode(bare).decode(), key.sign)


def _try(sign: Callable[[bytes], bytes], verify: Callable[[bytes], None]) -> None:
    try:
        verify(sign(_SPECIMEN))
    except (InvalidSignature, ValueError):
        raise KeyUnusable("is damaged: its signatures do not verify") from None


def verify_ed25519(public: bytes, signature: bytes, digest: bytes) -> bool:
    """Tell whether a signature over a SHA-256 digest (RFC 8463 3) is valid; args: public: p=, decoded.

    Raises:
        KeyUnusable: `public` is not an Ed25519 key.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(public)
    except ValueError:
        raise KeyUnusable("is not an Ed25519 public key") from None
    try:
        key.verify(signature, digest)
    except InvalidSignature:
        return False
    return True
