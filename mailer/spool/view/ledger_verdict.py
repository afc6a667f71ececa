"""What became of a message whose file has left the spool, in words for the operator: from the ledger."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Status
from mailer.mail.reply import printable
from mailer.spool import words
from mailer.spool.journal import Event, Kind
from mailer.spool.message_state import Standing
from mailer.spool.view.story import outcome
from mailer.spool.view.verdict import (
    Outlook,
    advice,
    asked_about,
    in_doubt_words,
    is_about,
    is_copy,
    sent_words,
)


def verdict_of_ledger(events: Sequence[Event], outlook: Outlook) -> list[str]:
    """Describe what happened to a message whose file is gone, from its ledger lines in order."""
    last = last_standings(events)
    left = next((each for each in reversed(events) if each.event in {"removed", "moved", "arrived"}), None)
    about = [is_about(event.about) for event in events if event.about][:1]
    about += [is_copy(event.replays) for event in events if event.replays][:1]
    if left and left.event != "arrived":
        by = f" by {left.by}" if left.by else ""
        how = f"Moved {left.reason}{by}" if left.event == "moved" else f"Removed{by}"
        lines = [f"{how} at {words.moment_of(left.at)}; no file is left in the spool."]
    elif last and all(standing.status is Status.SENT for standing in last):
        lines = [sent_words({standing.hop for standing in last}, "it has left the queue")]
    else:
        lines = [
            "Its file is no longer in the spool, and the ledger does not say why; it has only the following."
        ]
    doubt = _was_in_doubt(events)
    told = (*lines, *about, *map(_last_word, last), *doubt, *advice(last, outlook, ""))
    return [printable(line, 4000) for line in told]


def gist_of_ledger(events: Sequence[Event], outlook: Outlook, whom: Callable[[str], bool]) -> list[str]:
    """Do as `gist` for a message whose file is gone, from its ledger lines in order."""
    last = last_standings(events)
    asked = asked_about(last, whom)
    stands = verdict_of_ledger(events, outlook)[:1]
    if {each.status for each in asked} == {Status.SENT} != {each.status for each in last}:
        # What became of the file afterwards, such as its removal, concerns others.
        stands = [f"{outcome(asked[0])}; its file is no longer in the spool."]
    told = (*stands, *_was_in_doubt(events), *advice(asked, outlook, ""))
    return [printable(line, 4000) for line in told]


def last_standings(events: Iterable[Event]) -> list[Standing]:
    """Return the last status of each recipient by a message's ledger lines, in order."""
    last: dict[str, Standing] = {}
    for event in events:
        if event.event in _SETTLED:
            last |= {address: _stood(address, event, last.get(address)) for address in event.to}
    return list(last.values())


_SETTLED = frozenset({Kind.ACCEPTED, *(status.value for status in Status)})


def _was_in_doubt(events: Sequence[Event]) -> Iterator[str]:
    """Say that a recipient may have it twice: the first reply was lost, and it was sent again."""
    doubtful = {
        address: event.hop for event in events if event.event == Kind.UNCERTAIN for address in event.to
    }
    twice = {
        doubtful[address]: None
        for event in events
        if event.event == Kind.SENT
        for address in event.to
        if address in doubtful
    }
    for hop in twice:
        yield f"Sent, perhaps twice: the reply of an earlier attempt at {hop} was lost."


def _stood(address: str, event: Event, before: Standing | None) -> Standing:
    status = Status(event.event) if event.event != Kind.ACCEPTED else Status.PENDING
    in_doubt = status is Status.EXPIRED and before is not None and before.status is Status.UNCERTAIN
    doubted = before.hop if before and in_doubt else ""
    return Standing(Recipient(address), status, event.reply, event.hop, doubted=doubted)


def _last_word(standing: Standing) -> str:
    doubt = f" ({in_doubt_words(standing)})" if standing.doubted else ""
    return f"{outcome(standing)}{doubt}"
