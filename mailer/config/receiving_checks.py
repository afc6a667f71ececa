"""Check the settings for receiving mail; called by `checks`."""

import shlex
from collections.abc import Iterator

from mailer.config.model import Config
from mailer.config.problem import ConfigError, Problem
from mailer.config.receiving import ListenerTls, Offer, RewriteFrom
from mailer.config.secrets import NEW_PASSWORD, FromCommand, SecretError, is_placeholder
from mailer.config.trust import owners_of, why_untrusted
from mailer.config.trusted_clients import Network, is_private, local_gid, local_uid, network
from mailer.config.users import read_users
from mailer.mail.address import check_address
from mailer.mail.host_name import is_loopback
from mailer.mail.reply import printable

_NEEDS_CERTIFICATE = 'needs tls.certificatePath and tls.privateKeyPath; without TLS, set it to "none"'


def refusals(config: Config, *, run_commands: bool) -> Iterator[Problem]:
    """Yield reasons not to receive mail; with `run_commands`, run that of `defaultPassword` to check it."""
    yield from _login(config, run_commands=run_commands)
    yield from _open_relay(config)
    yield from _tls(config)
    yield from _origin_domain(config.origin_domain)
    yield from _aliases(config)
    yield from _trusted_networks(config)
    yield from _listeners(config)
    yield from _submit_http(config)
    yield from _rewriting(config)


def _login(config: Config, *, run_commands: bool) -> Iterator[Problem]:
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
    try:
        return bool(read_users(config.users_file, owners_of(config.spool_dir)))
    except (OSError, ConfigError):
        return True  # the code that uses the file reports what is wrong with it


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


def _tls(config: Config) -> Iterator[Problem]:
    tls = config.tls
    if config.smtp_tls not in {None, Offer.NONE} and tls.certificate_path is None:
        yield Problem("$.smtpTls", _NEEDS_CERTIFICATE)
    if (tls.certificate_path is None) != (tls.private_key_path is None):
        missing = "privateKeyPath" if tls.private_key_path is None else "certificatePath"
        yield Problem(f"$.tls.{missing}", "is missing: certificatePath and privateKeyPath go together")
    owners = owners_of(config.spool_dir)
    for name, path in (("certificatePath", tls.certificate_path), ("privateKeyPath", tls.private_key_path)):
        if path and (why := why_untrusted(path, owners=owners, secret=name == "privateKeyPath")):
            yield Problem(f"$.tls.{name}", f"is not used: {why}")


def _origin_domain(domain: str) -> Iterator[Problem]:
    try:
        if domain:
            check_address(f"root@{domain}")
    except ValueError as error:
        yield Problem("$.originDomain", f"is not a domain: {error}")
    else:
        if not domain.isascii():
            # It completes addresses of clients that did not request SMTPUTF8.
            yield Problem("$.originDomain", "is not ASCII; write an international domain as xn--...")


def _aliases(config: Config) -> Iterator[Problem]:
    """Yield invalid aliases, and `localUsers` that have neither or both of login and group."""
    for name, address in config.aliases.items():
        try:
            check_address(address)
        except ValueError as error:
            yield Problem(f"$.aliases.{printable(name, 60)}", f"is not a full address: {error}")
    for at, each in enumerate(config.local_users):
        if bool(each.login) == bool(each.group):
            yield Problem(f"$.localUsers[{at}]", 'needs either "login" or "group"')


def _trusted_networks(config: Config) -> Iterator[Problem]:
    """Yield networks that must not be trusted, or whose listener their hosts cannot reach."""
    for at, listener in enumerate(config.listeners):
        if not listener.trusted_networks:
            continue
        where = f"$.listeners[{at}].trustedNetworks"
        if listener.unix_socket is not None or is_loopback(listener.host):
            yield Problem(where, "needs a listener beyond this host: whose programs use submitSocket")
        seen: set[Network] = set()
        for member, each in enumerate(listener.trusted_networks):
            try:
                found = network(each.cidr)
            except ValueError as error:
                yield Problem(f"{where}[{member}].cidr", str(error))
                continue
            if found in seen:
                yield Problem(f"{where}[{member}].cidr", f"{found} is there already, and has one user only")
            seen.add(found)


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


def _rewriting(config: Config) -> Iterator[Problem]:
    for key, address in (("redirectAllTo", config.redirect_all_to), ("rewriteFromAddress", _author(config))):
        try:
            if address:
                check_address(address)
        except ValueError as error:
            yield Problem(f"$.{key}", f"is not an address: {error}")
    if config.rewrite_from is not RewriteFrom.KEEP and not _author(config):
        yield Problem("$.rewriteFromAddress", "is needed for rewriteFrom: there is no defaultUsername")


def _author(config: Config) -> str:
    """Return the address that `rewriteFrom` uses; `defaultUsername` counts only if it is needed."""
    if config.rewrite_from is RewriteFrom.KEEP:
        return config.rewrite_from_address
    return config.rewrite_from_address or config.default_username


def warnings(config: Config) -> Iterator[Problem]:
    """Yield what will probably not work as intended: logins, users and networks."""
    if config.auth_required and config.tls.certificate_path is None and not is_loopback(config.bind_address):
        yield Problem("$.tls", "without a certificate only clients on this host can log in")
    yield from _strangers(config)
    yield from _public_networks(config)


def _strangers(config: Config) -> Iterator[Problem]:
    """Yield logins and groups that this host does not have, and users that mailer does not have."""
    for at, listener in enumerate(config.listeners):
        for member, trusted in enumerate(listener.trusted_networks):
            if not _is_user(config, trusted.user):
                where = f"$.listeners[{at}].trustedNetworks[{member}].user"
                yield _no_user(where, trusted.user)
    if config.submit_socket is not None and not config.local_users:
        yield Problem("$.localUsers", "is empty, so every client of submitSocket is refused")
    for at, each in enumerate(config.local_users):
        where = f"$.localUsers[{at}]"
        if each.login not in {"", "*"} and local_uid(each.login) is None:
            yield Problem(f"{where}.login", "this host has no such login")
        if each.group and local_gid(each.group) is None:
            yield Problem(f"{where}.group", "this host has no such group")
        if not _is_user(config, each.user):
            yield _no_user(f"{where}.user", each.user)


def _no_user(where: str, name: str) -> Problem:
    return Problem(where, f"names an unknown user; type: mailer user add {shlex.quote(printable(name))}")


def _is_user(config: Config, name: str) -> bool:
    if name == config.default_username:
        return True
    try:
        return name in read_users(config.users_file, owners_of(config.spool_dir))
    except (OSError, ConfigError):
        return True  # the receiver reports what is wrong with the file


def _public_networks(config: Config) -> Iterator[Problem]:
    """Yield trusted networks of public addresses."""
    for at, listener in enumerate(config.listeners):
        for member, each in enumerate(listener.trusted_networks):
            try:
                public = not is_private(network(each.cidr))
            except ValueError:
                continue
            if public:
                yield Problem(
                    f"$.listeners[{at}].trustedNetworks[{member}].cidr",
                    f"is of public addresses: every host that has one of them may send as "
                    f"{printable(each.user, 60)} without a password",
                )
