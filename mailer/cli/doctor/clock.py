"""Check the clock, on which signatures, certificates, Date fields and retries depend."""

from datetime import UTC, datetime
from pathlib import Path

from mailer.cli.clocks import clocks, synchronized
from mailer.mail.finding import Finding, Grade
from mailer.spool.layout import Spool, foreign
from mailer.spool.state import clock_guard

_LATEST = datetime(2100, 1, 1, tzinfo=UTC).timestamp()


def clock_findings(now: float, place: Path | None = None) -> list[Finding]:
    """Check the time, whether it is synchronized, and whether runners trust it (the clock guard).

    Args:
        now: seconds since the epoch.
        place: the spool's directory; None if it is unknown.
    """
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if not clock_guard.EARLIEST <= now <= _LATEST:
        todo = "set it, and synchronize it: apt-get install systemd-timesyncd, or chrony"
        return [Finding("clock", "time", Grade.PROBLEM, f"{shown} cannot be right", todo)]
    guard = [_guard(place)] if place and not foreign(place) else []
    return [Finding("clock", "time", Grade.OK, shown), _in_step(), *guard]


def _in_step() -> Finding:
    """Check whether the kernel has been informed by an NTP daemon that the clock is synchronized."""
    match synchronized():
        case None:
            return Finding("clock", "ntp", Grade.SKIPPED, "the kernel does not say (in a container, perhaps)")
        case False:
            todo = "synchronize it (timedatectl set-ntp true, or chrony), unless the machine's host does so"
            return Finding("clock", "ntp", Grade.WARNING, "not synchronized by any time service", todo)
    return Finding("clock", "ntp", Grade.OK, "synchronized")


def _guard(place: Path) -> Finding:
    """Check whether runners trust this clock enough to expire mail and delete files."""
    try:
        with Spool.open_unchecked(place) as spool:
            doubt = clock_guard.known_doubt(spool, clocks())
    except OSError as error:
        words = f"the spool cannot be read: {error.strerror}"
        return Finding(str(place), "guard", Grade.SKIPPED, words)
    if doubt is None:
        return Finding(str(place), "guard", Grade.OK, "continues from the clock of the last run")
    why, _, todo = clock_guard.describe(doubt).rpartition("; ")
    return Finding(str(place), "guard", Grade.WARNING, why, todo)
