"""Judge one reading of queue, ledger and disk: the checks of `/health`, each a function of the reading.

`failing` means that mail cannot be accepted, or has not been delivered for an hour: it is worth waking an
operator. `degraded` can wait for office hours.
"""

from collections.abc import Callable, Iterator
from enum import StrEnum

import msgspec

from mailer.config.model import Config
from mailer.mail.duration import duration
from mailer.monitor import results
from mailer.monitor.providers import providers
from mailer.monitor.reading import Reading, lag
from mailer.spool import words
from mailer.spool.free_space import MIN_INODES
from mailer.spool.layout import Place
from mailer.spool.state.pause import describe

STALE_RUN = 300.0
"""Seconds without a run that count as degraded; cron and the timer start a run each minute."""
NO_RUN = 3600.0
"""Seconds that mail has waited without a run that count as failing."""
_SECRET_ENDS_SOON = 14 * 86_400.0
"""Seconds before the end of a provider's secret that count as degraded, so that it is renewed in time."""
_EVENTS_LATE = 300.0
"""Seconds that events may wait; a receiver that is restarted accepts events again sooner."""
_CLOCK_SLACK = 60.0
"""Seconds to tolerate: file timestamps lag, and clocks of hosts that share a disk differ, by less."""


class Status(StrEnum):
    """The severity of a result, in ascending order."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILING = "failing"


class Check(msgspec.Struct, frozen=True):
    """The result of one check."""

    status: Status
    message: str


def judge(reading: Reading, config: Config, firing: frozenset[str]) -> Iterator[tuple[str, Check]]:
    """Yield the name and result of every check of one reading."""
    for name, check in _CHECKS.items():
        yield name, check(reading, config)
    names = ", ".join(sorted(firing))
    yield "alerts", Check(Status.DEGRADED, f"firing: {names}") if firing else Check(Status.OK, "none fires")


def worst(checks: dict[str, Check]) -> Status:
    order = list(Status)
    return order[max(order.index(check.status) for check in checks.values())]


def receiver(reading: Reading, _: Config) -> Check:
    if reading.receivers is None or reading.receivers:
        return Check(Status.OK, "not known" if reading.receivers is None else "it runs")
    # The service manager may hold its sockets, and start it with the next connection.
    then = "clients wait at its socket or are refused; start it"
    if reading.received:
        return Check(Status.FAILING, f"mailer serve has ended: {then}")
    return Check(Status.DEGRADED, f"mailer serve does not run: {then}")


def disk_space(reading: Reading, config: Config) -> Check:
    if reading.room.lacks_inodes:
        few = f"{reading.room.inodes} inodes free, under {MIN_INODES}"
        return Check(Status.FAILING, f"{few}: new mail gets 452; remove small files from that filesystem")
    if reading.free is None:
        return Check(Status.OK, "the filesystem does not say how much is free")
    free, floor = reading.free // 2**20, config.min_free_space // 2**20
    if reading.free < config.min_free_space:
        return Check(Status.FAILING, f"{free} MiB free, under minFreeSpace ({floor} MiB): new mail gets 452")
    if reading.free < 2 * config.min_free_space:
        return Check(Status.DEGRADED, f"{free} MiB free, and under {floor} MiB new mail gets 452")
    return Check(Status.OK, f"{free} MiB free")


def _queue_limit(reading: Reading, config: Config) -> Check:
    limit, waits = config.max_queued, reading.queue.waiting
    if not limit:
        return Check(Status.OK, "maxQueued is not set")
    said = f"{waits:,} of {limit:,} messages wait (maxQueued)"
    return Check(Status.FAILING, f"{said}: new mail gets 452") if waits >= limit else Check(Status.OK, said)


def _oldest_message(reading: Reading, config: Config) -> Check:
    waited = reading.queue[Place.NEW].age(reading.at) or 0.0
    oldest = reading.queue.waiting_age(reading.at)
    limit = config.alerts.queue_older_than
    if limit and oldest > limit:
        return Check(
            Status.DEGRADED, f"the oldest message has waited {duration(oldest)}, over queueOlderThan"
        )
    if waited > STALE_RUN and reading.pause is None:
        return Check(Status.DEGRADED, f"a message that arrived {duration(waited)} ago waits to be tried")
    return Check(Status.OK, f"the oldest message is {duration(oldest)} old" if oldest else "no message waits")


def _last_run(reading: Reading, _: Config) -> Check:
    waited = reading.queue[Place.NEW].age(reading.at) or 0.0
    ago = None if reading.last_run is None else max(0.0, reading.at - reading.last_run)
    said = "no run of mailer-send is known" if ago is None else f"mailer-send last ran {duration(ago)} ago"
    if reading.pause is not None:
        return Check(Status.OK, said)
    if min(waited, waited if ago is None else ago) > NO_RUN:
        return Check(Status.FAILING, f"{said}, and mail waits: start mailer-send (cron, or its timer)")
    if (waited if ago is None else ago) > STALE_RUN:
        return Check(Status.DEGRADED, f"{said}; cron or a timer should start it each minute")
    return Check(Status.OK, said)


def _results(reading: Reading, config: Config) -> Check:
    if reading.sent_lately:
        return Check(Status.OK, f"{words.count(reading.sent_lately, 'recipient')} sent within the last hour")
    if reading.pause is not None:
        return Check(Status.OK, "none was sent within the last hour: sending is paused")
    if not reading.stuck:
        late = duration(results.NOTHING_SENT)
        return Check(Status.OK, f"no mail that should have left has waited for over {late}")
    said = f"the oldest has waited {results.describe(reading.stuck)}"
    if results.only_theirs(reading.stuck, config):
        what = "only mail that its recipients' servers or mailboxes put off waits"
        return Check(Status.DEGRADED, f"{what}; {said}")
    return Check(Status.FAILING, f"mail waits, and none has been sent for an hour; {said}")


def _held(reading: Reading, _: Config) -> Check:
    count = reading.queue[Place.HOLD].count
    if reading.moving:
        return Check(Status.DEGRADED, f"{_messages_are(count)} held; {reading.moving}")
    if not count:
        return Check(Status.OK, "no message is held")
    return Check(
        Status.DEGRADED,
        f"{_messages_are(count)} held: mailer spool ls --state hold says why, "
        "mailer spool release ID releases one",
    )


def _messages_are(count: int) -> str:
    return "1 message is" if count == 1 else f"{count:,} messages are"


def _quarantine(reading: Reading, _: Config) -> Check:
    count = reading.queue[Place.CORRUPT].count
    if not count:
        return Check(Status.OK, "no message is unreadable")
    return Check(
        Status.DEGRADED,
        f"{_messages_are(count)} unreadable, in corrupt/ and never sent: mailer spool ls --state corrupt",
    )


def _drop(reading: Reading, _: Config) -> Check:
    left = reading.left
    if not (said := left.describe(reading.at)):
        return Check(Status.OK, "drop/ is empty")
    late = left.refused or left.odd or left.trouble or left.unsafe or reading.at - left.since > STALE_RUN
    return Check(Status.DEGRADED if late else Status.OK, said)


def _paused(reading: Reading, _: Config) -> Check:
    if reading.pause is None:
        return Check(Status.OK, "no")
    return Check(Status.DEGRADED, describe(reading.pause))


def _providers(reading: Reading, config: Config) -> Check:
    found = providers(reading, config)
    down = [each for each in found if not each.up]
    if not down:
        return Check(Status.OK, f"{len(found)} in use" if found else "none is configured")
    said = "; ".join(f"{each.name}: {each.told}" for each in down)
    if len(down) < len(found) or config.direct_delivery.enabled:
        return Check(Status.DEGRADED, said)
    since = min(each.state.opened.timestamp() if each.state.opened else reading.at for each in down)
    status = Status.FAILING if reading.at - since > NO_RUN else Status.DEGRADED
    waits = "mail waits" if reading.queue.waiting else "new mail will wait"
    return Check(status, f"{said}; no other is left, and {waits}")


def _tokens(reading: Reading, config: Config) -> Check:
    """Warn of secrets, certificates and refresh tokens that end soon, if their end is known."""
    users = sum(each.oauth is not None for each in config.providers)
    if not users:
        return Check(Status.OK, "no provider uses tokens")
    soon = sorted(
        (end, each.name)
        for each in providers(reading, config)
        for end in each.ends
        if end.at - reading.at < _SECRET_ENDS_SOON
    )
    if not soon:
        return Check(Status.OK, f"{words.count(users, 'provider')} in use with tokens")
    said = "; ".join(
        f"{name}: {end.what} {_ends(end.at - reading.at)} ({end.known_from}): {end.todo}"
        for end, name in soon
    )
    return Check(Status.DEGRADED, said)


def _events(reading: Reading, config: Config) -> Check:
    """Judge event delivery by its last try; whether the runner runs is a separate check."""
    told = reading.events
    if not config.on_event.enabled:
        return Check(Status.OK, "onEvent is not configured")
    if told is None or not told.failures:
        return Check(Status.OK, "the receiver accepts events")
    if not told.tried:
        return Check(Status.DEGRADED, f"events are not delivered: {told.error}")
    said = f"the oldest undelivered event has waited {duration(lag(reading))}: {told.error}"
    return Check(Status.DEGRADED if lag(reading) > _EVENTS_LATE else Status.OK, said)


def _ends(left: float) -> str:
    return f"ends in {duration(left)}" if left > 0 else f"ended {duration(-left)} ago"


def _ledger(reading: Reading, _: Config) -> Check:
    if reading.ledger_trouble:
        return Check(Status.DEGRADED, f"it cannot be read, so counters are old: {reading.ledger_trouble}")
    if reading.losing_since:
        lost = f"lines since {reading.losing_since} could not be written, and are lost"
        return Check(Status.DEGRADED, f"{lost}; mail goes on: make room in log/, or let us write there")
    return Check(Status.OK, "read")


def _configuration(reading: Reading, _: Config) -> Check:
    if not reading.config_trouble:
        return Check(Status.OK, "the file as it is now can be used")
    return Check(
        Status.DEGRADED,
        f"the next start, and each run by cron, will refuse the file as it is now: {reading.config_trouble}; "
        "correct it, then `mailer reload`",
    )


def _clock(reading: Reading, _: Config) -> Check:
    ahead = max(reading.changed, reading.last_run or 0.0) - reading.at
    if ahead > _CLOCK_SLACK:
        return Check(
            Status.DEGRADED,
            f"the clock was set back: the spool changed {duration(ahead)} in the future",
        )
    return Check(Status.OK, "it was not set back")


_CHECKS: dict[str, Callable[[Reading, Config], Check]] = {
    "receiver": receiver,
    "disk_space": disk_space,
    "queue_limit": _queue_limit,
    "oldest_message": _oldest_message,
    "last_run": _last_run,
    "results": _results,
    "held": _held,
    "quarantine": _quarantine,
    "drop": _drop,
    "providers": _providers,
    "tokens": _tokens,
    "events": _events,
    "paused": _paused,
    "ledger": _ledger,
    "clock": _clock,
    "configuration": _configuration,
}
