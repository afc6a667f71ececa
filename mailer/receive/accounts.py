"""Everybody who may log in: the configuration's own login, and the users of the users file.

Slow hashes are computed by two threads, never by the event loop. A password that was right is right for a
minute more without its hash, because applications log in anew for each message; one that was wrong is wrong
as long. What is remembered are keyed digests, under a key that never leaves this process.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from hmac import compare_digest

from mailer.receive import hashes
from mailer.receive.auth import Credentials, Identity

REMEMBER = 60.0
"""Seconds."""
_MOST_REMEMBERED = 10_000
_THREADS = 2


@dataclass(frozen=True, slots=True)
class Account:
    """One who may log in."""

    identity: Identity
    hash: str


class Accounts:
    """The authenticator of the configuration."""

    def __init__(
        self,
        accounts: Callable[[], Mapping[str, Account]],
        *,
        now: Callable[[], float],
        random: Callable[[int], bytes],
        recoverable: Mapping[str, str] | None = None,
    ) -> None:
        """Make ready; reads nothing yet.

        Args:
            accounts: gives everybody by name; called for each login, so that a changed file counts at once.
            now: monotonic seconds.
            random: gives so many random octets.
            recoverable: passwords in clear by name, for CRAM-MD5; None: it is not offered.
        """
        self._accounts = accounts
        self._now = now
        self._key = random(32)
        self._recoverable = recoverable
        self._remembered: dict[bytes, tuple[float, bool]] = {}
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="scrypt")
        self._dummy = hashes.unmatchable(random)
        self.offers_cram_md5 = recoverable is not None

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def anybody(self) -> bool:
        return bool(self._accounts())

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        accounts = self._accounts()
        account = accounts.get(credentials.username)
        if len(credentials.password.encode("utf-8", "surrogatepass")) > hashes.MAX_PASSWORD:
            return None
        if account is not None and await self._matches(credentials, account.hash):
            return account.identity
        # Whoever is not there, or has a quick hash, takes as long to be refused as the others.
        if any(hashes.is_slow(known.hash) for known in accounts.values()) and not (
            account and hashes.is_slow(account.hash)
        ):
            await self._matches(credentials, self._dummy)
        return None

    def cram_secret(self, username: str) -> str | None:
        """Return a user's password in clear, if CRAM-MD5 is on and it is known."""
        return None if self._recoverable is None else self._recoverable.get(username)

    def identity(self, username: str) -> Identity | None:
        account = self._accounts().get(username)
        return account.identity if account else None

    async def _matches(self, credentials: Credentials, hashed: str) -> bool:
        if not hashes.is_slow(hashed):
            return hashes.matches(credentials.password, hashed)
        digest = self._digest(credentials, hashed)
        known = self._remembered.get(digest)
        if known is not None and known[0] > self._now():
            return known[1]
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(self._executor, hashes.matches, credentials.password, hashed)
        self._remember(digest, right=right)
        return right

    def _digest(self, credentials: Credentials, hashed: str) -> bytes:
        """The hash is part of it: a changed password is asked for at once."""
        text = f"{credentials.username}\0{credentials.password}\0{hashed}"
        return blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=32).digest()

    def _remember(self, digest: bytes, *, right: bool) -> None:
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[digest] = (self._now() + REMEMBER, right)


def single_login(username: str, password: str) -> Account:
    """The configuration's own login: its password stands there in clear, so one quick hash is enough."""
    return Account(Identity(username), hashes.hash_token(password))


def cram_md5(challenge: bytes, secret: str, digest: bytes) -> bool:
    """Check a CRAM-MD5 response (RFC 2195)."""
    import hmac  # noqa: PLC0415 - rarely on

    expected = hmac.new(secret.encode(), challenge, "md5").hexdigest().encode()
    return compare_digest(expected, digest)
