"""Check a configuration that loads: yield warnings, and reasons not to start.

The checks look at the configuration and at the modes of the files that it names. They change nothing.
"""

import ipaddress
import re
from collections.abc import Iterator
from types import ModuleType

import msgspec

from mailer.config import file_checks, provider_checks
from mailer.config.hops import IpVersion
from mailer.config.load import Loaded
from mailer.config.model import BOUNCE_OFF, BOUNCE_SENDER, Config
from mailer.config.permissions import chmod, others_can_read
from mailer.config.problem import ConfigError, Problem
from mailer.config.receiving import ListenerTls, Offer, RewriteFrom
from mailer.config.secrets import FromCommand, Secret, SecretError
from mailer.config.trust import owners_of
from mailer.mail.address import check_address
from mailer.mail.host_name import is_loopback
from mailer.mail.lazy_pattern import compile_late
from mailer.mail.reply import printable

NEW_PASSWORD = "python3 -c 'import secrets; print(secrets.token_urlsafe(24))'"  # noqa: S105 - makes one, is none
"""The command that generates a strong password, for messages."""

# The placeholders of our examples and of the Go relay's, and similar texts that are not real passwords.
_PLACEHOLDER = compile_late(
    r"change[-_ ]?(this|me)([-_ ]?password)?|your[-_ ].*password|x{3,}|\*+", re.IGNORECASE
)
# Weak passwords. A configuration that works with the Go relay must keep working, so these only get a warning.
_GUESSABLE = compile_late(r"(password|passwd|pass|secret|admin|test|mail|1234)[0-9]*", re.IGNORECASE)

_NEEDS_CERTIFICATE = 'needs tls.certificatePath and tls.privateKeyPath; without TLS, set it to "none"'

_WEB = compile_late(r"https?://[^/]", re.IGNORECASE)
_WITH_PORT = compile_late(r"(\[[^]]*\]|[^:]*):\d{1,5}", re.ASCII)


def refuse_to_serve(loaded: Loaded) -> tuple[Problem, ...]:
    """Return why the receiver must not start with this configuration; empty: it may.

    This may run the command of `defaultPassword`.
    """
    config = loaded.config
    return (*_login(config), *_open_relay(config), *_incoming(config), *refuse_to_send(loaded))


def refuse_to_send(loaded: Loaded) -> tuple[Problem, ...]:
    """Return why the runner must not start with this configuration; empty: it may."""
    return (
        *_exposed_configuration(loaded),
        *_bounce(loaded.config),
        *_name_servers(loaded.config),
        *_source_addresses(loaded.config),
        *_signing(loaded.config),
        *provider_checks.refusals(loaded.config),
        *_routing(loaded.config),
        *_on_event(loaded.config),
        *_suppress_unknown(loaded.config),
    )


def refuse_to_monitor(loaded: Loaded) -> tuple[Problem, ...]:
    """Return why the monitor must not start with this configuration; empty: it may."""
    return (*_exposed_configuration(loaded), *_alerts(loaded.config))


def warnings(loaded: Loaded) -> tuple[Problem, ...]:
    """Return everything that an operator should know, including the refusals above.

    This runs no command of a secret.
    """
    config = loaded.config
    return (
        *loaded.warnings,
        *_login(config, run_commands=False),
        *_open_relay(config),
        *_incoming(config),
        *_distant_login(config),
        *_local().strangers(config),
        *_networks().warnings(config),
        *_exposed_configuration(loaded),
        *_bounce(config),
        *_name_servers(config),
        *_source_addresses(config),
        *_signing(config),
        *provider_checks.refusals(config),
        *_routing(config),
        *_providers(config),
        *provider_checks.warnings(config),
        *_unused_routes(config),
        *_references(config),
        *_guessable_login(config),
        *_missing_keys(config),
        *_open_login(config),
        *_routes(config),
        *_admin_token(config),
        *_alerts(config),
        *_on_event(config),
        *_suppress_unknown(config),
        *_amounts().warnings(config),
    )


def is_placeholder(password: str) -> bool:
    """Return whether a password is a placeholder from an example."""
    return _PLACEHOLDER.fullmatch(password) is not None


def _login(config: Config, *, run_commands: bool = True) -> Iterator[Problem]:
    if Offer.REQUIRED not in config.demanded_logins:
        return
    if not config.default_username:
        if not _has_users(config):
            yield Problem(
                "$.defaultUsername",
                "clients must log in and there is no login; give it a name, or type: mailer user add NAME",
            )
        return
    secret = config.default_password
    if isinstance(secret.reference, FromCommand) and not run_commands:
        return
    try:
        password = "" if secret.empty else secret.reveal()
    except SecretError as error:
        yield Problem("$.defaultPassword", error.reason)
        return
    if not password:
        yield Problem("$.defaultPassword", f"is empty and clients must log in; make one with: {NEW_PASSWORD}")
    elif is_placeholder(password):
        yield Problem(
            "$.defaultPassword", f"is a placeholder that anyone can guess; make one with: {NEW_PASSWORD}"
        )


def _has_users(config: Config) -> bool:
    from mailer.config.users import read_users  # noqa: PLC0415 - as in `_local`

    try:
        return bool(read_users(config.users_file, owners_of(config.spool_dir)))
    except (OSError, ConfigError):
        return True  # the code that uses the file reports what is wrong with it


def _incoming(config: Config) -> Iterator[Problem]:
    """Yield contradictions in the settings for receiving mail."""
    tls = config.tls
    if config.smtp_tls not in {None, Offer.NONE} and tls.certificate_path is None:
        yield Problem("$.smtpTls", _NEEDS_CERTIFICATE)
    if (tls.certificate_path is None) != (tls.private_key_path is None):
        missing = "privateKeyPath" if tls.private_key_path is None else "certificatePath"
        yield Problem(f"$.tls.{missing}", "is missing: certificatePath and privateKeyPath go together")
    yield from file_checks.tls_files(config)
    yield from _local().refusals(config)
    yield from _networks().refusals(config)
    yield from _listeners(config)
    yield from _submit_http(config)
    for key, address in (
        ("redirectAllTo", config.redirect_all_to),
        ("rewriteFromAddress", _author(config)),
    ):
        try:
            if address:
                check_address(address)
        except ValueError as error:
            yield Problem(f"$.{key}", f"is not an address: {error}")
    if config.rewrite_from is not RewriteFrom.KEEP and not _author(config):
        yield Problem("$.rewriteFromAddress", "is needed for rewriteFrom: there is no defaultUsername")


def _local() -> ModuleType:
    from mailer.config import local_checks  # noqa: PLC0415 - not needed by the runner, which cron starts each minute

    return local_checks


def _amounts() -> ModuleType:
    from mailer.config import amount_checks  # noqa: PLC0415 - as above

    return amount_checks


def _networks() -> ModuleType:
    from mailer.config import networks  # noqa: PLC0415 - as above

    return networks


def _signing(config: Config) -> Iterator[Problem]:
    """Yield reasons why mail cannot, or must not, be signed as configured."""
    if config.dkim.enabled:
        from mailer.config import dkim_checks  # noqa: PLC0415 - most hosts leave it to their provider

        yield from dkim_checks.refusals(config)


def _missing_keys(config: Config) -> Iterator[Problem]:
    """Yield keys that do not exist (yet); mail waits for them."""
    if config.dkim.enabled:
        from mailer.config import dkim_checks  # noqa: PLC0415 - as above

        yield from dkim_checks.missing_keys(config)


def _routing(config: Config) -> Iterator[Problem]:
    """Yield rules that are invalid."""
    if config.routes:
        from mailer.config import route_checks  # noqa: PLC0415 - few hosts have any

        yield from route_checks.refusals(config)


def _unused_routes(config: Config) -> Iterator[Problem]:
    """Yield rules that no mail can reach, and rules whose provider is not in use."""
    if config.routes:
        from mailer.config import route_checks  # noqa: PLC0415 - as above

        yield from route_checks.warnings(config)


def _listeners(config: Config) -> Iterator[Problem]:
    names = ["smtp", "submit", "http"]
    for at, listener in enumerate(config.listeners):
        where = f"$.listeners[{at}]"
        if listener.name in names:
            yield Problem(
                f"{where}.name", "is that of another listener, or of smtpPort, submitSocket or submitHttp"
            )
        names += [listener.name] if listener.name else []
        if listener.unix_socket is None:
            if listener.tls not in {None, ListenerTls.NONE} and config.tls.certificate_path is None:
                yield Problem(f"{where}.tls", _NEEDS_CERTIFICATE)
            if config.security.allow_local_only and not is_loopback(listener.host):
                yield Problem(f"{where}.host", "is beyond this host, and security.allowLocalOnly is on")


def _submit_http(config: Config) -> Iterator[Problem]:
    """Yield settings of `submitHttp` that would send tokens in clear or contradict `allowLocalOnly`."""
    asked = config.submit_http
    if not asked.enabled:
        return
    if asked.tls and config.tls.certificate_path is None:
        yield Problem("$.submitHttp.tls", "needs tls.certificatePath and tls.privateKeyPath")
    if is_loopback(asked.host):
        return
    if config.security.allow_local_only:
        yield Problem("$.submitHttp.host", "is beyond this host, and security.allowLocalOnly is on")
    if not asked.tls:
        yield Problem("$.submitHttp.tls", "must be true beyond this host: tokens would travel in clear")


def _author(config: Config) -> str:
    """Return the address that `rewriteFrom` uses; `defaultUsername` counts only if it is needed."""
    if config.rewrite_from is RewriteFrom.KEEP:
        return config.rewrite_from_address
    return config.rewrite_from_address or config.default_username


def _distant_login(config: Config) -> Iterator[Problem]:
    if config.auth_required and config.tls.certificate_path is None and not is_loopback(config.bind_address):
        yield Problem("$.tls", "without a certificate only clients on this host can log in")


def _guessable_login(config: Config) -> Iterator[Problem]:
    secret = config.default_password
    if config.auth_required and _guessable(secret):
        yield Problem(
            "$.defaultPassword", f"is among the first that anyone tries; make one with: {NEW_PASSWORD}"
        )


def _guessable(secret: Secret) -> bool:
    return secret.reference is None and _GUESSABLE.fullmatch(secret.reveal()) is not None


def _open_relay(config: Config) -> Iterator[Problem]:
    main, *others = config.demanded_logins
    if main is not Offer.REQUIRED and not is_loopback(config.bind_address):
        key = "$.security.requireAuth" if config.smtp_auth is None else "$.smtpAuth"
        yield Problem(
            key,
            "without a login on an address that others reach this is an open relay; "
            "turn requireAuth or allowLocalOnly on",
        )
    for at, (listener, login) in enumerate(zip(config.listeners, others, strict=True)):
        local = listener.unix_socket is not None or is_loopback(listener.host)
        if login is not Offer.REQUIRED and not local:
            yield Problem(
                f"$.listeners[{at}].auth",
                'without a login on an address that others reach this is an open relay; set it to "required"',
            )


def _exposed_configuration(loaded: Loaded) -> Iterator[Problem]:
    if not others_can_read(loaded.mode):
        return
    written = [
        secret.key for secret in _secrets(loaded.config) if secret.reference is None and not secret.empty
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


def _providers(config: Config) -> Iterator[Problem]:
    for provider in config.providers:
        secret = provider.password
        if provider.oauth:
            continue
        if provider.username and secret.empty:
            yield Problem(secret.key, f"is empty, and {printable(provider.label)} has a username")
        elif secret.reference is None and (is_placeholder(secret.reveal()) or _guessable(secret)):
            yield Problem(secret.key, "looks like a placeholder, which the provider would refuse")
        elif not provider.username and not secret.empty and not provider.api:
            yield Problem(secret.key, f"is not used, since {printable(provider.label)} has no username")
    for at, provider in enumerate(config.forward_providers if config.forward_smtp else ()):
        if provider.insecure_skip_verify and not is_loopback(provider.host):
            where = f"$.forwardProviders[{at}].insecureSkipVerify"
            yield Problem(where, "is on: a host between us and the server can read the password")
        if provider.weight is not None and provider.priority is None:
            where = f"$.forwardProviders[{at}].weight"
            yield Problem(where, "shares nothing without a priority that another provider has, too")


def _references(config: Config) -> Iterator[Problem]:
    """Warn of secrets stored elsewhere that cannot be read now; commands are not run to find out."""
    for secret in _secrets(config):
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


def _open_login(config: Config) -> Iterator[Problem]:
    if config.security.require_auth:
        return
    if config.auth_required:
        yield Problem(
            "$.security.requireAuth", "is off, but clients must log in all the same: there is a login"
        )
    else:
        yield Problem("$.security.requireAuth", "is off: every program on this host can send mail as anyone")


def _routes(config: Config) -> Iterator[Problem]:
    if config.direct_delivery.enabled or config.providers:
        return
    why = "is on, but there is no provider" if config.forward_smtp else "is off, and so is directDelivery"
    yield Problem(
        "$.forwardSMTP", f"{why}: mail is kept in the local Maildir, {printable(str(config.spool_dir))}/local"
    )


def _admin_token(config: Config) -> Iterator[Problem]:
    token = config.admin_token
    if token.reference is None and not token.empty and (is_placeholder(token.reveal()) or _guessable(token)):
        yield Problem(token.key, f"is a placeholder that anyone can guess; make one with: {NEW_PASSWORD}")


def _alerts(config: Config) -> Iterator[Problem]:
    """Yield settings with which alerts could not be sent."""
    alerts = config.alerts
    webhook = alerts.webhook
    if webhook.reference is None and not webhook.empty and not _WEB.match(webhook.reveal()):
        yield Problem("$.alerts.webhook", 'must begin with "https://" or "http://"')
    if alerts.failed_more_than is not None and alerts.failed_more_than < 0:
        yield Problem("$.alerts.failedMoreThan", "expected a whole number from 0")
    yield from file_checks.program("$.alerts.command", alerts.command, config)


def _on_event(config: Config) -> Iterator[Problem]:
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
        from mailer.config.oauth_checks import bad_url  # noqa: PLC0415 - as in `_local`

        if why := bad_url(told.webhook.reveal()):
            yield Problem(told.webhook.key, why)
    yield from file_checks.program("$.onEvent.command", told.command, config)


def _suppress_unknown(config: Config) -> Iterator[Problem]:
    """Yield durations with which an entry would expire before it could be confirmed."""
    terms = config.suppress_unknown
    if terms.enabled and 0 < terms.keep_for <= terms.confirm_after:
        yield Problem(
            "$.suppressUnknown.keepFor",
            "is not longer than confirmAfter, so that no entry would ever count; make it longer, or 0",
        )


def _secrets(value: object) -> Iterator[Secret]:
    """Yield every secret in the configuration, at any depth."""
    match value:
        case Secret():
            yield value
        case msgspec.Struct():
            for field in msgspec.structs.fields(value):
                yield from _secrets(getattr(value, field.name))
        case tuple():
            for member in value:
                yield from _secrets(member)
