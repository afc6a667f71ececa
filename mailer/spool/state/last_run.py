"""The last run: `state/last-run.json`, from which it is known whether runners run at all."""

import msgspec

from mailer.spool.layout import Spool
from mailer.spool.state import small_files

_NAME = "last-run.json"


class LastRun(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A run that could work with the spool, whatever became of the mail. Counts are messages."""

    at: str
    """When it ended; for one that stays, when it was last seen at work. As the ledger writes times."""
    began: str
    seconds: float
    """Between the two."""
    mode: str
    """`once` or `watch`."""
    claimed: int = 0
    sent: int = 0
    deferred: int = 0
    failed: int = 0
    held: int = 0
    version: str = ""
    """The program's."""


def read(spool: Spool) -> LastRun | None:
    """Return the last run; None: there was none, or its file cannot be read."""
    try:
        return msgspec.json.decode(small_files.read(spool, _NAME) or b"", type=LastRun)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def write(spool: Spool, run: LastRun) -> None:
    """Put this run in the place of the one before; raises OSError."""
    small_files.replace(spool, _NAME, msgspec.json.encode(run) + b"\n")
