"""One examination: what is looked at, in which order it is reported, and what runs meanwhile."""

import asyncio
import time
from pathlib import Path

from mailer.cli.doctor.clock import clock_findings
from mailer.cli.doctor.files import broken_configuration, configuration_findings, file_findings
from mailer.cli.doctor.network import Asked, bounded, sections
from mailer.cli.doctor.ports import port_findings
from mailer.cli.doctor.report import Report
from mailer.cli.doctor.trusted import trusted_findings
from mailer.cli.events.status import as_text, status_of
from mailer.config.load import Loaded
from mailer.config.model import Config
from mailer.config.problem import ConfigError
from mailer.mail.finding import Finding, Grade
from mailer.spool.checks.probe import probe
from mailer.spool.layout import Spool, foreign
from mailer.spool.view import examine as spool
from mailer.spool.view.waiting import queue

_LOOK_EVERY = 0.2
"""Seconds between two looks at what has come in."""


def examine_without_configuration(error: ConfigError, report: Report) -> None:
    """Say why there is none, and report what is known all the same."""
    report.group("configuration", broken_configuration(error))
    report.group("clock", clock_findings(time.time()))


async def examine(loaded: Loaded, report: Report, asked: Asked | None) -> None:
    """Ask the network, look at this host meanwhile, and tell of everything in order.

    Args:
        loaded: the configuration.
        report: called with each group of findings.
        asked: what to ask the network; None: nothing.
    """
    config = loaded.config
    wanted = list(sections(config, asked)) if asked else []
    waiting = [(section.title, asyncio.create_task(bounded(section))) for section in wanted]
    for title, findings in await asyncio.to_thread(_here, loaded):
        report.group(title, findings)
    ports = await port_findings(config, started=not spool.never_started(config.spool_dir))
    report.group("ports", [*ports, *trusted_findings(config)])
    if asked is None:
        report.group("network", [Finding("network", "network", Grade.SKIPPED, "--offline")])
    for title, task in waiting:
        while not task.done():
            report.waiting_for([each for each, other in waiting if not other.done()])
            await asyncio.wait([task], timeout=_LOOK_EVERY)
        report.group(title, task.result())


def _here(loaded: Loaded) -> list[tuple[str, list[Finding]]]:
    """Look at this host."""
    place, now = loaded.config.spool_dir, time.time()
    return [
        ("configuration", list(configuration_findings(loaded))),
        ("files", list(file_findings(loaded))),
        ("spool", _spool(place, loaded.config.min_free_space)),
        ("queue", [] if foreign(place) else queue(place, now)),
        ("events", [] if foreign(place) else _events(loaded.config, now)),
        ("clock", clock_findings(now, place)),
    ]


def _events(config: Config, now: float) -> list[Finding]:
    """Say how telling events goes, as far as the last runs found out: nothing is told here."""
    if not config.on_event.enabled:
        return []
    try:
        with Spool.look(config.spool_dir) as spool:
            found = status_of(config, spool, now)
    except OSError as error:
        words = f"the spool cannot be looked at: {error.strerror}"
        return [Finding("onEvent", "events", Grade.SKIPPED, words)]
    grade = Grade.OK if found.began else Grade.SKIPPED
    todo = ""
    if found.failures:
        grade, todo = Grade.WARNING, "mend the receiver, then: mailer events test"
    elif found.losing_since:
        grade, todo = Grade.WARNING, "free space where the spool's log/ is, and see who may write there"
    words = as_text(found).strip().replace("\n", "; ")
    return [Finding("onEvent", "events", grade, words, todo)]


def _spool(place: Path, min_free: int) -> list[Finding]:
    if why := foreign(place):
        # Not even the self-test: it makes files.
        return [Finding(str(place), "owner", Grade.PROBLEM, why, "set spoolDir to another directory")]
    return [*spool.directories(place), *probe(place), *spool.space(place, min_free)]
