"""Check a configuration that loads: return the reasons not to start a program with it.

The checks look at the configuration and at the modes of the files that it names. They change nothing. What
`mailer-send` does not need is imported late, because cron starts it each minute.
"""

import ipaddress
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mailer.config import provider_checks
from mailer.config.hops import IpVersion
from mailer.config.load import Loaded
from mailer.config.model import BOUNCE_OFF, BOUNCE_SENDER, Config
from mailer.config.problem import Problem
from mailer.config.secrets import NEW_PASSWORD, secrets_in
from mailer.config.trust import chmod, others_can_read, owners_of, why_untrusted
from mailer.mail.address import check_address
from mailer.mail.lazy_pattern import compile_late
from mailer.mail.reply import printable

_WEB = compile_late(r"https?://[^/]", re.IGNORECASE)
_WITH_PORT = compile_late(r"(\[[^]]*\]|[^:]*):\d{1,5}", re.ASCII)


def refuse_to_serve(loaded: Loaded) -> tuple[Problem, ...]:
    """Return why the receiver must not start with this configuration; empty: it may.

    This may run the command of `defaultPassword`.
    """
    from mailer.config import receiving_checks  # noqa: PLC0415 - only for the receiver

    return (*receiving_checks.refusals(loaded.config, run_commands=True), *refuse_to_send(loaded))


def refuse_to_send(loaded: Loaded) -> tuple[Problem, ...]:
    """Return why the runner must not start with this configuration; empty: it may."""
    return (
        *_exposed_configuration(loaded),
        *_bounce(loaded.config),
        *_name_servers(loaded.config),
        *_source_addresses(loaded.config),
        *_dkim(loaded.config),
        *provider_checks.refusals(loaded.config),
        *_routes(loaded.config),
        *_event_delivery(loaded.config),
        *_suppress_unknown(loaded.config),
    )


def refuse_to_monitor(loaded: Loaded) -> tuple[Problem, ...]:
    """Return why the monitor must not start with this configuration; empty: it may."""
    return (*_exposed_configuration(loaded), *_alerts(loaded.config))


def _exposed_configuration(loaded: Loaded) -> Iterator[Problem]:
    if not others_can_read(loaded.mode):
        return
    written = [
        secret.key for secret in secrets_in(loaded.config) if secret.reference is None and not secret.empty
    ]
    if written:
        yield Problem(
            printable(str(loaded.path)),
            f"every user of this host can read it, and {', '.join(written)} is written in it; "
            f"type: {chmod(loaded.path)}",
        )


def _bounce(config: Config) -> Iterator[Problem]:
    if config.bounce in {BOUNCE_SENDER, BOUNCE_OFF}:
        return
    try:
        check_address(config.bounce)
    except ValueError as error:
        yield Problem("$.bounce", f'is neither "sender" nor "off", and no address: {error}')


def _name_servers(config: Config) -> Iterator[Problem]:
    for at, text in enumerate(config.dns.nameservers):
        address = text.rpartition(":")[0] if _WITH_PORT.fullmatch(text) else text
        try:
            ipaddress.ip_address(address.strip("[]"))
        except ValueError:
            yield Problem(
                f"$.dns.nameservers[{at}]", 'is not an address; write "192.0.2.53" or "127.0.0.1:5353"'
            )


def _source_addresses(config: Config) -> Iterator[Problem]:
    direct = config.direct_delivery
    addresses = [("$.directDelivery.sourceAddress", direct.source_address)]
    addresses += [
        (f"$.forwardProviders[{at}].sourceAddress", provider.source_address)
        for at, provider in enumerate(config.forward_providers)
    ]
    for key, address in addresses:
        try:
            version = str(ipaddress.ip_address(address).version) if address else direct.ip_version
        except ValueError:
            yield Problem(key, "is not an address; write one of this host's, such as 192.0.2.1")
            continue
        if address == direct.source_address and direct.ip_version not in {IpVersion.ANY, version}:
            yield Problem(key, f"is of IPv{version}, and ipVersion allows no such address")


def _dkim(config: Config) -> Iterator[Problem]:
    """Yield reasons why mail cannot, or must not, be signed as configured."""
    if config.dkim.enabled:
        from mailer.config import dkim_checks  # noqa: PLC0415 - most hosts leave it to their provider

        yield from dkim_checks.refusals(config)


def _routes(config: Config) -> Iterator[Problem]:
    """Yield rules that are invalid."""
    if config.routes:
        from mailer.config import route_checks  # noqa: PLC0415 - few hosts have any

        yield from route_checks.refusals(config)


def _alerts(config: Config) -> Iterator[Problem]:
    """Yield settings with which alerts could not be sent."""
    alerts = config.alerts
    webhook = alerts.webhook
    if webhook.reference is None and not webhook.empty and not _WEB.match(webhook.reveal()):
        yield Problem("$.alerts.webhook", 'must begin with "https://" or "http://"')
    if alerts.failed_more_than is not None and alerts.failed_more_than < 0:
        yield Problem("$.alerts.failedMoreThan", "expected a whole number from 0")
    yield from _program("$.alerts.command", alerts.command, config)


def _event_delivery(config: Config) -> Iterator[Problem]:
    """Yield settings with which events could not be delivered, or others could read or forge them."""
    told = config.on_event
    if told.command and not told.webhook.empty:
        yield Problem(
            "$.onEvent.command", "is set as well as webhook: only one can get events, so remove one"
        )
    if not told.webhook.empty and told.secret.empty:
        yield Problem(
            told.secret.key, f"is needed: it signs what the webhook gets; make one with: {NEW_PASSWORD}"
        )
    if told.webhook.reference is None and not told.webhook.empty:
        from mailer.config.http_checks import bad_url  # noqa: PLC0415 - few hosts have one

        if why := bad_url(told.webhook.reveal()):
            yield Problem(told.webhook.key, why)
    yield from _program("$.onEvent.command", told.command, config)


def _suppress_unknown(config: Config) -> Iterator[Problem]:
    """Yield durations with which an entry would expire before it could be confirmed."""
    terms = config.suppress_unknown
    if terms.enabled and 0 < terms.keep_for <= terms.confirm_after:
        yield Problem(
            "$.suppressUnknown.keepFor",
            "is not longer than confirmAfter, so that no entry would ever count; make it longer, or 0",
        )


def _program(key: str, command: Sequence[str], config: Config) -> Iterator[Problem]:
    """Yield a program that other users could change; a name without a slash, found in PATH, is not checked.

    Args:
        key: the configuration key of the command.
        command: the program and its arguments; empty: none.
        config: the configuration.
    """
    if command and "/" in command[0]:
        owners = owners_of(config.spool_dir)
        if why := why_untrusted(Path(command[0]), os.O_PATH, owners=owners):
            yield Problem(f"{key}[0]", f"is not run: {why}")
