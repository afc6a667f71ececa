"""Check the providers of a configuration that loads; called by `checks`."""

import re
from collections.abc import Iterator

import msgspec

from mailer.config.hops import Provider
from mailer.config.model import Config
from mailer.config.own_name import own_name
from mailer.config.problem import Problem
from mailer.config.receiving import RewriteFrom
from mailer.config.secrets import is_guessable, is_placeholder
from mailer.mail.address import check_address
from mailer.mail.host_name import fault, is_address, is_loopback
from mailer.mail.lazy_pattern import compile_late
from mailer.mail.reply import printable

_SUBMISSIONS = 465
"""TLS from the first byte (RFC 8314 3.3)."""
_STARTTLS = frozenset({25, 587, 2525})
"""Ports where servers begin in clear (RFC 6409 3.1); many providers offer 2525 besides 587."""
_HOST = compile_late(r"[A-Za-z0-9_.-]+")


class _Written(msgspec.Struct, frozen=True):
    """A provider that is used, and the place of its keys in the file."""

    provider: Provider
    where: str
    """The prefix of its keys' paths: `$.forwardProviders[0].` or `$.forward`."""
    legacy: bool = False

    def key(self, name: str) -> str:
        if not self.legacy:
            return self.where + name
        return self.where + {"ssl": "SSL"}.get(name, name[0].upper() + name[1:])


def refusals(config: Config) -> Iterator[Problem]:
    """Yield reasons why mail cannot be sent through a provider as configured."""
    for each in _written(config):
        provider = each.provider
        for key, address in (("sender", provider.sender), ("bounceFrom", provider.bounce_from)):
            try:
                if address:
                    check_address(address)
            except ValueError as error:
                yield Problem(each.key(key), f"is not an address: {error}")
        if provider.rewrite_from is not RewriteFrom.KEEP and not provider.sender:
            yield Problem(each.key("sender"), "is needed for rewriteFrom: it is the address that From shows")
        for key, why in _interface_refusals(provider):
            yield Problem(each.key(key), why)


def _interface_refusals(provider: Provider) -> Iterator[tuple[str, str]]:
    """Yield (key below the provider, message) for a provider with OAuth 2.0, or with an HTTP API."""
    if not (provider.oauth or provider.api or provider.api_url):
        return
    # Most providers have neither, and cron starts the runner each minute.
    from mailer.config.http_checks import api_refusals, oauth_refusals  # noqa: PLC0415

    if provider.oauth:
        yield from oauth_refusals(provider, provider.oauth)
    yield from api_refusals(provider)


def warnings(config: Config) -> Iterator[Problem]:
    """Yield settings of providers, and of our EHLO name, that will probably not work as intended."""
    for each in _written(config):
        provider = each.provider
        if why := _bad_host(provider.host):
            yield Problem(each.key("host"), why)
        else:
            yield from _itself(config, each)
        yield from _wrong_port(each)
        yield from _unsignable(config, each)
        if provider.oauth and not provider.password.empty:
            told = "has no effect: with auth of type oauth2 a password is never sent; remove it"
            yield Problem(each.key("password"), told)
        if provider.insecure_skip_verify and not is_loopback(provider.host):
            told = "is on: a host between us and the server can read the password"
            yield Problem(each.key("insecureSkipVerify"), told)
        if provider.weight is not None and provider.priority is None:
            told = "shares nothing without a priority that another provider has, too"
            yield Problem(each.key("weight"), told)
    yield from _passwords(config)
    yield from _bad_names(config)


def _written(config: Config) -> Iterator[_Written]:
    if not config.forward_smtp:
        return
    for at, provider in enumerate(config.forward_providers):
        yield _Written(provider, f"$.forwardProviders[{at}].")
    if not config.forward_providers:
        for provider in config.providers:
            yield _Written(provider, "$.forward", legacy=True)


def _bad_host(host: str) -> str:
    """Return why a host cannot be looked up as it is written; empty: it can."""
    if is_address(host.partition("%")[0]):
        return ""
    plain = re.sub(r"^[a-z]+:/+", "", host.strip(), flags=re.IGNORECASE).rstrip("/")
    bracketed = re.fullmatch(r"\[([^]]*)\](?::(\d+))?", plain)
    name, _, port = (bracketed[1], "", bracketed[2]) if bracketed else plain.partition(":")
    if host.isascii() and not _HOST.fullmatch(host):
        port = f', and the port in "port": {port}' if port and port.isdigit() else ""
        right = name.strip() if _HOST.fullmatch(name.strip()) or is_address(name) else "smtp.example.com"
        return f'is not a host name: write "{right}" alone, without scheme, brackets, port or blanks{port}'
    return ""


def _itself(config: Config, each: _Written) -> Iterator[Problem]:
    """Warn of a provider that is our own receiver, which would be a mail loop."""
    ours = {config.smtp_port, *(listener.port for listener in config.listeners if not listener.unix_socket)}
    host = each.provider.host.lower().rstrip(".")
    here = host in {config.bind_address, own_name(config).lower()} or is_loopback(host)
    if here and each.provider.port in ours:
        yield Problem(
            each.key("port"),
            f"{printable(host)}:{each.provider.port} is mailer's own receiver, so mail would loop: set "
            "host and port to those of the provider",
        )


def _wrong_port(each: _Written) -> Iterator[Problem]:
    provider = each.provider
    if provider.port == _SUBMISSIONS and not provider.ssl:
        yield Problem(each.key("ssl"), "is false, and port 465 needs TLS from the first byte: set it to true")
    elif provider.port in _STARTTLS and provider.ssl:
        yield Problem(
            each.key("ssl"),
            f"is true, and port {provider.port} begins without TLS (STARTTLS): set it to false, or use 465",
        )


def _unsignable(config: Config, each: _Written) -> Iterator[Problem]:
    """Warn if `rewriteFrom` sets a From domain without a DKIM key, such as that of a mailbox provider."""
    provider = each.provider
    if not (config.dkim.enabled and config.dkim.keys and provider.dkim):
        return
    domain = provider.sender.rpartition("@")[2].lower()
    ours = {key.domain.lower() for key in config.dkim.signing_keys}
    if provider.rewrite_from is not RewriteFrom.KEEP and domain not in ours:
        yield Problem(
            each.key("rewriteFrom"),
            f"sets From to an address of {domain}, which has no DKIM key: such mail waits; set dkim to false",
        )


def _bad_names(config: Config) -> Iterator[Problem]:
    """Warn of unsuitable configured host names; `mailer doctor` checks the system's name."""
    if not config.providers and not config.direct_delivery.enabled:
        return
    names = {"$.hostname": config.hostname}
    if config.direct_delivery.enabled:
        names["$.directDelivery.ehloDomain"] = config.direct_delivery.ehlo_domain
    for key, name in names.items():
        if name and (why := fault(name)):
            yield Problem(key, f"{why}; set the full DNS name of this host")


def _passwords(config: Config) -> Iterator[Problem]:
    for provider in config.providers:
        secret = provider.password
        if provider.oauth:
            continue
        if provider.username and secret.empty:
            yield Problem(secret.key, f"is empty, and {printable(provider.label)} has a username")
        elif secret.reference is None and (is_placeholder(secret.reveal()) or is_guessable(secret)):
            yield Problem(secret.key, "looks like a placeholder, which the provider would refuse")
        elif not provider.username and not secret.empty and not provider.api:
            yield Problem(secret.key, f"is not used, since {printable(provider.label)} has no username")
