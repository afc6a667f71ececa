"""Hashes of passwords and tokens, as text that says how it was made.

A password that a human chose is hashed with scrypt (RFC 7914) at OWASP's parameters for 16 MiB: about a third
of a second of one processor, which is the point. A token that we made has 256 bits of chance, nobody guesses
it, and one SHA-256 is enough.
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
TOKEN_PREFIX = "mt_"  # noqa: S105 - what tokens begin with; leaked ones are found by it

MAX_PASSWORD = 1024
"""Octets; RFC 4616 2 asks for 255 at least."""


def hash_password(password: str, random: Callable[[int], bytes]) -> str:
    """Hash a password under a fresh salt; takes long."""
    salt = random(_SALT)
    key = _scrypt(password, salt, (_LOG_N, _R, _P), _LENGTH)
    return f"$scrypt$ln={_LOG_N},r={_R},p={_P}${_base64(salt)}${_base64(key)}"


def unmatchable(random: Callable[[int], bytes]) -> str:
    """Make a hash that is as slow to check as a password's, and that nothing matches."""
    return f"$scrypt$ln={_LOG_N},r={_R},p={_P}${_base64(random(_SALT))}${_base64(random(_LENGTH))}"


def hash_token(token: str) -> str:
    return f"$sha256${hashlib.sha256(token.encode('utf-8', 'surrogatepass')).hexdigest()}"


def new_token(random: Callable[[int], bytes]) -> str:
    """Make a token: 43 characters of 256 random bits, behind a prefix."""
    from base64 import urlsafe_b64encode  # noqa: PLC0415 - only when one is made

    return TOKEN_PREFIX + urlsafe_b64encode(random(32)).rstrip(b"=").decode()


def is_slow(hashed: str) -> bool:
    """Tell whether to check against this hash takes long."""
    return hashed.startswith("$scrypt$")


def well_formed(hashed: str) -> bool:
    found = _SCRYPT.fullmatch(hashed)
    if found is None:
        return _SHA256.fullmatch(hashed) is not None
    log_n, r, p = (int(found[n]) for n in (1, 2, 3))
    # Its memory is 128 r N octets; a file typed wrong must not take the machine.
    return 1 <= log_n <= 20 and r >= 1 and p >= 1 and 128 * r * 2**log_n <= _MAX_MEMORY // 2


def matches(secret: str, hashed: str) -> bool:
    """Check a password or token against a hash; one that is not well formed matches nothing."""
    if not well_formed(hashed):
        return False
    found = _SCRYPT.fullmatch(hashed)
    if found is None:
        return compare_digest(hash_token(secret), hashed)
    salt, key = (b64decode(found[n] + "=" * (-len(found[n]) % 4)) for n in (4, 5))
    made = _scrypt(secret, salt, (int(found[1]), int(found[2]), int(found[3])), len(key))
    return compare_digest(made, key)


def _scrypt(password: str, salt: bytes, cost: tuple[int, int, int], length: int) -> bytes:
    """Args: cost: the logarithm of N, r and p; length: octets of the key."""
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
