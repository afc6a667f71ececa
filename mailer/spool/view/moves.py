"""Messages between two spools, whose handover has not ended: neither spool sends them."""

from collections.abc import Iterable
from contextlib import suppress

from mailer.spool.entry import Corrupt
from mailer.spool.layout import Spool, Spot
from mailer.spool.view.inspect import View


def unfinished(spool: Spool, spots: Iterable[Spot]) -> str:
    """Say since when the first of these messages is between two spools, and which; empty: none is."""
    for spot in spots:
        with suppress(OSError, Corrupt), View.open(spool, spot) as view:
            state = view.entry().state
            if state.move:
                return f"between two spools since {state.move.at[:19]}Z, {state.held}"
    return ""
