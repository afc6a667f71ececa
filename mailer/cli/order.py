"""The parsed command line of `mailer-send`."""

import msgspec

ONCE, WATCH, DRY_RUN = "once", "watch", "dry-run"


class Order(msgspec.Struct, frozen=True):
    """What `mailer-send` is to do: a single run, a runner that watches, or a dry run."""

    mode: str
    limit: int | None
    """The most messages to try; None for no limit."""
    max_seconds: float | None
    """Seconds after which no delivery is begun; None for no limit."""
