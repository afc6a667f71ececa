"""Where the runner's next message comes from: what has just arrived, then what was there, then what is due.

A pass looks once at everything that may be ready: claims of dead runners, `new/`, and the due buckets of
`retry/`. It is a stream, so its memory does not grow with the queue, and fresh mail overtakes it at every
step: a backlog does not delay a password reset.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from mailer.mail.clock import Clock
from mailer.maillog.events import MailLog
from mailer.spool.claim import Claim, Claims
from mailer.spool.layout import Place, Spool
from mailer.spool.scan import names
from mailer.spool.sweep import clean_tmp, requeue_due

_HEARD = 10_000
"""Names of fresh mail kept in memory; beyond that a pass over `new/` finds them just as well."""


class Feed:
    """Gives out claims, one at a time."""

    def __init__(self, spool: Spool, claims: Claims, clock: Clock, log: MailLog, *, horizon: float) -> None:
        self._spool = spool
        self._claims = claims
        self._clock = clock
        self._log = log
        self._horizon = horizon
        self._fresh: deque[str] = deque()
        self._pass: Iterator[Claim] = iter(())
        self.exhausted = True
        """The last pass has come to its end."""
        self.missed = True
        """Something may have arrived that no pass has looked at yet."""

    def heard(self, names: Iterable[str] | None) -> None:
        """Take names of mail that has just arrived; None: some arrived whose names are not known."""
        if names is None or len(self._fresh) >= _HEARD:
            self.missed = True
        else:
            self._fresh.extend(names)

    def begin_pass(self) -> None:
        """Look at everything anew."""
        self.missed = self.exhausted = False
        self._pass = self._everything()

    def next(self) -> Claim | None:
        """Return the next message to try; None when nothing is left.

        Raises:
            OSError: the spool cannot be worked with.
        """
        while self._fresh:
            if claim := self._claims.take(self._fresh.popleft()):
                return claim
        claim = next(self._pass, None)
        self.exhausted = claim is None
        return claim

    def _everything(self) -> Iterator[Claim]:
        for name in names(self._spool, Place.CUR.value):
            if claim := self._claims.recover(name):
                self._log.message("recovered", id=name, reason="its runner died")
                yield claim
        for name in names(self._spool, Place.NEW.value):
            if claim := self._claims.take(name):
                yield claim
        for spot in requeue_due(self._spool, self._claims, self._clock(), self._horizon):
            if claim := self._claims.take(spot.name):
                yield claim
        for name in clean_tmp(self._spool, self._clock()):
            self._log.notice("removed an unfinished message that was never acknowledged", id=name)
