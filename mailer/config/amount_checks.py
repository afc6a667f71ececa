"""Warn of durations and sizes that load, and do not do what they seem to say: most have the wrong unit."""

from collections.abc import Iterator

from mailer.config.model import Config
from mailer.config.problem import Problem

_SMALL_MESSAGE = 65_536
"""Octets. An ordinary mail with an HTML part has as many."""


def warnings(config: Config) -> Iterator[Problem]:
    """Yield what an operator should know about the amounts of a configuration."""
    yield from _retention(config)
    yield from _limits(config)
    yield from _sizes(config)
    yield from _ages(config)


def _retention(config: Config) -> Iterator[Problem]:
    if config.log_retention < 2 * 86_400:
        yield Problem(
            "$.logRetention", "is less than 2 days: a day of the ledger is kept for as long at least"
        )


def _limits(config: Config) -> Iterator[Problem]:
    """Warn of a daily limit below the hourly one: after an hour the sender waits for the rest of the day."""
    limits = config.rate_limits
    if not limits.enabled:
        return
    for name, hour, day in (
        ("maxPerDay", limits.max_per_hour, limits.max_per_day),
        ("globalMaxPerDay", limits.global_max_per_hour, limits.global_max_per_day),
    ):
        if 0 < day < hour:
            other = name.replace("Day", "Hour")
            yield Problem(
                f"$.rateLimits.{name}", f"is {day}, below {other} ({hour}), which is therefore never reached"
            )


def _sizes(config: Config) -> Iterator[Problem]:
    size = config.max_message_size
    if size < _SMALL_MESSAGE:
        yield Problem(
            "$.maxMessageSize",
            f'is {size} bytes: larger mail is refused; a number has no unit, as "25MiB" has',
        )


def _ages(config: Config) -> Iterator[Problem]:
    oldest, first = config.retry.max_age, config.retry.schedule[0]
    if oldest < first:
        yield Problem(
            "$.retry.maxAge",
            f"is {oldest:g} seconds, below the first pause of retry.schedule ({first:g} seconds): mail "
            "that is deferred once is given up at its second attempt",
        )
    if config.delay_warning >= oldest:
        yield Problem(
            "$.delayWarning",
            f"is {config.delay_warning:g} seconds, and mail is given up after retry.maxAge ({oldest:g} "
            "seconds): nobody is warned",
        )
