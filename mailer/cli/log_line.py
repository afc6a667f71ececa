"""Format one line of the ledger for people."""

from collections.abc import Callable, Sequence

from mailer.mail.reply import printable
from mailer.maillog.ledger import Line
from mailer.spool import words

_NAMED_RECIPIENTS = 3
"""The most recipients to name in a line; the others are only counted."""
_PROVIDER_STATES = {"closed": "in use", "open": "paused", "half-open": "on trial"}
_ID = 26
_EVENT = 12
"""The widths of these columns, in characters."""


def in_words(line: Line, name: Callable[[str], str] = str, asked: str = "") -> str:
    """Return one line that says when it happened, what, to which recipients, and the server's reply.

    Args:
        line: the line of the ledger.
        name: maps a hop to the name that the operator gave it.
        asked: a part of the recipients' addresses that are named first, because they were searched for.
    """
    said = " ".join([*_who(line, asked.casefold()), *_where(line, name)])
    words_of_others = line.reply or line.reason
    if words_of_others:
        said = f"{said}: {words_of_others}" if said else words_of_others
    if line.next:
        said += f"; next attempt {words.tried_at(line.next)}"
    return printable(
        f"{words.moment_of(line.at)}  {line.id or '-':{_ID}}  {line.event:{_EVENT}} {said}".rstrip(), 4000
    )


def _who(line: Line, asked: str) -> list[str]:
    said = []
    if line.sender is not None and line.event in {"accepted", "rejected", "limited"}:
        said.append(f"from {words.address(line.sender)}")
    if line.to:
        said.append(f"to {_named(line.to, asked)}")
    if line.redirected:
        said.append(f"instead of {_named(line.redirected, asked)}")
    if line.subject:
        said.append(f'"{line.subject}"')
    if line.message_id:
        said.append(line.message_id)
    if line.size is not None:
        said.append(f"({words.size(line.size)})")
    if line.user or line.peer:
        whose = f"by {line.user}" if line.user else "without a login"
        said.append(f"{whose} at {line.peer}" if line.peer else whose)
    if line.by:
        said.append(f"by {line.by}")
    return said


def _named(addresses: Sequence[str], asked: str) -> str:
    more = len(addresses) - _NAMED_RECIPIENTS
    if more > 0 and asked:
        addresses = sorted(addresses, key=lambda address: asked not in address.casefold())
    return ", ".join(map(words.address, addresses[:_NAMED_RECIPIENTS])) + (
        f" and {more} more" if more > 0 else ""
    )


def _where(line: Line, name: Callable[[str], str]) -> list[str]:
    said = []
    if line.name:
        said.append(f"{line.name} is {_PROVIDER_STATES.get(line.state, line.state)}")
    if line.relay:
        said.append(f"at {name(line.relay)}")
    if line.attempt > 1:
        said.append(f"attempt {line.attempt}")
    if line.since:
        said.append(f"lines since {words.moment_of(line.since)}")
    if line.delay is not None:
        said.append(f"after {words.duration(line.delay)}" if line.delay >= 10 else f"after {line.delay:.1f}s")
    return said
