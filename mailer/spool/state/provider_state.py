"""The state of the providers as runners found it: `state/providers.json`, for the next run.

It holds present and past trouble only. Nothing depends on it but the order of attempts: a
file that is lost or damaged means that every provider is tried.
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
from mailer.spool.layout import STATE, Spool
from mailer.spool.state import small_files

NAME = "providers.json"

MOST_TRIPS = 10
"""What `trips` is counted to; by then the longest pause is reached."""

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


MOST_WITNESSES = 8
"""Mails that are remembered of one trouble; more would say nothing new."""
MOST_REFUSALS = 8
"""Refusals in different words that are remembered of a provider."""
MOST_DOMAINS = 20
"""Recipient domains that are remembered of a mail."""


class Witness(msgspec.Struct, frozen=True):
    """A mail that met trouble, as far as it matters for whose trouble that is."""

    message: str
    sender: str
    domains: tuple[str, ...]
    """Of the recipients concerned."""

    def apart_from(self, other: "Witness") -> bool:
        """Tell whether they share neither sender nor recipient domain: what both meet is about neither."""
        return self.sender != other.sender and not self.shares_a_domain(other)

    def shares_a_domain(self, other: "Witness") -> bool:
        return not set(self.domains).isdisjoint(other.domains)


class Refusal(msgspec.Struct, frozen=True):
    """A refusal that nothing was taken since."""

    words: str
    """A digest of its phase and its words, but for addresses and ids."""
    witnesses: tuple[Witness, ...]


class ProviderState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What is known of one provider."""

    open_until: _Moment | None = None
    """It is paused until then, and then tried with one message; None: it is in use."""
    opened: _Moment | None = None
    """Since when."""
    probe_until: _Moment | None = None
    """A runner tries it with one message, and has until then to say how that went."""
    trips: Annotated[int, msgspec.Meta(ge=0, le=MOST_TRIPS)] = 0
    """How often in a row it was found not to work, which makes the pauses longer."""
    failures: int = 0
    """Troubles in a row."""
    kind: str = ""
    """What the last trouble was about: `down`, `login`, `quota`, `host` or `alike`."""
    trouble: str = ""
    """The last trouble, in the words of the provider or of the system."""
    at: _Moment | None = None
    """When that was."""
    witnesses: tuple[Witness, ...] = ()
    """The mails in whose transactions it was, since the provider last answered one as it should."""
    refusals: tuple[Refusal, ...] = ()
    """What it refused, in which words, since it last took a mail."""

    @property
    def cause(self) -> Cause | None:
        """Why the login does not work, where the last trouble was that and says so."""
        return cause_of(self.trouble) if self.kind == "login" else None

    @property
    def words(self) -> str:
        """What the last trouble was about, in plain words."""
        if self.cause:
            return self.cause.what
        return _WORDS.get(self.kind, "it does not work")


_WORDS = {
    "login": "it refuses our login",
    "quota": "it takes no more from us for now",
    "host": "it refuses our host",
    "alike": "it refuses all mail in the same words",
}


class Health(StrEnum):
    """Whether a provider gets mail."""

    CLOSED = "closed"
    """In use."""
    OPEN = "open"
    HALF_OPEN = "half-open"


LONGEST = 3600.0
"""Seconds of the longest pause; each one after a failed probe is twice the one before."""
LONGEST_ASKED = 86_400.0
"""Seconds of the longest one that a provider has asked for itself, when a quota is used up."""


def health(state: ProviderState, now: datetime) -> Health:
    """Tell how a provider is; a pause that lies too far ahead was set by a wrong clock, and is over."""
    if state.open_until is None:
        return Health.CLOSED
    longest = LONGEST_ASKED if state.kind == "quota" else LONGEST
    return Health.OPEN if ahead(state.open_until, now, longest) else Health.HALF_OPEN


def ahead(moment: datetime, now: datetime, most: float) -> bool:
    return now < moment <= now + timedelta(seconds=most)


States = dict[str, ProviderState]
"""By `Provider.account`."""


def read(spool: Spool) -> States:
    return decode(small_files.read(spool, NAME) or b"")


def stamp(spool: Spool) -> tuple[int, int] | None:
    """Return what changes whenever somebody has written the file; None: there is none."""
    try:
        with spool.directory(STATE) as directory:
            seen = os.stat(NAME, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns


def decode(data: bytes) -> States:
    """Read what can be read; an entry that cannot is as if there were none."""
    found: States = {}
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        for account, raw in msgspec.json.decode(data, type=dict[str, msgspec.Raw]).items():
            with contextlib.suppress(msgspec.MsgspecError):
                found[account] = msgspec.json.decode(raw, type=ProviderState)
    return found


def change(spool: Spool, account: str, how: Callable[[ProviderState], ProviderState]) -> States:
    """Change one provider's state from what it is now, and return all, as they are now.

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
    """Have every paused provider tried with the next message; raises OSError."""
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
    """Forget what is known of some providers: they are as good as new; raises OSError.

    The file is written also when it had nothing of them: a runner may know what it could not write, and reads
    the file again once that is another one (see `stamp`).
    """
    with small_files.alone(spool):
        kept = {account: known for account, known in read(spool).items() if account not in accounts}
        write(spool, kept)


def write(spool: Spool, states: States) -> None:
    """Put these in the place of what was there; raises OSError."""
    small_files.replace(spool, NAME, msgspec.json.format(msgspec.json.encode(states), indent=2) + b"\n")
