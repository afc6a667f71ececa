"""Run all checks of `mailer doctor`, local ones while the network ones wait, and report them in order."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from mailer.cli.clocks import clocks, synchronized
from mailer.cli.doctor.files import broken_configuration, configuration_findings, file_findings
from mailer.cli.doctor.hosts import host_findings
from mailer.cli.doctor.network import Asked, bounded, sections
from mailer.cli.doctor.ports import port_findings, trusted_findings
from mailer.cli.doctor.report import Report
from mailer.cli.events.commands import as_text, status_of
from mailer.config.load import Loaded
from mailer.config.model import Config
from mailer.config.problem import ConfigError
from mailer.mail.finding import Finding, Grade
from mailer.maillog.ledger import losing_since
from mailer.spool.checks.probe import probe
from mailer.spool.directory import Spool, foreign
from mailer.spool.layout import LOG
from mailer.spool.state import clock_guard
from mailer.spool.view import examine as spool
from mailer.spool.view.waiting import queue

_UPDATE_INTERVAL = 0.2
"""Seconds between two updates of the progress line while network checks run."""
_LATEST = datetime(2100, 1, 1, tzinfo=UTC).timestamp()


def examine_without_configuration(error: ConfigError, report: Report) -> None:
    """Report why the configuration cannot be loaded, and the checks that need none."""
    report.group("configuration", broken_configuration(error))
    report.group("clock", clock_findings(time.time()))


async def examine(
    loaded: Loaded, report: Report, asked: Asked | None, second_mount: Path | None = None
) -> None:
    """Check the network and meanwhile this host, and report all findings in a fixed order.

    Args:
        loaded: the configuration.
        report: gets each group of findings.
        asked: the options of the network checks; None to skip them.
        second_mount: the spool's directory in a second mount of its filesystem, to compare.
    """
    config = loaded.config
    wanted = list(sections(config, asked)) if asked else []
    waiting = [(section.title, asyncio.create_task(bounded(section))) for section in wanted]
    for title, findings in await asyncio.to_thread(_here, loaded, second_mount):
        report.group(title, findings)
    ports = await port_findings(config, started=not spool.never_started(config.spool_dir))
    report.group("ports", [*ports, *trusted_findings(config)])
    if asked is None:
        report.group("network", [Finding("network", "network", Grade.SKIPPED, "--offline")])
    for title, task in waiting:
        while not task.done():
            report.waiting_for([each for each, other in waiting if not other.done()])
            await asyncio.wait([task], timeout=_UPDATE_INTERVAL)
        report.group(title, task.result())


def _here(loaded: Loaded, second_mount: Path | None) -> list[tuple[str, list[Finding]]]:
    """Run the checks of this host."""
    place, now = loaded.config.spool_dir, time.time()
    return [
        ("configuration", list(configuration_findings(loaded))),
        ("files", list(file_findings(loaded))),
        ("spool", _spool(place, loaded.config.min_free_space, second_mount)),
        ("hosts", list(host_findings(loaded.config, now))),
        ("queue", [] if foreign(place) else queue(place, now)),
        ("events", [] if foreign(place) else _events(loaded.config, now)),
        ("clock", clock_findings(now, place)),
    ]


def _events(config: Config, now: float) -> list[Finding]:
    """Report the state of event delivery as the last runs left it; no event is sent."""
    if not config.on_event.enabled:
        return []
    try:
        with Spool.open_unchecked(config.spool_dir) as spool:
            found = status_of(config, spool, now)
    except OSError as error:
        words = f"the spool cannot be read: {error.strerror}"
        return [Finding("onEvent", "events", Grade.SKIPPED, words)]
    grade = Grade.OK if found.began else Grade.SKIPPED
    todo = ""
    if found.failures:
        grade, todo = Grade.WARNING, "correct the receiver, then: mailer events test"
    elif found.losing_since:
        grade, todo = Grade.WARNING, "free space where the spool's log/ is, and check who may write there"
    words = as_text(found).strip().replace("\n", "; ")
    return [Finding("onEvent", "events", grade, words, todo)]


def _spool(place: Path, min_free: int, second_mount: Path | None) -> list[Finding]:
    if why := foreign(place):
        # Skip the other checks, since the probe creates files in the directory.
        return [Finding(str(place), "owner", Grade.PROBLEM, why, "set spoolDir to another directory")]
    return [
        *spool.directories(place),
        *probe(place, time.time, second_mount),
        *spool.space(place, min_free),
        *_ledger(place),
    ]


def _ledger(place: Path) -> Iterator[Finding]:
    """Report a loss of lines that no program has ended yet, as on a log/ without room."""
    with suppress(OSError), Spool.open_unchecked(place) as opened, opened.directory(LOG) as directory:
        if since := losing_since(directory):
            words = f"lines since {since} could not be written; no mail depends on it"
            todo = "make room there, and check who may write there"
            yield Finding(str(place / LOG), "ledger", Grade.WARNING, words, todo)


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
