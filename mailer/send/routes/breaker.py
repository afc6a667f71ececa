"""When a provider that gives trouble is left alone, and when it is tried again: a circuit breaker, as values.

    closed --trouble--> open --the pause is over--> half-open --the probe succeeds--> closed
                          ^                              |
                          +------ the probe fails -------+

Open, the provider gets nothing, and its mail goes to the next one or waits. Half-open, it gets one message.
What opens it are the rows of `trouble.TABLE` that count against a hop's health, as `_opens` has it, and
refusals that strike different mails alike (see `alike`). One mail never does.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from msgspec.structs import replace

from mailer.mail.login_causes import cause_of
from mailer.mail.outcome import Scope
from mailer.send.quota import quota_of
from mailer.send.replies.reader import read_line
from mailer.send.replies.reading import About
from mailer.spool.state.provider_state import (
    LONGEST,
    LONGEST_ASKED,
    MOST_TRIPS,
    MOST_WITNESSES,
    Health,
    ProviderState,
    Witness,
    ahead,
    health,
)

THRESHOLD = 3
"""Failures in a row, of connections or of different messages, before a provider counts as down."""
PAUSE = 60.0
"""Seconds of the first pause, as the first one of `retry.schedule`; a quota may ask for a longer one."""
PROBE = 60.0
"""Seconds that a runner has for its probe before another one may try; a slow one just goes on."""


class Kind(StrEnum):
    """What trouble is about; for `ProviderState.kind`."""

    DOWN = "down"
    LOGIN = "login"
    QUOTA = "quota"
    HOST = "host"
    """Our address, our EHLO name, or a session's limit."""
    ALIKE = "alike"
    """Different mails are refused in the same words."""


_MAY_PASS = frozenset({Kind.DOWN, Kind.HOST})
"""It may concern one session alone."""


@dataclass(frozen=True, slots=True)
class Ailment:
    """One trouble with a provider."""

    text: str
    kind: Kind
    pause: float
    """Seconds."""
    mail: Witness | None
    """In whose transaction it happened; None: no mail had any part in it."""
    asked: bool = False
    """The provider has named the pause: it is kept as it is, and not doubled."""

    @classmethod
    def of(cls, scope: Scope, text: str, mail: Witness | None = None) -> "Ailment":
        """Tell what trouble of HOST or PROVIDER scope, in the words of the journal, is about."""
        if cause_of(text):
            return cls(text, Kind.LOGIN, PAUSE, mail)
        if quota := quota_of(text):
            return cls(text, Kind.QUOTA, quota.pause, mail, quota.asked)
        reading = read_line("", text)
        if reading.about is About.HOST and reading.pause:
            # RFC 9110 10.2.3: how long the service is expected to be unavailable, for any mail.
            return cls(text, Kind.DOWN, reading.pause, None, asked=True)
        if reading.about is About.SESSION:
            return cls(text, Kind.HOST, PAUSE, mail)
        if scope is Scope.PROVIDER:
            return cls(text, Kind.LOGIN, PAUSE, mail)
        return cls(text, Kind.DOWN, PAUSE, mail)


def _opens(state: ProviderState, ailment: Ailment) -> bool:
    """Tell whether trouble closes a provider to all mail that is used now; `state` has counted it.

    What it answers a session before any mail was mentioned does: a refused login at once, a connection that
    fails when it does so again and again. What it answers in a mail's transaction may be about that mail, so
    it takes others that met the same: where the words say that they are about us, another one is enough that
    is not of the same sender to the same domains; else they must share neither.
    """
    if state.failures < THRESHOLD and ailment.kind in _MAY_PASS and not ailment.asked:
        return False
    mail = ailment.mail
    if mail is None or ailment.kind is Kind.ALIKE:
        return True
    others = [one for one in state.witnesses if one.message != mail.message]
    if ailment.kind is Kind.DOWN:
        return any(mail.apart_from(one) for one in others)
    return any(mail.sender != one.sender or not mail.shares_a_domain(one) for one in others)


def next_try(state: ProviderState, now: datetime, message: str = "") -> datetime | None:
    """Tell when a message may go there, when half-open as the probe; None: now.

    One in whose transaction the trouble was would only meet it again, perhaps for its own fault: others may
    go first for a while.
    """
    match health(state, now):
        case Health.OPEN:
            return state.open_until
        case Health.HALF_OPEN:
            assert state.open_until is not None
            if state.probe_until is not None and ahead(state.probe_until, now, PROBE):
                return state.probe_until
            others_first = state.open_until + timedelta(seconds=PROBE)
            # Those that were refused alike have done nothing of their own, and one may be enough to show it.
            tripped = state.witnesses[-1:] if state.kind == Kind.ALIKE else state.witnesses
            if any(one.message == message for one in tripped) and ahead(others_first, now, PROBE):
                return others_first
    return None


def probing(state: ProviderState, now: datetime) -> ProviderState:
    """Mark that a probe is on its way."""
    return replace(state, probe_until=now + timedelta(seconds=PROBE))


def probed(state: ProviderState) -> ProviderState:
    """Take the mark back: whatever became of the probe, the next one may go."""
    return replace(state, probe_until=None)


def closes(state: ProviderState) -> bool:
    """Tell whether a success changes anything; almost always it does not."""
    return state.open_until is not None or state.failures > 0 or bool(state.refusals)


def succeeded(state: ProviderState, now: datetime, *, taken: bool = True) -> ProviderState:
    """Close, unless it has just opened: what succeeds then began before.

    Args:
        state: so far.
        now: what time it is.
        taken: a mail was taken, not only refused for what it is.
    """
    if health(state, now) is Health.OPEN:
        return state
    refusals = () if taken else state.refusals
    return ProviderState(kind=state.kind, trouble=state.trouble, at=state.at, refusals=refusals)


def failed(state: ProviderState, ailment: Ailment, now: datetime) -> ProviderState:
    """Count a trouble, and open if that is enough."""
    mail = ailment.mail
    again = mail is not None and any(one.message == mail.message for one in state.witnesses)
    others = tuple(one for one in state.witnesses if mail is None or one.message != mail.message)
    heard = replace(
        state,
        kind=ailment.kind.value,
        trouble=ailment.text,
        at=now,
        witnesses=(*others, mail)[-MOST_WITNESSES:] if mail else others,
        failures=state.failures + (not again),
    )
    match health(state, now):
        case Health.OPEN:
            return heard
        case Health.HALF_OPEN if mail and not others and ailment.kind is not Kind.ALIKE:
            # One message that breaks every session shall not close a provider to all others.
            return replace(heard, probe_until=None)
        case Health.CLOSED if not _opens(heard, ailment):
            return heard
    pause = (
        min(ailment.pause, LONGEST_ASKED) if ailment.asked else min(ailment.pause * 2**state.trips, LONGEST)
    )
    return replace(
        heard,
        open_until=now + timedelta(seconds=pause),
        opened=state.opened or now,
        probe_until=None,
        trips=min(state.trips + 1, MOST_TRIPS),
    )
