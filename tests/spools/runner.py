"""The least that a runner does with the spool, so that the spool can be proved without the real one.

The local part of an address says what its next hop answers: `sent...`, `deferred...`, `bounced...`.
"""

from collections.abc import Callable

from mailer.mail.clock import rfc3339
from mailer.spool.changes import DurableMove, make_durable
from mailer.spool.directory import Spool
from mailer.spool.journal import Event
from mailer.spool.layout import Place, bucket_for
from mailer.spool.message_state import Disposition
from mailer.spool.run.claim import Claim, Claims
from mailer.spool.scan import names
from mailer.spool.transitions import Move

HORIZON = 3600.0
DELAY = 600.0


def claims_of(spool: Spool, now: float, report: Callable[..., None] = lambda *_: None) -> Claims:
    return Claims(spool, lambda: now, "boot-1", report, report)


def attempt(claim: Claim, now: float, deliver: Callable[[str, str], None] = lambda *_: None) -> None:
    """Try all due recipients in one transaction, each of which `deliver` is told about."""
    due = claim.entry.state.due(now, HORIZON)
    addresses = tuple(standing.address for standing in due)
    number = claim.entry.state.attempts + 1
    claim.locked.reserve(1024)
    claim.locked.append(
        Event(at=rfc3339(now), event="committing", to=addresses, hop="mx.example.net", attempt=number)
    )
    for address in addresses:
        deliver(claim.id, address)
    outcomes: list[Event] = []
    for kind in ("sent", "deferred", "bounced"):
        to = tuple(address for address in addresses if address.startswith(kind))
        if to:
            following = rfc3339(now + DELAY) if kind == "deferred" else ""
            outcomes.append(Event(at=rfc3339(now), event=kind, to=to, attempt=number, next=following))
    claim.locked.append(*outcomes)


def settle(spool: Spool, claim: Claim, now: float) -> Disposition:
    """Read the journal again and make the move that it asks for; ATTEMPT stays in `cur/`."""
    state = claim.locked.read(boot="boot-1").state
    disposition = state.disposition(now, HORIZON)
    match disposition:
        case Disposition.FINISH:
            claim.locked.move(Move.FINISH)
            claim.locked.release()
            spool.sync_directory(Place.CUR.value)
        case Disposition.ATTEMPT:
            return disposition
        case _:
            make_durable(spool, _lasting(claim, disposition, state.next))
            claim.locked.release()
    return disposition


def _lasting(claim: Claim, disposition: Disposition, due: float | None) -> DurableMove:
    if disposition is Disposition.WAIT:
        assert due is not None
        return DurableMove(claim.locked, Move.DEFER, bucket_for(due))
    return DurableMove(claim.locked, Move.HOLD if disposition is Disposition.HOLD else Move.FAIL)


def run_once(spool: Spool, now: float, deliver: Callable[[str, str], None] = lambda *_: None) -> None:
    """Recover what dead runners left, then claim what is new, and bring each to rest."""
    claims = claims_of(spool, now)
    for place, take in ((Place.CUR, claims.recover), (Place.NEW, claims.claim)):
        for name in list(names(spool, place.value)):
            claim = take(name)
            if claim and settle(spool, claim, now) is Disposition.ATTEMPT:
                attempt(claim, now, deliver)
                settle(spool, claim, now)
