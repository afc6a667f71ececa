"""What the command line of `mailer-send` asks for."""

from typing import NamedTuple

ONCE, WATCH, DRY_RUN = "once", "watch", "dry-run"


class Order(NamedTuple):
    """One run, or a runner that stays."""

    mode: str
    limit: int | None
    """Messages to try, at most; None: all."""
    max_seconds: float | None
    """After that nothing is begun; None: no end."""
