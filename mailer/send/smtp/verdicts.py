"""Determine which reply of a transaction decides each recipient's case (RFC 5321 3.3, RFC 2920 3.1)."""

from collections.abc import Sequence

from mailer.mail.reply import Reply
from mailer.send.phase import Phase
from mailer.send.replies.reader import read
from mailer.send.replies.reading import About
from mailer.send.smtp.events import Verdict

_MAIL, _RCPT, _DOT = Phase.MAIL, Phase.RCPT, Phase.DOT
"""As globals: see `machine`."""


def worn(verdicts: Sequence[Verdict]) -> bool:
    """Tell whether the transaction was refused before the message, but may succeed in a new session.

    A server that limits what one session may do answers MAIL or DATA with 4yz as often as with the 421 of
    RFC 5321 3.8.
    """
    for verdict in verdicts:
        if verdict.phase is _DOT:
            return False
    return any(
        (verdict.phase is not _RCPT and not verdict.reply.permanent)
        or read(verdict.phase, verdict.reply).about is About.SESSION
        for verdict in verdicts
    )


class Verdicts:
    """Folds the replies of one transaction, taken in the order of its commands."""

    __slots__ = ("_answered", "_last", "_mail", "_refused")

    def __init__(self, recipients: int) -> None:
        self._refused: list[Verdict | None] = [None] * recipients
        self._answered = 0
        self._mail: Verdict | None = None
        self._last: Verdict | None = None

    def add(self, phase: Phase, reply: Reply) -> None:
        self._last = Verdict(phase, reply)
        if phase is _MAIL and not reply.positive:
            self._mail = self._last
        elif phase is _RCPT:
            if not reply.positive:
                self._refused[self._answered] = self._last
            self._answered += 1

    def accept(self, phase: Phase) -> None:
        """Take an acceptance of MAIL or RCPT. It decides no case, since DATA comes after it."""
        self._answered += phase is _RCPT

    @property
    def all_refused(self) -> bool:
        """Whether MAIL or every RCPT was refused, so that this transaction has no recipient."""
        return self._mail is not None or None not in self._refused

    @property
    def refused(self) -> tuple[Verdict | None, ...]:
        """Each recipient's refusal at RCPT; None: accepted."""
        return tuple(self._refused)

    @property
    def final(self) -> tuple[Verdict, ...]:
        """Each recipient's verdict: the refusal of MAIL, else of its RCPT, else the reply to DATA or the dot.

        After a refused MAIL, the replies to RCPT and DATA are about the order of commands and not about the
        recipients.
        """
        last = self._last
        assert last is not None
        return tuple([self._mail or refused or last for refused in self._refused])
