"""The rate limits of the configuration and of the users file, for the receiver and for `mailer limits`."""

import time
from collections.abc import Iterator, Mapping
from functools import partial
from operator import attrgetter

from mailer.config.model import Config
from mailer.config.trust import owners_of
from mailer.mail import clock
from mailer.maillog.events import MailLog
from mailer.maillog.ledger import Line
from mailer.maillog.search import Query, find
from mailer.receive.peers import IMPORT
from mailer.receive.users.account import Account
from mailer.receive.users.rates import DAY, Rate, RateRules, Sent
from mailer.receive.users.user_list import UserList
from mailer.spool.directory import Spool
from mailer.spool.layout import LOG

_ACCEPTED = frozenset({"accepted"})


def user_list(config: Config, log: MailLog, own: Mapping[str, Account]) -> UserList:
    """Read the users that may log in, besides those in `own`; raises ConfigError, OSError."""
    return UserList(
        config.users_file,
        own,
        config.rate_limits,
        now=time.monotonic,
        on_trouble=lambda why: log.warning("the users file cannot be used; the old one stays", error=why),
        owners=owners_of(config.spool_dir),
    )


def rules(config: Config, users: UserList) -> RateRules:
    limits = config.rate_limits
    if not limits.enabled:
        return RateRules(of_user=users.rate, users=users.rates)
    return RateRules(
        Rate(limits.max_per_hour, limits.max_per_day),
        Rate(limits.global_max_per_hour, limits.global_max_per_day),
        users.rate,
        users.rates,
    )


def sent(spool: Spool, now: float) -> Iterator[Sent]:
    """Yield the messages that were accepted in the last day, by the ledgers of all hosts, by time."""
    own = _sent(spool, now)
    if not spool.is_shared:
        return own
    from mailer.spool.hosts.neighbours import others  # noqa: PLC0415 - most hosts share nothing

    return iter(sorted([*own, *(one for each in others(spool) for one in _sent(each, now))], key=_at))


_at = attrgetter("at")


def _sent(spool: Spool, now: float) -> Iterator[Sent]:
    for line, _ in find(partial(spool.directory, LOG), Query(events=_ACCEPTED, since=now - DAY)):
        if counted := submitted(line):
            yield counted


def submitted(line: Line) -> Sent | None:
    """Return what counts of a line of the ledger; None if no user submitted a message here.

    Notifications that mailer itself has written, and another relay's mail, do not count.
    """
    if line.event not in _ACCEPTED or line.about or line.peer.startswith(f"{IMPORT}:"):
        return None
    return Sent(clock.seconds(line.at), line.user, line.sender or "")
