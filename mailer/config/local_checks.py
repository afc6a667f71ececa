"""Check `localUsers`, `submitSocket`, `originDomain` and `aliases`; called by `checks`."""

import shlex
from collections.abc import Iterator

from mailer.config import local_ids
from mailer.config.model import Config
from mailer.config.problem import ConfigError, Problem
from mailer.config.trust import owners_of
from mailer.config.users import read_users
from mailer.mail.address import check_address
from mailer.mail.reply import printable


def refusals(config: Config) -> Iterator[Problem]:
    """Yield invalid domains and aliases, and `localUsers` that have neither or both of login and group."""
    yield from _origin_domain(config.origin_domain)
    for name, address in config.aliases.items():
        try:
            check_address(address)
        except ValueError as error:
            yield Problem(f"$.aliases.{printable(name, 60)}", f"is not a full address: {error}")
    for at, each in enumerate(config.local_users):
        if bool(each.login) == bool(each.group):
            yield Problem(f"$.localUsers[{at}]", 'needs either "login" or "group"')


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


def _no_user(where: str, name: str) -> Problem:
    return Problem(where, f"names an unknown user; type: mailer user add {shlex.quote(printable(name))}")


def strangers(config: Config) -> Iterator[Problem]:
    """Yield logins and groups that this host does not have, and users that mailer does not have."""
    for at, listener in enumerate(config.listeners):
        for member, network in enumerate(listener.trusted_networks):
            if not _is_user(config, network.user):
                where = f"$.listeners[{at}].trustedNetworks[{member}].user"
                yield _no_user(where, network.user)
    if config.submit_socket is not None and not config.local_users:
        yield Problem("$.localUsers", "is empty, so every client of submitSocket is refused")
    for at, each in enumerate(config.local_users):
        where = f"$.localUsers[{at}]"
        if each.login not in {"", "*"} and local_ids.uid(each.login) is None:
            yield Problem(f"{where}.login", "this host has no such login")
        if each.group and local_ids.gid(each.group) is None:
            yield Problem(f"{where}.group", "this host has no such group")
        if not _is_user(config, each.user):
            yield _no_user(f"{where}.user", each.user)


def _is_user(config: Config, name: str) -> bool:
    if name == config.default_username:
        return True
    try:
        return name in read_users(config.users_file, owners_of(config.spool_dir))
    except (OSError, ConfigError):
        return True  # the receiver reports what is wrong with the file
