"""Circuit breaker for providers: when one is paused, and when it is tried again; plain values, no I/O.

    closed --trouble--> open --the pause is over--> half-open --the probe succeeds--> closed
                          ^                              |
                          +------ the probe fails -------+

While the breaker is open, the provider gets nothing, and its mail goes to the next provider or waits. While
it is half-open, the provider gets one message, the probe. The breaker opens because of trouble whose row in
`trouble.TABLE` counts toward it, as `_opens` decides, and because of equal refusals of unrelated mails (see
`alike`). A single mail never opens it.
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
"""Consecutive failures, of connections or of different messages, before a provider counts as down."""
PAUSE = 60.0
"""Seconds of the first pause, the same as the first delay of `retry.schedule`; a quota may ask for more."""
PROBE = 60.0
"""Seconds for a runner's probe before another runner may send one; the first probe is not interrupted."""


class Kind(StrEnum):
    """What trouble is about; the values of `ProviderState.kind`."""

    DOWN = "down"
    LOGIN = "login"
    QUOTA = "quota"
    HOST = "host"
    """Our address, our EHLO name, or a limit of the session."""
    ALIKE = "alike"
    """Unrelated mails are refused with the same words."""


_MAY_PASS = frozenset({Kind.DOWN, Kind.HOST})
"""Kinds of trouble that may affect only one session."""


_ANSWERS = ("2", "4", "5", "HTTP ")
"""The first characters of what a provider said, as it is written in the journal."""


@dataclass(frozen=True, slots=True)
class Ailment:
    """One trouble with a provider."""

    text: str
    kind: Kind
    pause: float
    """Seconds for which to pause the provider."""
    mail: Witness | None
    """The mail in whose transaction it happened; None if it happened outside any transaction."""
    asked: bool = False
    """Whether the provider itself named the pause, which is then not doubled."""

    @classmethod
    def of(cls, scope: Scope, text: str, mail: Witness | None = None) -> "Ailment":
        """Classify trouble of HOST or PROVIDER scope by its text, written as in the journal."""
        if cause_of(text):
            return cls(text, Kind.LOGIN, PAUSE, mail)
        if quota := quota_of(text):
            return cls(text, Kind.QUOTA, quota.pause, mail, quota.asked)
        reading = read_line("", text)
        if reading.about is About.HOST and reading.pause:
            # RFC 9110 10.2.3: Retry-After is how long the service is expected to be unavailable, to any mail.
            return cls(text, Kind.DOWN, reading.pause, None, asked=True)
        # Without a code it is an error of the system: "Connection refused" is said of no host of ours.
        if reading.about is About.SESSION and text.startswith(_ANSWERS):
            return cls(text, Kind.HOST, PAUSE, mail)
        if scope is Scope.PROVIDER:
            return cls(text, Kind.LOGIN, PAUSE, mail)
        return cls(text, Kind.DOWN, PAUSE, mail)


def _opens(state: ProviderState, ailment: Ailment) -> bool:
    """Tell whether trouble opens the breaker of a provider in use; `state` has counted the trouble already.

    Trouble outside a transaction does: a refused login the first time, a failed connection after `THRESHOLD`
    times. Trouble within a mail's transaction may be about that mail, so it takes other mails with the same
    trouble. If the words say that it is about us, one mail with another sender or other recipient domains is
    enough; otherwise it must have another sender and share no recipient domain.
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
    """Return when a message may be sent to the provider, if half-open as the probe; None means now.

    A message that met the trouble itself may have caused it and would meet it again, so others may go first
    for `PROBE` seconds.
    """
    match health(state, now):
        case Health.OPEN:
            return state.open_until
        case Health.HALF_OPEN:
            assert state.open_until is not None
            if state.probe_until is not None and ahead(state.probe_until, now, PROBE):
                return state.probe_until
            others_first = state.open_until + timedelta(seconds=PROBE)
            # Mails refused with equal words did not cause the trouble, so only the last one has to wait.
            tripped = state.witnesses[-1:] if state.kind == Kind.ALIKE else state.witnesses
            if any(one.message == message for one in tripped) and ahead(others_first, now, PROBE):
                return others_first
    return None


def probing(state: ProviderState, now: datetime) -> ProviderState:
    """Mark that a probe is being sent."""
    return replace(state, probe_until=now + timedelta(seconds=PROBE))


def probed(state: ProviderState) -> ProviderState:
    """Remove the mark: the probe has ended, however it did, and the next one may be sent."""
    return replace(state, probe_until=None)


def closes(state: ProviderState) -> bool:
    """Tell whether a success would change the state; almost always it would not."""
    return state.open_until is not None or state.failures > 0 or bool(state.refusals)


def succeeded(state: ProviderState, now: datetime, *, taken: bool = True) -> ProviderState:
    """Close the breaker after a success.

    If it is open, nothing changes: the successful transaction began before it opened.

    Args:
        state: the state before.
        now: the current time.
        taken: whether a mail was accepted, not only refused for a reason of the mail.
    """
    if health(state, now) is Health.OPEN:
        return state
    refusals = () if taken else state.refusals
    return ProviderState(kind=state.kind, trouble=state.trouble, at=state.at, refusals=refusals)


def failed(state: ProviderState, ailment: Ailment, now: datetime) -> ProviderState:
    """Count trouble, and open the breaker if that is enough."""
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
            # A message that breaks every session must not keep the breaker open for all others.
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
