"""Add addresses to the suppression list that servers say do not exist (`suppressUnknown`).

An entry stops the mail of every sender on this host, so a refusal counts only where nothing else can be
meant:

- A server gave it, permanently and with the code 5.1.1, and `replies/` reads it as about the recipient, not
  about our account or its standing. Words without the code are not enough. Nor is the code with words that
  contradict it: servers use 5.1.1 for full mailboxes and for spam too.
- It answered RCPT, or the mail has no other recipient, since a refusal of DATA or of the final dot settles
  all recipients.
- It was given twice, a day apart, without a delivery in between: a provider whose directory is broken says
  5.1.1 of every address (Gmail did so for hours on 15 December 2020).

If a runner dies before it has written an entry, or finds the list locked, the next refusal adds it.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from re import Pattern
from threading import Lock

from mailer.config.model import SuppressUnknown
from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.mail.outcome import Outcome, Status, was_asked
from mailer.mail.reply import printable
from mailer.maillog.events import MailLog
from mailer.send.phase import Phase
from mailer.send.replies.plain_words import plain
from mailer.send.replies.reading import About
from mailer.send.replies.row import phrases
from mailer.send.trouble import reading_of
from mailer.spool.directory import Spool
from mailer.spool.state import suppression
from mailer.spool.state.suppression import Entry

_CODE = "5.1.1"
"""Bad destination mailbox address (RFC 3463 3.2). X.1.2 and X.1.10 are about the domain, and the owner of the
mailbox can cure X.2.1 (disabled)."""
_MAX_REPLY = 300
"""Characters of a reply that are kept: senders see it with each refusal."""
_MAILBOX = "(user|recipient|mailbox|mail box|address|addressee|alias|account|person|destinataire|usuario)"
_ABSENT = """(unknown|not known|not found|not exist|doesn't exist|does not exist|no longer exists|nonexistent|
    couldn't be found|could not be found|unallocated|inconnu|desconocido)"""
_NOBODY = f"""
    {_MAILBOX} (\\S+ ){{0,5}}{_ABSENT}
    (unknown|no such|invalid|nonexistent|non existent) ((local|email|e mail|mail) )?{_MAILBOX}
    unknown or illegal {_MAILBOX}
    no (\\S+ )?{_MAILBOX} (\\S+ )?(by|with|of) (that|this) name
    (recipnotfound|recipientnotfound)
    not a valid (email |e mail |mail )?{_MAILBOX}
    bad destination mailbox address
    """
"""Phrases that say that the mailbox does not exist; the last one is RFC 3463's."""
_SOMETHING_ELSE = f"""
    (full|quota|overquota|exceed*|temporar*|later|again|policy|spam|virus|content|disabled|members)
    (sender|senders|blocked|denied|greylist*|verification|syntax)
    (host|domain|mx|dns|route) (\\S+ ){{0,3}}{_ABSENT}
    (unknown|no such|invalid) (host|domain)
    """


def says_unknown(outcome: Outcome, *, alone: bool) -> bool:
    """Tell whether an outcome is a server's clear statement that the recipient does not exist.

    Args:
        outcome: the outcome of one recipient.
        alone: the message has no other recipient, so that a refusal of the message can mean no other.
    """
    if outcome.status is not Status.BOUNCED or not was_asked(outcome.hop):
        return False
    if outcome.phase != Phase.RCPT and not alone:
        return False
    reading = reading_of(outcome)
    return (
        reading.permanent
        and reading.about is About.RECIPIENT
        and reading.enhanced == _CODE
        and not reading.here
        and _says_nobody(outcome.reply.partition(" ")[2])
    )


def _says_nobody(text: str) -> bool:
    """Tell whether the words after the code agree with it; a reply without words does."""
    nobody, something_else = _phrases()
    words = plain(text)
    return not words.strip() or (nobody.search(words) is not None and something_else.search(words) is None)


@cache
def _phrases() -> tuple[Pattern[str], Pattern[str]]:
    return phrases(_NOBODY), phrases(_SOMETHING_ELSE)


class Unknown:
    """Updates the suppression list from the outcomes of recipients."""

    def __init__(
        self,
        terms: SuppressUnknown,
        spool: Spool,
        clock: Clock,
        log: MailLog,
        exempt: Callable[[str], bool],
    ) -> None:
        """Prepare.

        Args:
            terms: the configuration of `suppressUnknown`.
            spool: the spool that has the list.
            clock: the source of time.
            log: gets a line for each new entry.
            exempt: tells whether the list does not apply to an address.
        """
        self._terms = terms
        self._spool = spool
        self._clock = clock
        self._log = log
        self._exempt = exempt
        self._writing = Lock()
        """Serializes the threads of this run; the list's own lock never waits for other programs."""

    def learn(self, refused: Sequence[Outcome], sent: Iterable[str], *, dated: bool = True) -> None:
        """Update the list after an attempt; log an entry that cannot be written.

        Args:
            refused: the outcomes for which `says_unknown` is true.
            sent: the recipients that were delivered: an earlier refusal of one was a mistake.
            dated: whether the clock is right. If not, nothing is added, because entries have times.
        """
        try:
            with self._writing:
                self._write(refused if dated else (), sent)
        except OSError as error:
            self._log.warning("the suppression list was not changed", error=error.strerror or str(error))

    def _write(self, refused: Sequence[Outcome], sent: Iterable[str]) -> None:
        self._forget({name for address in sent if (name := self._suspected(address))})
        news = {name: outcome for outcome in refused if (name := self._name(outcome.address))}
        if news:
            suppression.amend(self._spool, news, lambda known, name: self._entry(known, news[name], name))

    def _name(self, address: str) -> str:
        """Return the key of an address in the list; empty if it cannot be there."""
        try:
            return "" if self._exempt(address) else suppression.key(address)
        except ValueError:
            return ""

    def _suspected(self, address: str) -> str:
        name = self._name(address)
        known = suppression.look_up(self._spool, name) if name else None
        return name if known and known.awaits else ""

    def _forget(self, names: Collection[str]) -> None:
        if names:
            suppression.amend(self._spool, names, lambda known, _: None if known and known.awaits else known)

    def _entry(self, known: Entry | None, outcome: Outcome, name: str) -> Entry:
        """Return the entry for an address after another refusal."""
        now = self._clock()
        at = clock.rfc3339(now)
        if known and known.until and known.until <= at:
            known = None
        if known and (not known.awaits or at < known.awaits):
            return known
        complete = known is not None or not self._terms.confirm_after
        self._log.notice(
            "added to the suppression list" if complete else "added to the suppression list if refused again",
            address=name,
            relay=outcome.hop,
            reply=outcome.reply,
        )
        return Entry(
            address=name,
            at=at,
            by=printable(outcome.hop, _MAX_REPLY),
            reason=printable(outcome.reply, _MAX_REPLY),
            until=clock.rfc3339(now + self._terms.keep_for) if self._terms.keep_for else "",
            awaits="" if complete else clock.rfc3339(now + self._terms.confirm_after),
        )
