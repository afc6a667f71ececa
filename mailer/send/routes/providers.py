"""Circuit breakers of a run: `breaker` decides; the state is kept in `state/`, and changes go to the ledger.

A provider without trouble costs one dictionary lookup for each message, and no access to the disk.
"""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from time import monotonic

from mailer.ground.lazy_task import in_task
from mailer.mail.clock import Clock
from mailer.mail.outcome import Outcome, Scope
from mailer.maillog.events import Level, MailLog
from mailer.send.phase import Phase
from mailer.send.routes import alike, breaker
from mailer.send.routes.breaker import Ailment, Kind
from mailer.send.smtp.hop_sessions import HANG_AFTER
from mailer.send.trouble import Resting
from mailer.spool.directory import Spool
from mailer.spool.state import provider_state
from mailer.spool.state.provider_state import Health, ProviderState, States, Witness, health

_LOOK = 1.0
"""Seconds between reads of the file while a breaker is open: another runner or the operator may close it."""

_PROBE_WAIT = 3.0
"""Seconds that a message waits for the probe of another message before it goes to the next provider."""


class Providers:
    """The states of all providers, as this run knows them."""

    def __init__(self, spool: Spool, log: MailLog, clock: Clock) -> None:
        """Load the states that earlier runs left."""
        self._spool = spool
        self._log = log
        self._clock = clock
        self._states: States = provider_state.read(spool)
        self._looked = 0.0
        self._unwritten = False
        self._stamp: tuple[int, int] | None = None
        """The file's stamp at the first change that could not be written, so that only this run knows it."""

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def state(self, account: str) -> ProviderState:
        return self._states.get(account, _WELL)

    def look(self) -> None:
        """Read the file again, unless that was done within `_LOOK` seconds.

        Changes that could not be written are kept until another runner, which made its own observations, or
        the operator, who resets a provider, writes the file.
        """
        now = monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        if self._unwritten and provider_state.stamp(self._spool) == self._stamp:
            return
        self._unwritten = False
        self._states = provider_state.read(self._spool)

    def change(self, account: str, name: str, how: Callable[[ProviderState], ProviderState]) -> None:
        """Change a provider's state in memory and on disk, and log a change of its health."""
        before, now = self.state(account), self.now()
        try:
            self._states = provider_state.change(self._spool, account, how)
            self._unwritten = False
        except OSError as error:
            # Keep the change in memory; on a full disk nothing is sent anyway.
            self._states[account] = how(before)
            if not self._unwritten:
                self._log.warning(
                    "state/providers.json cannot be written; no mail depends on it", error=error.strerror
                )
                self._stamp = provider_state.stamp(self._spool)
            self._unwritten = True
        after = self.state(account)
        was, known = health(before, now), health(after, now)
        if was is not known:
            reason = f"{after.words}: {after.trouble}" if known is Health.OPEN else ""
            # A refused login needs a person to correct it; other trouble may pass without one.
            human = known is Health.OPEN and after.kind == Kind.LOGIN
            level = Level.WARNING if human else Level.NOTICE
            self._log.provider(name, known.value, reason, level=level)


_WELL = ProviderState()


class Breaker:
    """The circuit breaker of one provider."""

    def __init__(self, providers: Providers, account: str, name: str) -> None:
        """Prepare.

        Args:
            providers: the states of the run's providers.
            account: the key of the provider's state.
            name: the operator's name for the provider.
        """
        self._providers = providers
        self._account = account
        self._name = name
        self._probe: asyncio.Event | None = None
        """Set when the probe that this run has sent ends; None while there is no such probe."""

    async def admit(self, hop: str, message: str) -> bool:
        """Admit a message; return True if it is the probe, after which `probed` must be called.

        Raises:
            Resting: the message is not admitted; nothing was tried.
        """
        providers = self._providers
        while providers.state(self._account).open_until is not None:
            providers.look()
            state, now = providers.state(self._account), providers.now()
            over = breaker.next_try(state, now, message)
            if over is None:
                return self._probes(state, now)
            if not await self._probe_ends():
                raise _resting(hop, state, over)
        return False

    def _probes(self, state: ProviderState, now: datetime) -> bool:
        if state.open_until is None:
            return False
        self._probe = asyncio.Event()
        self._change(partial(breaker.probing, now=now))
        return True

    async def _probe_ends(self) -> bool:
        """Wait for this run's probe, if there is one; return True if it ended within `_PROBE_WAIT` seconds.

        Most probes take less than a second, after which all messages may be sent.
        """
        await in_task()
        if self._probe is None:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PROBE_WAIT):
                await self._probe.wait()
                return True
        return False

    def probed(self) -> None:
        """End the probe, whatever its result."""
        if self._probe:
            self._probe.set()
            self._probe = None
        if self._providers.state(self._account).probe_until is not None:
            self._change(breaker.probed)

    def hanging(self, hop: str) -> Resting:
        """Return the trouble for a message that is not tried, because other messages wait for an answer."""
        text = f"not tried, since it has not answered another message for {HANG_AFTER:.0f} s"
        until = self._providers.now().timestamp() + breaker.PAUSE
        return Resting(hop, Phase.CONNECT, text, scope=Scope.PROVIDER, until=until)

    def succeeded(self, *, taken: bool = True) -> None:
        """Record that a message was accepted or, if not `taken`, clearly refused for its own sake."""
        if taken:
            self._providers.look()  # To see, and clear, refusals that other runners have recorded.
        if breaker.closes(self._providers.state(self._account)):
            self._change(partial(breaker.succeeded, now=self._providers.now(), taken=taken))

    def failed(self, scope: Scope, text: str, mail: Witness | None) -> None:
        """Record trouble that counts toward the breaker; the arguments are those of `Ailment.of`."""
        self._fail(Ailment.of(scope, text, mail))

    def refused(self, words: str, outcome: Outcome, mail: Witness) -> bool:
        """Remember that a mail was refused; tell whether unrelated mails were refused with the same words.

        If so, the refusal is not about the mail. Unless it is about the sender, it counts toward the breaker.

        Args:
            words: the digest of the reply, from `alike.digest`.
            outcome: the outcome of one of the recipients.
            mail: the mail, with the recipients that were refused.
        """
        clear = alike.is_clear(outcome)
        self._change(partial(alike.remember, words=words, mail=mail))
        state = self._providers.state(self._account)
        if alike.is_provider_wide(state, words, clear=clear):
            if not alike.is_of_the_sender(outcome):
                self._fail(Ailment(outcome.reply, Kind.ALIKE, breaker.PAUSE, mail))
            return True
        return not clear and alike.strikes_a_sender(state, words, mail)

    def _fail(self, ailment: Ailment) -> None:
        self._change(partial(breaker.failed, ailment=ailment, now=self._providers.now()))

    def _change(self, how: Callable[[ProviderState], ProviderState]) -> None:
        self._providers.change(self._account, self._name, how)


def _resting(hop: str, state: ProviderState, over: datetime) -> Resting:
    text = f"not tried before {over:%Y-%m-%d %H:%M:%SZ}, since {state.words}: {state.trouble}"
    return Resting(hop, Phase.CONNECT, text, scope=Scope.PROVIDER, until=over.timestamp())
