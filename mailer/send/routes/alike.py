"""Detect refusals that are about the provider, not the mail, because unrelated mails got the same reply.

If a provider refuses different mails with the same words and accepts none in between, the refusals are not
about those mails, whatever the words and the code say: it refuses all mail. How many such refusals are needed
depends on how clear the words are. This module has plain values only, no I/O.
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256

from msgspec.structs import replace

from mailer.mail.outcome import Outcome, Scope, Status, was_asked
from mailer.send.replies.plain_words import plain
from mailer.send.replies.reading import About
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
"""The number of mails, no two of which share sender or recipient domain, that must be refused with the same
words: if it is unclear what is refused, and if it is clear. The latter is higher, because several mails to
addresses that no longer exist may well come one after another."""
OF_ONE_SENDER = 3
"""The number of mails from one sender to different domains that must be refused with the same words. The
trouble may then be that sender's standing there, so nothing bounces, and other senders' mail goes on."""

_REFUSED = frozenset({Status.BOUNCED, Status.DEFERRED})
_OF_MAIL = frozenset({Scope.RECIPIENT, Scope.MESSAGE})


def witness(message: str, sender: str, addresses: Iterable[str]) -> Witness:
    """Return the record of a mail and of those of its recipients that met trouble."""
    domains = sorted({address.rpartition("@")[2].lower() for address in addresses})
    return Witness(message, sender.lower(), tuple(domains[:MOST_DOMAINS]))


def may_be_provider_wide(outcome: Outcome) -> bool:
    """Tell whether a refusal is one that a provider may be giving to all mail.

    Outcomes found without asking a server do not count, nor do temporary refusals that say what they are
    about: those are deferred anyway.
    """
    if outcome.status not in _REFUSED or outcome.scope not in _OF_MAIL or not was_asked(outcome.hop):
        return False
    return outcome.status is Status.BOUNCED or reading_of(outcome).about is About.UNKNOWN


def digest(outcome: Outcome, mail: Witness) -> str:
    """Return a digest of a refusal's phase and words, without the mail's own addresses.

    It is the same for different mails that are refused for the same reason.
    """
    text = outcome.reply.casefold()
    for address in (mail.sender, outcome.address.casefold()):
        local, _, domain = address.rpartition("@")
        for own in filter(None, (address, domain, local)):
            text = re.sub(rf"(?<![\w.-]){re.escape(own)}(?![\w-])", " @ ", text)
    return sha256(f"{outcome.phase} {plain(text)}".encode()).hexdigest()[:16]


def remember(state: ProviderState, words: str, mail: Witness) -> ProviderState:
    """Add a mail to those that were refused with these words."""
    before = next((refusal for refusal in state.refusals if refusal.words == words), Refusal(words, ()))
    others = tuple(one for one in before.witnesses if one.message != mail.message)
    after = Refusal(words, (*others, mail)[-MOST_WITNESSES:])
    rest = tuple(refusal for refusal in state.refusals if refusal.words != words)
    return replace(state, refusals=(*rest, after)[-MOST_REFUSALS:])


def is_provider_wide(state: ProviderState, words: str, *, clear: bool) -> bool:
    """Tell whether enough unrelated mails were refused with these words."""
    return _apart(_witnesses(state, words)) >= (CLEAR if clear else UNCLEAR)


def strikes_a_sender(state: ProviderState, words: str, mail: Witness) -> bool:
    """Tell whether enough mails of this sender to different domains were refused with these words."""
    domains: list[Witness] = []
    for one in (mail, *_witnesses(state, words)):
        if one.sender == mail.sender and not any(one.shares_a_domain(other) for other in domains):
            domains.append(one)
    return len(domains) >= OF_ONE_SENDER


def is_clear(outcome: Outcome) -> bool:
    """Tell whether a refusal says what it is about."""
    if outcome.status is Status.BOUNCED:
        return Hardness.of(outcome) is not Hardness.UNCLEAR
    return reading_of(outcome).about is not About.UNKNOWN


def is_of_the_sender(outcome: Outcome) -> bool:
    """Tell whether a refusal is about the sender, which may be another one in the next mail."""
    return reading_of(outcome).about is About.SENDER


def _witnesses(state: ProviderState, words: str) -> Sequence[Witness]:
    return next((refusal.witnesses for refusal in state.refusals if refusal.words == words), ())


def _apart(witnesses: Sequence[Witness]) -> int:
    """Return the size of a large set of mails no two of which share sender or recipient domain.

    The search is greedy, starting once from each mail. It need not find the largest set.
    """
    most = 0
    for first in witnesses:
        chosen = [first]
        for one in witnesses:
            if all(one.apart_from(other) for other in chosen):
                chosen.append(one)
        most = max(most, len(chosen))
    return most
