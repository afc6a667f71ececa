"""Whose trouble a refusal is when other mails met the same: as values, from what is remembered of a provider.

A provider that refuses different mails in the same words, and takes none in between, does not refuse them: it
refuses everybody, whatever its words and its code say. How many it takes depends on how clear the words are.
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256

from msgspec.structs import replace

from mailer.mail.outcome import Outcome, Scope, Status, was_asked
from mailer.send.replies.reading import About
from mailer.send.replies.words import plain
from mailer.send.trouble import Hardness, reading_of
from mailer.spool.state.provider_state import (
    MOST_DOMAINS,
    MOST_REFUSALS,
    MOST_WITNESSES,
    ProviderState,
    Refusal,
    Witness,
)

UNCLEAR, CLEAR = 2, 5
"""Mails, no two of which share sender or recipient domain, that must be refused alike: where it is not clear
what is refused, and where it is. Some mails to addresses that are gone may well come one after the other."""
OF_ONE_SENDER = 3
"""Mails to different domains that must be refused alike where all are of one sender. Then it may be the
sender's trouble there: nothing bounces, and no other mail waits."""

_REFUSED = frozenset({Status.BOUNCED, Status.DEFERRED})
_OF_MAIL = frozenset({Scope.RECIPIENT, Scope.MESSAGE})


def witness(message: str, sender: str, addresses: Iterable[str]) -> Witness:
    """Return what is remembered of a mail and those of its recipients that met trouble."""
    domains = sorted({address.rpartition("@")[2].lower() for address in addresses})
    return Witness(message, sender.lower(), tuple(domains[:MOST_DOMAINS]))


def may_be_everybodys(outcome: Outcome) -> bool:
    """Tell whether a refusal is one that a provider may give to everybody.

    Not what was found out without asking, nor what may pass and says whom it is about: that is deferred
    anyway.
    """
    if outcome.status not in _REFUSED or outcome.scope not in _OF_MAIL or not was_asked(outcome.hop):
        return False
    return outcome.status is Status.BOUNCED or reading_of(outcome).about is About.UNKNOWN


def digest(outcome: Outcome, mail: Witness) -> str:
    """Return what is alike in refusals of different mails: phase and words, but for what is a mail's own."""
    text = outcome.reply.casefold()
    for address in (mail.sender, outcome.address.casefold()):
        local, _, domain = address.rpartition("@")
        for own in filter(None, (address, domain, local)):
            text = re.sub(rf"(?<![\w.-]){re.escape(own)}(?![\w-])", " @ ", text)
    return sha256(f"{outcome.phase} {plain(text)}".encode()).hexdigest()[:16]


def remember(state: ProviderState, words: str, mail: Witness) -> ProviderState:
    """Add a mail to those that were refused in these words."""
    before = next((refusal for refusal in state.refusals if refusal.words == words), Refusal(words, ()))
    others = tuple(one for one in before.witnesses if one.message != mail.message)
    after = Refusal(words, (*others, mail)[-MOST_WITNESSES:])
    rest = tuple(refusal for refusal in state.refusals if refusal.words != words)
    return replace(state, refusals=(*rest, after)[-MOST_REFUSALS:])


def strikes_everybody(state: ProviderState, words: str, *, clear: bool) -> bool:
    """Tell whether mails that have nothing in common were refused in these words."""
    return _apart(_witnesses(state, words)) >= (CLEAR if clear else UNCLEAR)


def strikes_a_sender(state: ProviderState, words: str, mail: Witness) -> bool:
    """Tell whether mails of one sender to different domains were refused in these words."""
    domains: list[Witness] = []
    for one in (mail, *_witnesses(state, words)):
        if one.sender == mail.sender and not any(one.shares_a_domain(other) for other in domains):
            domains.append(one)
    return len(domains) >= OF_ONE_SENDER


def is_clear(outcome: Outcome) -> bool:
    """Tell whether a refusal says of what."""
    if outcome.status is Status.BOUNCED:
        return Hardness.of(outcome) is not Hardness.UNCLEAR
    return reading_of(outcome).about is not About.UNKNOWN


def is_of_the_sender(outcome: Outcome) -> bool:
    """Tell whether its words are about the sender, who may be another one in the next mail."""
    return reading_of(outcome).about is About.SENDER


def _witnesses(state: ProviderState, words: str) -> Sequence[Witness]:
    return next((refusal.witnesses for refusal in state.refusals if refusal.words == words), ())


def _apart(witnesses: Sequence[Witness]) -> int:
    """Count mails no two of which share anything: not all sets are tried, it is enough to begin with each."""
    most = 0
    for first in witnesses:
        chosen = [first]
        for one in witnesses:
            if all(one.apart_from(other) for other in chosen):
                chosen.append(one)
        most = max(most, len(chosen))
    return most
