"""The record of the last run, `state/last-run.json`, which shows whether runners run at all."""

import msgspec

from mailer.spool.directory import Spool
from mailer.spool.state import small_files

_NAME = "last-run.json"


class LastRun(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A run that could use the spool, whatever the outcomes of its mail. Counts are messages."""

    at: str
    """When it ended or, for `watch`, when it was last seen at work; in the ledger's time format."""
    began: str
    seconds: float
    """Seconds from `began` to `at`."""
    mode: str
    """`once` or `watch`."""
    claimed: int = 0
    sent: int = 0
    deferred: int = 0
    failed: int = 0
    held: int = 0
    version: str = ""
    """The program's version."""


def read(spool: Spool) -> LastRun | None:
    """Return the last run; None if there was none, or its file cannot be read."""
    try:
        return msgspec.json.decode(small_files.read(spool, _NAME) or b"", type=LastRun)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def write(spool: Spool, run: LastRun) -> None:
    """Replace the record of the last run; raises OSError."""
    small_files.replace(spool, _NAME, msgspec.json.encode(run) + b"\n")
