"""What an operator should know about a configuration that loads, beside the reasons not to start."""

from collections.abc import Iterator

from mailer.config import provider_checks, receiving_checks
from mailer.config.checks import refuse_to_monitor, refuse_to_send
from mailer.config.load import Loaded
from mailer.config.model import Config
from mailer.config.problem import Problem
from mailer.config.secrets import (
    NEW_PASSWORD,
    FromCommand,
    SecretError,
    is_guessable,
    is_placeholder,
    secrets_in,
)
from mailer.mail.duration import duration
from mailer.mail.reply import printable

_SMALL_MESSAGE = 65_536
"""Octets. An ordinary mail with an HTML part has as many."""


def warnings(loaded: Loaded) -> tuple[Problem, ...]:
    """Return everything that an operator should know, including the reasons not to start a program.

    This runs no command of a secret.
    """
    config = loaded.config
    found = (
        *loaded.warnings,
        *receiving_checks.refusals(config, run_commands=False),
        *receiving_checks.warnings(config),
        *refuse_to_send(loaded),
        *provider_checks.warnings(config),
        *_unused_routes(config),
        *_references(config),
        *_guessable_login(config),
        *_missing_keys(config),
        *_open_login(config),
        *_no_hop(config),
        *_admin_token(config),
        *refuse_to_monitor(loaded),
        *_retention(config),
        *_limits(config),
        *_sizes(config),
        *_ages(config),
    )
    return tuple(dict.fromkeys(found))


def _unused_routes(config: Config) -> Iterator[Problem]:
    """Yield rules that no mail can reach, and rules whose provider is not in use."""
    if config.routes:
        from mailer.config import route_checks  # noqa: PLC0415 - few hosts have any

        yield from route_checks.warnings(config)


def _references(config: Config) -> Iterator[Problem]:
    """Warn of secrets stored elsewhere that cannot be read now; commands are not run to find out."""
    for secret in secrets_in(config):
        if (
            secret.reference is None
            or isinstance(secret.reference, FromCommand)
            or secret is config.default_password
        ):
            continue
        try:
            value = secret.reveal()
        except SecretError as error:
            yield Problem(secret.key, error.reason)
            continue
        if "\n" in value and secret.key.lower().endswith(("password", "token")):
            yield Problem(secret.key, "has more than one line, and all are taken: write the password alone")


def _guessable_login(config: Config) -> Iterator[Problem]:
    secret = config.default_password
    if config.auth_required and is_guessable(secret):
        yield Problem(
            "$.defaultPassword", f"is among the first that anyone tries; make one with: {NEW_PASSWORD}"
        )


def _missing_keys(config: Config) -> Iterator[Problem]:
    """Yield keys that do not exist (yet); mail waits for them."""
    if config.dkim.enabled:
        from mailer.config import dkim_checks  # noqa: PLC0415 - most hosts leave it to their provider

        yield from dkim_checks.missing_keys(config)


def _open_login(config: Config) -> Iterator[Problem]:
    if config.security.require_auth:
        return
    if config.auth_required:
        yield Problem(
            "$.security.requireAuth", "is off, but clients must log in all the same: there is a login"
        )
    else:
        yield Problem("$.security.requireAuth", "is off: every program on this host can send mail as anyone")


def _no_hop(config: Config) -> Iterator[Problem]:
    if config.direct_delivery.enabled or config.providers:
        return
    why = "is on, but there is no provider" if config.forward_smtp else "is off, and so is directDelivery"
    yield Problem(
        "$.forwardSMTP", f"{why}: mail is kept in the local Maildir, {printable(str(config.spool_dir))}/local"
    )


def _admin_token(config: Config) -> Iterator[Problem]:
    token = config.admin_token
    if (
        token.reference is None
        and not token.empty
        and (is_placeholder(token.reveal()) or is_guessable(token))
    ):
        yield Problem(token.key, f"is a placeholder that anyone can guess; make one with: {NEW_PASSWORD}")


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
            f"is {duration(oldest)}, below the first pause of retry.schedule ({duration(first)}): mail "
            "that is deferred once is given up at its second attempt",
        )
    if config.delay_warning >= oldest:
        yield Problem(
            "$.delayWarning",
            f"is {duration(config.delay_warning)}, and mail is given up after retry.maxAge "
            f"({duration(oldest)}): nobody is warned",
        )
