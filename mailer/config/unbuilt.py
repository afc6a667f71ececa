"""What can be configured and is not done by this version, and what happens instead.

The one place for it: whoever builds a feature deletes its row, and this module with the last one.
"""

from collections.abc import Callable
from typing import NamedTuple

from mailer.config.model import Config
from mailer.config.problem import Problem


class _Row(NamedTuple):
    path: str
    asked_for: Callable[[Config], bool]
    instead: str


_DEFAULTS = Config()

_ROWS = (
    _Row(
        "$.enableHealthCheck",
        lambda config: config.enable_health_check,
        "this version has no monitor; nothing answers on healthCheckPort (see `mailer spool stats`)",
    ),
    _Row(
        "$.adminToken",
        lambda config: config.admin_token != _DEFAULTS.admin_token,
        "this version has no admin page; nothing asks for the token",
    ),
    _Row(
        "$.logRetention",
        lambda config: config.log_retention != _DEFAULTS.log_retention,
        "this version deletes no days of the ledger; those in the spool's log/ stay until you remove them",
    ),
)


def unbuilt(config: Config) -> tuple[Problem, ...]:
    """Warn of each feature that is asked for and not there."""
    return tuple(Problem(row.path, row.instead) for row in _ROWS if row.asked_for(config))
