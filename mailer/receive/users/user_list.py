"""The users file, reloaded when it changes; a version that cannot be used is not loaded."""

from collections.abc import Callable, Mapping
from pathlib import Path

from mailer.config.problem import ConfigError
from mailer.config.receiving import RateLimits
from mailer.config.trust import Owners
from mailer.config.users import User, read_users
from mailer.mail.patterns import AddressPatterns
from mailer.receive.users.account import Account
from mailer.receive.users.auth import Identity
from mailer.receive.users.rates import Rate

_CHECK_EVERY = 1.0
"""Seconds between two checks of the file."""


class UserList:
    """All accounts that may log in, and their limits, by name."""

    def __init__(
        self,
        path: Path,
        own: Mapping[str, Account],
        limits: RateLimits,
        *,
        now: Callable[[], float],
        on_trouble: Callable[[str], None],
        owners: Owners | None = None,
    ) -> None:
        """Read the file.

        Args:
            path: the users file, which need not exist.
            own: accounts from the configuration itself, which take precedence.
            limits: the general limits, which complete a user's own limits if only one is set.
            now: monotonic seconds.
            on_trouble: called once with what is wrong with a file that cannot be used.
            owners: the trusted owners of the file; None: root and this process's user.

        Raises:
            ConfigError, OSError: the file cannot be used.
        """
        self._path = path
        self._own = own
        self._limits = limits
        self._now = now
        self._on_trouble = on_trouble
        self._owners = owners
        self._checked = now()
        self._stamp = self._look()
        self._take(read_users(path, owners))

    def accounts(self) -> Mapping[str, Account]:
        """Return all accounts, from the file as it was at most a second ago."""
        if self._now() - self._checked >= _CHECK_EVERY:
            self._checked = self._now()
            self._refresh()
        return self._accounts

    def rate(self, user: str) -> Rate | None:
        """Return a user's own limits; None: the user has none."""
        return self._rates.get(user)

    @property
    def rates(self) -> Mapping[str, Rate]:
        """The limits of all users that have their own."""
        return self._rates

    @property
    def others(self) -> bool:
        """Whether the file has any user besides the configuration's own accounts."""
        return len(self._accounts) > len(self._own)

    @property
    def limited(self) -> bool:
        """Whether any user has limits of their own."""
        return bool(self._rates)

    def _refresh(self) -> None:
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return
            # Stored before loading, so that an unusable file is reported once.
            self._stamp = stamp
            self._take(read_users(self._path, self._owners))
        except (OSError, ConfigError) as error:
            self._on_trouble(str(error))

    def _take(self, users: Mapping[str, User]) -> None:
        self._accounts = {name: _account(user) for name, user in users.items()} | dict(self._own)
        self._rates = {
            name: self._rate(user)
            for name, user in users.items()
            if user.max_per_hour is not None or user.max_per_day is not None
        }

    def _rate(self, user: User) -> Rate:
        general = self._limits if self._limits.enabled else RateLimits(max_per_hour=0, max_per_day=0)
        return Rate(
            general.max_per_hour if user.max_per_hour is None else user.max_per_hour,
            general.max_per_day if user.max_per_day is None else user.max_per_day,
        )

    def _look(self) -> tuple[int, int, int] | None:
        try:
            state = self._path.stat()
        except FileNotFoundError:
            return None
        return state.st_mtime_ns, state.st_ino, state.st_size


def _account(user: User) -> Account:
    patterns = AddressPatterns.of(user.allowed_senders)
    return Account(Identity(user.name, None if patterns.everybody else patterns), user.hash)
