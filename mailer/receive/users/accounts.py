"""Checks passwords and tokens of the accounts: the login of the configuration, and those of the users file.

Slow hashes are computed by two threads of low priority, never by the event loop. A password that was right is
accepted again without hashing for as long as the account does not change, because applications log in for
each message, and password guessing by others must not delay them. A wrong password is remembered for a
minute. The cache holds keyed digests, whose key never leaves this process.

Hashes are computed in turn, one for each account; guesses at names that do not exist share one turn. So
guessing delays only the account whose name is guessed, and only its first login after a start.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from hmac import compare_digest

from mailer.receive.fair_queue import Turns
from mailer.receive.users import hashes
from mailer.receive.users.account import Account
from mailer.receive.users.auth import Credentials, Identity, NotJudged, Waiter

REMEMBER = 60.0
"""Seconds that a wrong password is remembered."""
_NICE = 10
"""The nice value of the hashing threads: a flood of guesses must not take the event loop's processor."""
_MAX_REMEMBERED = 10_000
"""Wrong passwords in the cache, which is emptied when it is full."""
_THREADS = 2
_SILENT = "\n"
"""The turn shared by all clients that have closed their sending side; no account has this name."""
_UNKNOWN = ""
"""The turn shared by all guesses for which no account has a slow hash; no account has this name."""


class Accounts:
    """The authenticator for the configured accounts."""

    def __init__(
        self,
        accounts: Callable[[], Mapping[str, Account]],
        *,
        now: Callable[[], float],
        random: Callable[[int], bytes],
        recoverable: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare; reads nothing yet.

        Args:
            accounts: returns all accounts by name; called for each login, so that changes take effect.
            now: monotonic seconds.
            random: returns the given number of random octets.
            recoverable: passwords in clear text by name, for CRAM-MD5; None: it is not offered.
        """
        self._accounts = accounts
        self._now = now
        self._key = random(32)
        self._recoverable = recoverable
        self._wrong: dict[bytes, float] = {}
        """When to forget each wrong password, in monotonic seconds, by digest."""
        self._right: dict[str, bytes] = {}
        """The digest of the last right password, by name."""
        self._computing: dict[bytes, asyncio.Future[bool | None]] = {}
        """The hashes being computed or waiting for their turn, by digest."""
        self._waiters: dict[bytes, list[Waiter | None]] = {}
        """The clients that wait for each of those hashes."""
        self._turns = Turns(_THREADS)
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="scrypt", initializer=_be_nice)
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
        if account is not None and await self._matches(credentials, account.hash, credentials.username):
            return account.identity
        # A refusal takes the same time for a name that does not exist, or whose hash is quick, as for others.
        if any(hashes.is_slow(known.hash) for known in accounts.values()) and not (
            account and hashes.is_slow(account.hash)
        ):
            await self._matches(credentials, self._dummy, _UNKNOWN)
        return None

    def cram_secret(self, username: str) -> str | None:
        """Return a user's password in clear text, if CRAM-MD5 is on and the password is known."""
        return None if self._recoverable is None else self._recoverable.get(username)

    def identity(self, username: str) -> Identity | None:
        account = self._accounts().get(username)
        return account.identity if account else None

    def bearer(self, token: str) -> Identity | None:
        """Return the identity that a token belongs to. It is compared with all accounts, in constant time."""
        if not token.startswith(hashes.TOKEN_PREFIX):
            return None  # it could match the configuration's own login, whose password has the same hash
        hashed, found = hashes.hash_token(token), None
        for account in self._accounts().values():
            if compare_digest(account.hash, hashed):
                found = account.identity
        return found

    async def _matches(self, credentials: Credentials, hashed: str, whose: str) -> bool:
        """Return whether a password matches a hash; `whose` names the account whose turn it waits for."""
        if not hashes.is_slow(hashed):
            return hashes.matches(credentials.password, hashed)
        digest = self._digest(credentials, hashed)
        if self._right.get(whose) == digest:
            return True
        if self._wrong.get(digest, 0.0) > self._now():
            return False
        computing = self._computing.get(digest)
        if computing is None:
            # In a separate task, because the session that asked first may end before the others.
            self._waiters[digest] = []
            computing = asyncio.ensure_future(self._compute(digest, credentials.password, hashed, whose))
            self._computing[digest] = computing
            computing.add_done_callback(lambda _: self._computed(digest))
        self._waiters[digest].append(credentials.waiter)
        right = await asyncio.shield(computing)
        if right is None:
            raise NotJudged
        if right:
            self._right[whose] = digest
        else:
            self._forget_some()
            self._wrong[digest] = self._now() + REMEMBER
        return right

    def _computed(self, digest: bytes) -> None:
        del self._computing[digest], self._waiters[digest]

    async def _compute(self, digest: bytes, password: str, hashed: str, whose: str) -> bool | None:
        """Compute a hash when its turn comes; return None if no client waits for it any more.

        A client that guesses and disconnects immediately costs no processor time. Clients that have closed
        their sending side are served after those that have not.
        """
        waiters = self._waiters[digest]
        for party in (whose, _SILENT):
            async with self._turns.of(party):
                if all(each is not None and each.lost for each in waiters):
                    return None
                if party != _SILENT and all(each is not None and each.half_closed for each in waiters):
                    continue
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._executor, hashes.matches, password, hashed)
        return None

    def _digest(self, credentials: Credentials, hashed: str) -> bytes:
        """Return the cache key of a password; it includes the hash, so that a changed one takes effect."""
        text = f"{credentials.username}\0{credentials.password}\0{hashed}"
        return blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=32).digest()

    def _forget_some(self) -> None:
        if len(self._wrong) >= _MAX_REMEMBERED:
            self._wrong.clear()


def _be_nice() -> None:
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def single_login(username: str, password: str) -> Account:
    """Return the account of the configuration's own login.

    Its password is in the configuration in clear text, so a quick hash is enough.
    """
    return Account(Identity(username), hashes.hash_token(password))


def cram_md5(challenge: bytes, secret: str, digest: bytes) -> bool:
    """Check a CRAM-MD5 response (RFC 2195)."""
    import hmac  # noqa: PLC0415 - CRAM-MD5 is rarely on

    expected = hmac.new(secret.encode(), challenge, "md5").hexdigest().encode()
    return compare_digest(expected, digest)
