"""The state of the providers as runners found it: `state/providers.json`, for the next run.

It holds present and past trouble only, and affects only the order of attempts. If the file is lost or
damaged, every provider is tried.
"""

import contextlib
import os
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec.structs import replace

from mailer.mail.login_causes import Cause, cause_of
from mailer.spool.directory import Spool
from mailer.spool.layout import STATE
from mailer.spool.state import small_files

NAME = "providers.json"

MOST_TRIPS = 10
"""The largest value of `trips`; the longest pause is reached before it."""

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


MOST_WITNESSES = 8
"""The most mails to record for one trouble; more would add no information."""
MOST_REFUSALS = 8
"""The most refusals in different words to record for a provider."""
MOST_DOMAINS = 20
"""The most recipient domains to record for a mail."""


class Witness(msgspec.Struct, frozen=True):
    """A mail that met trouble, with what helps to find the cause of the trouble."""

    message: str
    sender: str
    domains: tuple[str, ...]
    """The domains of the recipients concerned."""

    def apart_from(self, other: "Witness") -> bool:
        """Return whether they share neither sender nor domain, so that trouble of both is due to neither."""
        return self.sender != other.sender and not self.shares_a_domain(other)

    def shares_a_domain(self, other: "Witness") -> bool:
        return not set(self.domains).isdisjoint(other.domains)


class Refusal(msgspec.Struct, frozen=True):
    """A refusal since which the provider has accepted no mail."""

    words: str
    """A digest of its phase and its words, without addresses and ids."""
    witnesses: tuple[Witness, ...]


class ProviderState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The state of one provider."""

    open_until: _Moment | None = None
    """Its circuit breaker is open until then, and half-open after that; None if it is closed."""
    opened: _Moment | None = None
    """When the breaker opened."""
    probe_until: _Moment | None = None
    """A runner probes it with one message, and is to report the result by then."""
    trips: Annotated[int, msgspec.Meta(ge=0, le=MOST_TRIPS)] = 0
    """How often in a row the breaker opened, which makes the pauses longer."""
    failures: int = 0
    """Failures in a row."""
    kind: str = ""
    """The kind of the last trouble: `down`, `login`, `quota`, `host` or `alike`."""
    trouble: str = ""
    """The last trouble, in the words of the provider or of the system."""
    at: _Moment | None = None
    """The time of the last trouble."""
    witnesses: tuple[Witness, ...] = ()
    """The mails that met it since the provider last answered one as expected."""
    refusals: tuple[Refusal, ...] = ()
    """What it refused, in which words, since it last accepted a mail."""

    @property
    def cause(self) -> Cause | None:
        """Why the login fails, if that is the last trouble and its text says why."""
        return cause_of(self.trouble) if self.kind == "login" else None

    @property
    def words(self) -> str:
        """The last trouble in plain words."""
        if self.cause:
            return self.cause.what
        return _WORDS.get(self.kind, "it does not work")


_WORDS = {
    "login": "it refuses our login",
    "quota": "it accepts no more mail from us for now",
    "host": "it refuses our host",
    "alike": "it refuses all mail in the same words",
}


class Health(StrEnum):
    """The state of a provider's circuit breaker."""

    CLOSED = "closed"
    """The provider is in use."""
    OPEN = "open"
    HALF_OPEN = "half-open"


LONGEST = 3600.0
"""Seconds of the longest pause; after each failed probe the pause doubles."""
LONGEST_ASKED = 86_400.0
"""Seconds of the longest pause that a provider may ask for, when a quota is used up."""


def health(state: ProviderState, now: datetime) -> Health:
    """Return the breaker's state; a pause that ends too far ahead was set by a wrong clock, and is over."""
    if state.open_until is None:
        return Health.CLOSED
    longest = LONGEST_ASKED if state.kind == "quota" else LONGEST
    return Health.OPEN if ahead(state.open_until, now, longest) else Health.HALF_OPEN


def ahead(moment: datetime, now: datetime, most: float) -> bool:
    return now < moment <= now + timedelta(seconds=most)


States = dict[str, ProviderState]
"""The states of all providers, by `Provider.account`."""


def read(spool: Spool) -> States:
    return decode(small_files.read(spool, NAME) or b"")


def stamp(spool: Spool) -> tuple[int, int] | None:
    """Return a value that changes whenever the file is written; None if there is no file."""
    try:
        with spool.directory(STATE) as directory:
            seen = os.stat(NAME, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns


def decode(data: bytes) -> States:
    """Decode what can be decoded; an entry that cannot counts as missing."""
    found: States = {}
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        for account, raw in msgspec.json.decode(data, type=dict[str, msgspec.Raw]).items():
            with contextlib.suppress(msgspec.MsgspecError):
                found[account] = msgspec.json.decode(raw, type=ProviderState)
    return found


def change(spool: Spool, account: str, how: Callable[[ProviderState], ProviderState]) -> States:
    """Change one provider's state, as it is now, and return the states of all.

    Raises:
        OSError: it cannot be written.
    """
    with small_files.alone(spool):
        states = read(spool)
        before = states.get(account, ProviderState())
        if (after := how(before)) != before:
            states[account] = after
            write(spool, {name: kept for name, kept in states.items() if kept != ProviderState()})
    return states


def end_pauses(spool: Spool, now: datetime) -> None:
    """End every pause, so that each provider is probed with the next message; raises OSError."""
    with small_files.alone(spool):
        before = read(spool)
        after = {
            account: replace(known, open_until=now, probe_until=None)
            if known.open_until and known.open_until > now
            else known
            for account, known in before.items()
        }
        if after != before:
            write(spool, after)


def forget(spool: Spool, accounts: Collection[str]) -> None:
    """Forget the state of some providers, which then count as new; raises OSError.

    The file is written even if it has nothing about them: a runner may remember what it could not write, and
    reads the file again only when it was replaced (see `stamp`).
    """
    with small_files.alone(spool):
        kept = {account: known for account, known in read(spool).items() if account not in accounts}
        write(spool, kept)


def write(spool: Spool, states: States) -> None:
    """Replace the states of all providers; raises OSError."""
    small_files.replace(spool, NAME, msgspec.json.format(msgspec.json.encode(states), indent=2) + b"\n")
