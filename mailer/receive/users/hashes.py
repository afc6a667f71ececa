"""Hashes of passwords and tokens, as text that names the algorithm and its parameters.

Passwords are hashed with scrypt (RFC 7914) at OWASP's parameters for 16 MiB, which deliberately takes about a
third of a second of processor time. A generated token has 256 random bits and cannot be guessed, so one
SHA-256 is enough.
"""

import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from hmac import compare_digest

_LOG_N, _R, _P = 14, 8, 5
_SALT = 16
_LENGTH = 32
_MAX_MEMORY = 128 * 2**20
_SCRYPT = re.compile(
    r"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,2}),p=([0-9]{1,2})\$([A-Za-z0-9+/]{4,128})\$([A-Za-z0-9+/]{4,128})"
)
_SHA256 = re.compile(r"\$sha256\$([0-9a-f]{64})")
TOKEN_PREFIX = "mt_"  # noqa: S105 - the beginning of every token, by which leaked ones can be found

MAX_PASSWORD = 1024
"""Octets in a password (RFC 4616 2 requires at least 255)."""


def hash_password(password: str, random: Callable[[int], bytes]) -> str:
    """Hash a password with a new salt; this is slow."""
    salt = random(_SALT)
    key = _scrypt(password, salt, (_LOG_N, _R, _P), _LENGTH)
    return f"$scrypt$ln={_LOG_N},r={_R},p={_P}${_base64(salt)}${_base64(key)}"


def unmatchable(random: Callable[[int], bytes]) -> str:
    """Return a hash that is as slow to check as a password's, and that no password matches."""
    return f"$scrypt$ln={_LOG_N},r={_R},p={_P}${_base64(random(_SALT))}${_base64(random(_LENGTH))}"


def hash_token(token: str) -> str:
    return f"$sha256${hashlib.sha256(token.encode('utf-8', 'surrogatepass')).hexdigest()}"


def new_token(random: Callable[[int], bytes]) -> str:
    """Return a new token: a prefix, and 43 characters with 256 random bits."""
    from base64 import urlsafe_b64encode  # noqa: PLC0415 - needed only here

    return TOKEN_PREFIX + urlsafe_b64encode(random(32)).rstrip(b"=").decode()


def is_slow(hashed: str) -> bool:
    """Return whether a hash is slow to check."""
    return hashed.startswith("$scrypt$")


def well_formed(hashed: str) -> bool:
    found = _SCRYPT.fullmatch(hashed)
    if found is None:
        return _SHA256.fullmatch(hashed) is not None
    log_n, r, p = (int(found[n]) for n in (1, 2, 3))
    # scrypt needs 128 r N octets of memory; a typing error in the users file must not use up the machine's.
    return 1 <= log_n <= 20 and r >= 1 and p >= 1 and 128 * r * 2**log_n <= _MAX_MEMORY // 2


def matches(secret: str, hashed: str) -> bool:
    """Check a password or token against a hash; a hash that is not well formed matches nothing."""
    if not well_formed(hashed):
        return False
    found = _SCRYPT.fullmatch(hashed)
    if found is None:
        return compare_digest(hash_token(secret), hashed)
    salt, key = (b64decode(found[n] + "=" * (-len(found[n]) % 4)) for n in (4, 5))
    made = _scrypt(secret, salt, (int(found[1]), int(found[2]), int(found[3])), len(key))
    return compare_digest(made, key)


def _scrypt(password: str, salt: bytes, cost: tuple[int, int, int], length: int) -> bytes:
    """Return a key of `length` octets; `cost` is the binary logarithm of N, then r and p."""
    log_n, r, p = cost
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"),
        salt=salt,
        n=2**log_n,
        r=r,
        p=p,
        dklen=length,
        maxmem=_MAX_MEMORY,
    )


def _base64(data: bytes) -> str:
    return b64encode(data).rstrip(b"=").decode()
