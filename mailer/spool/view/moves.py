"""Messages between two spools, whose handover has not ended: neither spool sends them."""

from collections.abc import Iterable
from contextlib import suppress

from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.entry import Corrupt
from mailer.spool.layout import Spot
from mailer.spool.view.inspect import View


def unfinished(spool: Spool, spots: Iterable[Spot]) -> str:
    """Say how many of these messages are between two spools, and since when and why; empty: none is."""
    moves = []
    for spot in spots:
        with suppress(OSError, Corrupt), View.open(spool, spot) as view:
            state = view.entry().state
            if state.move:
                moves.append((state.move.at, state.held))
    if not moves:
        return ""
    at, held = min(moves)
    count = words.count(len(moves), "message")
    return f"{count} between two spools, the first since {at[:19]}Z: {held}"
