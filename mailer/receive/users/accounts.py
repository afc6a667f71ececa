"""The accounts that may log in: the login of the configuration, and the users of the users file.

Slow hashes are computed by two threads of low priority, never by the event loop. A password that was right is
right without its hash for as long as the account stays as it is, because applications log in anew for each
message, and guesses of others must not delay them; one that was wrong is wrong for a minute. What is
remembered are keyed digests, under a key that never leaves this process.

Hashes wait in turns, one of each account after the other; guesses at names that are nobody's share one turn.
So guessing delays only the first login, after a start, of the account whose name is guessed.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from hmac import compare_digest

from mailer.receive.turns import Turns
from mailer.receive.users import hashes
from mailer.receive.users.auth import Credentials, Identity, NotJudged, Waiter

REMEMBER = 60.0
"""Seconds for a wrong password."""
_NICE = 10
"""Of the threads: a flood of guesses must leave the event loop its processor."""
_MOST_REMEMBERED = 10_000
_THREADS = 2
_SILENT = "\n"
"""The turn of clients that have closed their side; nor has any account this name."""
_NOBODY = ""
"""The turn of guesses that no account's hash can answer; no account has this name."""


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
        self._wrong: dict[bytes, float] = {}
        """Until when, monotonic seconds, by digest."""
        self._right: dict[str, bytes] = {}
        """The digest of the password that was right last, by name."""
        self._computing: dict[bytes, asyncio.Future[bool | None]] = {}
        self._waiters: dict[bytes, list[Waiter | None]] = {}
        """Who waits for each of them."""
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
        # Whoever is not there, or has a quick hash, takes as long to be refused as the others.
        if any(hashes.is_slow(known.hash) for known in accounts.values()) and not (
            account and hashes.is_slow(account.hash)
        ):
            await self._matches(credentials, self._dummy, _NOBODY)
        return None

    def cram_secret(self, username: str) -> str | None:
        """Return a user's password in clear, if CRAM-MD5 is on and it is known."""
        return None if self._recoverable is None else self._recoverable.get(username)

    def identity(self, username: str) -> Identity | None:
        account = self._accounts().get(username)
        return account.identity if account else None

    def bearer(self, token: str) -> Identity | None:
        """Return whose token this is; all are compared, each in the same time."""
        if not token.startswith(hashes.TOKEN_PREFIX):
            return None  # The password of the configuration's own login has a quick hash, too.
        hashed, found = hashes.hash_token(token), None
        for account in self._accounts().values():
            if compare_digest(account.hash, hashed):
                found = account.identity
        return found

    async def _matches(self, credentials: Credentials, hashed: str, whose: str) -> bool:
        """Args: whose: the name of the account whose turn the hash waits for."""
        if not hashes.is_slow(hashed):
            return hashes.matches(credentials.password, hashed)
        digest = self._digest(credentials, hashed)
        if self._right.get(whose) == digest:
            return True
        if self._wrong.get(digest, 0.0) > self._now():
            return False
        computing = self._computing.get(digest)
        if computing is None:
            # A task of its own: the session that asked first may go away.
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
        """Compute a hash when its turn comes; None: nobody waits for it any more.

        What guesses and hangs up at once is not worth a processor, and clients that have closed their side
        come after those that have not.
        """
        waiters = self._waiters[digest]
        for party in (whose, _SILENT):
            async with self._turns.of(party):
                if all(each is not None and each.gone for each in waiters):
                    return None
                if party != _SILENT and all(each is not None and each.silent for each in waiters):
                    continue
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._executor, hashes.matches, password, hashed)
        return None

    def _digest(self, credentials: Credentials, hashed: str) -> bytes:
        """The hash is part of it: a changed password is asked for at once."""
        text = f"{credentials.username}\0{credentials.password}\0{hashed}"
        return blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=32).digest()

    def _forget_some(self) -> None:
        if len(self._wrong) >= _MOST_REMEMBERED:
            self._wrong.clear()


def _be_nice() -> None:
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def single_login(username: str, password: str) -> Account:
    """The configuration's own login: its password stands there in clear, so one quick hash is enough."""
    return Account(Identity(username), hashes.hash_token(password))


def cram_md5(challenge: bytes, secret: str, digest: bytes) -> bool:
    """Check a CRAM-MD5 response (RFC 2195)."""
    import hmac  # noqa: PLC0415 - rarely on

    expected = hmac.new(secret.encode(), challenge, "md5").hexdigest().encode()
    return compare_digest(expected, digest)
