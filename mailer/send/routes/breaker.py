"""When a provider that gives trouble is left alone, and when it is tried again: a circuit breaker, as values.

    closed --trouble--> open --the pause is over--> half-open --the probe succeeds--> closed
                          ^                              |
                          +------ the probe fails -------+

Open, the provider gets nothing, and its mail goes to the next one or waits. Half-open, it gets one message.
What opens it are the rows of `trouble.TABLE` that count against a hop's health: a login that is refused or a
quota that is used up at once, since every message would meet the same; a connection that fails when it does
so again and again. No state here ever decides what becomes of a mail: it only decides who is asked.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from msgspec.structs import replace

from mailer.mail.outcome import Scope
from mailer.send.phase import Phase
from mailer.send.quota import quota_of
from mailer.send.replies.reader import read_line
from mailer.send.replies.reading import About
from mailer.spool.provider_state import MOST_TRIPS, ProviderState

THRESHOLD = 3
"""Failures in a row, of connections or of different messages, before a provider counts as down."""
PAUSE = 60.0
"""Seconds of the first pause, as the first one of `retry.schedule`; a quota may ask for a longer one."""
LONGEST = 3600.0
"""Seconds of the longest pause; each one after a failed probe is twice the one before."""
PROBE = 60.0
"""Seconds that a runner has for its probe before another one may try; a slow one just goes on."""


class Health(StrEnum):
    CLOSED = "closed"
    """In use."""
    OPEN = "open"
    HALF_OPEN = "half-open"


class Kind(StrEnum):
    """What trouble is about; for `ProviderState.kind`."""

    DOWN = "down"
    LOGIN = "login"
    QUOTA = "quota"


@dataclass(frozen=True, slots=True)
class Ailment:
    """One trouble with a provider."""

    text: str
    kind: Kind
    pause: float
    """Seconds."""
    message: str
    """The message whose transaction it happened in; empty: no message had any part in it."""

    @classmethod
    def of(cls, scope: Scope, text: str, message: str = "") -> "Ailment":
        """Tell what trouble of HOST or PROVIDER scope, in the words of the journal, is about.

        What is said of a session or of our host may concern one session alone, and a message may have had a
        part in it, so that it takes several to count.
        """
        if quota := quota_of(text):
            return cls(text, Kind.QUOTA, quota.pause, "")
        if scope is Scope.PROVIDER and read_line("", text).about is not About.SESSION:
            return cls(text, Kind.LOGIN, PAUSE, "")
        return cls(text, Kind.DOWN, PAUSE, message)


def blames(text: str) -> bool:
    """Tell whether words that ended a transaction say anything of the provider.

    What is said of one mail, its sender or its recipients says nothing of it, also where the session ends
    with it: one mail must not close a provider to all others.
    """
    return not text.startswith(("4", "5")) or read_line(Phase.RCPT, text).about not in _OF_THE_MAIL


_OF_THE_MAIL = frozenset({About.MESSAGE, About.SENDER, About.RECIPIENT, About.DESTINATION, About.TRANSACTION})


def health(state: ProviderState, now: datetime) -> Health:
    """Tell how a provider is; a pause that lies too far ahead was set by a wrong clock, and is over."""
    if state.open_until is None:
        return Health.CLOSED
    return Health.OPEN if _ahead(state.open_until, now, LONGEST) else Health.HALF_OPEN


def admits(state: ProviderState, now: datetime) -> bool:
    """Tell whether a message may go there; when half-open, as the probe."""
    match health(state, now):
        case Health.CLOSED:
            return True
        case Health.OPEN:
            return False
        case Health.HALF_OPEN:
            return state.probe_until is None or not _ahead(state.probe_until, now, PROBE)


def probing(state: ProviderState, now: datetime) -> ProviderState:
    """Mark that a probe is on its way."""
    return replace(state, probe_until=now + timedelta(seconds=PROBE))


def probed(state: ProviderState) -> ProviderState:
    """Take the mark back: whatever became of the probe, the next one may go."""
    return replace(state, probe_until=None)


def closes(state: ProviderState) -> bool:
    """Tell whether a success changes anything; almost always it does not."""
    return state.open_until is not None or state.failures > 0


def succeeded(state: ProviderState, now: datetime) -> ProviderState:
    """Close, unless it has just opened: what succeeds then began before."""
    if health(state, now) is Health.OPEN:
        return state
    return ProviderState(kind=state.kind, trouble=state.trouble, at=state.at)


def failed(state: ProviderState, ailment: Ailment, now: datetime) -> ProviderState:
    """Count a trouble, and open if that is enough."""
    again = bool(ailment.message) and ailment.message == state.message
    heard = replace(
        state,
        kind=ailment.kind.value,
        trouble=ailment.text,
        at=now,
        message=ailment.message,
        failures=state.failures + (not again),
    )
    match health(state, now):
        case Health.OPEN:
            return heard
        case Health.HALF_OPEN if again:
            # One message that breaks every session shall not close a provider to all others.
            return replace(heard, probe_until=None)
        case Health.CLOSED if ailment.kind is Kind.DOWN and heard.failures < THRESHOLD:
            return heard
    pause = min(ailment.pause * 2**state.trips, LONGEST)
    return replace(
        heard,
        open_until=now + timedelta(seconds=pause),
        opened=state.opened or now,
        probe_until=None,
        trips=min(state.trips + 1, MOST_TRIPS),
    )


def _ahead(moment: datetime, now: datetime, most: float) -> bool:
    return now < moment <= now + timedelta(seconds=most)
