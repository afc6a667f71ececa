"""What is wrong with providers in a configuration that loads; see `checks`, which asks."""

from collections.abc import Iterator

from mailer.config.hops import Provider
from mailer.config.model import Config
from mailer.config.problem import Problem
from mailer.config.receiving import RewriteFrom
from mailer.mail.address import check_address


def refusals(config: Config) -> Iterator[Problem]:
    """Say why mail cannot be given to a provider in the form that is configured."""
    for where, provider in _listed(config):
        for key, address in (("sender", provider.sender), ("bounceFrom", provider.bounce_from)):
            try:
                if address:
                    check_address(address)
            except ValueError as error:
                yield Problem(f"{where}.{key}", f"is no address: {error}")
        if provider.rewrite_from is not RewriteFrom.KEEP and not provider.sender:
            yield Problem(f"{where}.sender", "is needed for rewriteFrom: it is the address that From shows")


def warnings(config: Config) -> Iterator[Problem]:
    """Say what of the providers will not do what was meant."""
    for where, provider in _listed(config):
        yield from _unsignable(config, where, provider)


def _listed(config: Config) -> Iterator[tuple[str, Provider]]:
    """Give the providers that count, each with its place in the configuration."""
    if config.forward_smtp:
        for at, provider in enumerate(config.forward_providers):
            yield f"$.forwardProviders[{at}]", provider


def _unsignable(config: Config, where: str, provider: Provider) -> Iterator[Problem]:
    """A From domain that is another's, such as a mailbox provider's, has no key of ours."""
    if not (config.dkim.enabled and config.dkim.keys and provider.dkim):
        return
    domain = provider.sender.rpartition("@")[2].lower()
    ours = {key.domain.lower() for key in config.dkim.signing_keys}
    if provider.rewrite_from is not RewriteFrom.KEEP and domain not in ours:
        yield Problem(
            f"{where}.rewriteFrom",
            f"makes From an address of {domain}, which has no DKIM key: such mail waits; turn dkim off",
        )
