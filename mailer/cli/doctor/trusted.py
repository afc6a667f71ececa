"""Report what `trustedNetworks` allow: which addresses may send without a password, and as which user."""

import shlex
from collections.abc import Iterator

from mailer.config.model import Config
from mailer.config.networks import is_private, network
from mailer.config.problem import ConfigError
from mailer.config.receiving import TrustedNetwork
from mailer.config.trust import owners_of
from mailer.config.users import User, read_users
from mailer.mail.finding import Finding, Grade
from mailer.mail.reply import printable

_SHOWN = 3
"""The most senders of a user to name."""


def trusted_findings(config: Config) -> Iterator[Finding]:
    """Describe each network; warn where its user may send as anyone, or any number of messages."""
    try:
        users = read_users(config.users_file, owners_of(config.spool_dir))
    except (ConfigError, OSError):
        return  # Reported with the files.
    for listener in config.listeners:
        about = f"{listener.host or '*'}:{listener.port}"
        for each in listener.trusted_networks:
            yield _finding(about, each, users.get(each.user), config)


def _finding(about: str, trusted: TrustedNetwork, user: User | None, config: Config) -> Finding:
    name = printable(trusted.user, 60)
    if user is None and trusted.user != config.default_username:
        words = f"{trusted.cidr} is for the user {name}, who does not exist: clients there must log in"
        todo = f"mailer user add {shlex.quote(name)} --allow ADDRESS"
        return Finding(about, "trusted", Grade.PROBLEM, words, todo)
    try:
        found = network(trusted.cidr)
    except ValueError as error:
        return Finding(about, "trusted", Grade.PROBLEM, f"{trusted.cidr} {error}")
    senders = user.allowed_senders if user else ("*",)
    bounds = ((user.max_per_hour, "an hour"), (user.max_per_day, "a day")) if user else ()
    limits = [f"{most} messages {unit}" for most, unit in bounds if most]
    anyone = "*" in senders
    shown = ["any sender"] if anyone else [printable(each, 60) for each in senders[:_SHOWN]]
    if not anyone and len(senders) > _SHOWN:
        shown.append(f"{len(senders) - _SHOWN} more")
    count = f"{found.num_addresses} address{'es' if found.num_addresses > 1 else ''}"
    words = (
        f"{count} ({found}) may send as {name} without a password: from {', '.join(shown)}, "
        f"{' and '.join(limits) or 'without a limit of its own'}. The same holds for what connects through "
        "one of them: programs of this host, a container's published port, a NAT"
    )
    if not is_private(found):
        return Finding(
            about, "trusted", Grade.WARNING, words, "name only addresses that are permanently yours"
        )
    if anyone or not (limits or config.rate_limits.enabled):
        todo = (
            f"give it a separate user: mailer user add {shlex.quote(name)} --allow ADDRESS --max-per-hour N"
        )
        return Finding(about, "trusted", Grade.WARNING, words, todo)
    return Finding(about, "trusted", Grade.OK, words, always_shown=True)
