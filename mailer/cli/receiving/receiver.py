"""Build the parts of the receiver from the configuration."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress

from mailer.cli.receiving.rates import rules, sent, user_list
from mailer.config.load import Loaded
from mailer.config.model import Config
from mailer.config.own_name import own_name
from mailer.config.receiving import Listener, ListenerTls, Offer
from mailer.config.trust import owners_of
from mailer.config.trusted_clients import local_gid, local_uid, network
from mailer.mail.patterns import AddressPatterns
from mailer.maillog.events import MailLog
from mailer.receive.content.header_policy import ContentPolicy
from mailer.receive.context import ReceiverContext
from mailer.receive.listen.certificate import Certificate
from mailer.receive.listen.inherited import HTTP, SUBMIT
from mailer.receive.settings import Endpoint, Offers, Settings
from mailer.receive.space import Space
from mailer.receive.upload import Store
from mailer.receive.users.account import Account
from mailer.receive.users.accounts import Accounts, single_login
from mailer.receive.users.local_users import LocalUser
from mailer.receive.users.rates import RateLimiter
from mailer.receive.users.trusted import TrustedNetwork
from mailer.receive.users.user_list import UserList


def settings(config: Config, port: int | None) -> Settings:
    """Return the receiver's settings; `port`, unless None, replaces `smtpPort`."""
    hostname = own_name(config)
    return Settings(
        host=config.bind_address,
        port=config.smtp_port if port is None else port,
        offers=Offers(config.offered_tls, config.smtp_auth),
        endpoints=(*map(_endpoint, config.listeners), *_front_doors(config)),
        trusted={_endpoint(each): tuple(_trusted(each)) for each in config.listeners},
        hostname=hostname,
        http_names=config.submit_http.names,
        strict_syntax=config.strict_syntax,
        origin_domain=config.origin_domain or hostname,
        aliases={name.lower(): address for name, address in config.aliases.items()},
        local_only=config.security.allow_local_only,
        require_auth=config.auth_required,
        max_message_size=config.max_message_size,
        max_recipients=config.max_recipients,
        max_connections=config.max_connections,
        max_connections_per_peer=config.max_connections_per_peer,
        max_future_release=int(config.max_future_release),
        long_lines=config.long_lines,
        content=ContentPolicy(
            hide_client=config.hide_client_address,
            rewrite_from=config.rewrite_from,
            from_address=config.rewrite_from_address or config.default_username,
            log_headline=config.log_subjects,
            obey_keys=bool(config.idempotency_window),
        ),
        redirect_all_to=config.redirect_all_to,
        allowed_recipients=AddressPatterns.of(config.allowed_recipients)
        if config.allowed_recipients
        else None,
        stop_grace=config.sending.shutdown_grace,
    )


def _endpoint(listener: Listener) -> Endpoint:
    starttls = Offer.OFFERED if listener.tls is None else listener.tls.starttls
    offers = Offers(starttls, listener.auth)
    if listener.unix_socket:
        return Endpoint(path=str(listener.unix_socket), offers=offers, name=listener.name)
    tls = listener.tls is ListenerTls.IMPLICIT
    return Endpoint(listener.host, listener.port, tls=tls, offers=offers, name=listener.name)


def _front_doors(config: Config) -> Iterator[Endpoint]:
    """Yield the endpoints at which clients do not use SMTP AUTH: the submit socket and HTTP."""
    if config.submit_socket:
        yield Endpoint(path=str(config.submit_socket), submit=True, name=SUBMIT)
    asked = config.submit_http
    if asked.enabled:
        offers = Offers(Offer.NONE, Offer.REQUIRED)
        yield Endpoint(asked.host, asked.port, tls=asked.tls, http=True, offers=offers, name=HTTP)


def _trusted(listener: Listener) -> Iterator[TrustedNetwork]:
    """Yield a listener's trusted networks, without invalid ones, which `checks` reports.

    `mailer doctor` also examines configurations that the receiver would refuse.
    """
    for each in listener.trusted_networks:
        with suppress(ValueError):
            yield TrustedNetwork(network(each.cidr), each.user)


def context(
    loaded: Loaded,
    settings: Settings,
    store: Store,
    certificate: Certificate | None,
    rates: RateLimiter | None = None,
) -> ReceiverContext:
    """Make everything that sessions work with; read the users file, the login's secret and the ledger.

    Args:
        loaded: the configuration.
        settings: the settings made from it.
        store: where messages are stored.
        certificate: for TLS, or None.
        rates: the present rate limiter, or None. It is kept unless the limits have changed: a new one counts
            from the ledger, which lacks the messages that are being received now.

    Raises:
        ConfigError, SecretError, OSError: one of them cannot be used.
    """
    config, log = loaded.config, store.log
    users = user_list(config, log, _own_login(config))
    secret = config.default_password.reveal() if config.default_username else ""
    authenticator = Accounts(
        users.accounts,
        now=time.monotonic,
        random=os.urandom,
        recoverable={config.default_username: secret} if config.security.cram_md5 and secret else None,
    )
    return ReceiverContext(
        settings,
        store,
        authenticator,
        certificate,
        _rates(config, users, store, rates),
        Space(store.spool, min_free=config.min_free_space, max_queued=config.max_queued, now=time.monotonic),
        tuple(_local_users(config)),
    )


def _local_users(config: Config) -> Iterator[LocalUser]:
    """Look up the logins and groups of `localUsers`, skipping those that this host does not have."""
    for each in config.local_users:
        if each.login == "*":
            yield LocalUser(each.user)
        elif each.login and (uid := local_uid(each.login)) is not None:
            yield LocalUser(each.user, uid=uid)
        elif each.group and (gid := local_gid(each.group)) is not None:
            yield LocalUser(each.user, gid=gid)


def _rates(config: Config, users: UserList, store: Store, old: RateLimiter | None) -> RateLimiter | None:
    limited = config.rate_limits.enabled or users.limited
    # A user in the users file may be given limits at any time.
    if not limited and not users.others:
        return None
    new = rules(config, users)
    if old is not None and old.rules == new:
        # The numbers are equal, but the new rules look limits up in the new list of users.
        old.rules = new
        return old
    return RateLimiter(new, store.clock, sent(store.spool, store.clock()) if limited else ())


def _own_login(config: Config) -> dict[str, Account]:
    """Return the account of `defaultUsername`, if there is one; raises SecretError."""
    name = config.default_username
    return {name: single_login(name, config.default_password.reveal())} if name else {}


def certificate(config: Config, log: MailLog) -> Certificate | None:
    """Load the certificate, if one is configured; raises OSError."""
    tls = config.tls
    if tls.certificate_path is None or tls.private_key_path is None:
        return None
    return Certificate(
        tls.certificate_path,
        tls.private_key_path,
        now=time.monotonic,
        on_event=lambda text, error: log.warning(text, error=error) if error else log.notice(text),
        owners=owners_of(config.spool_dir),
    )
