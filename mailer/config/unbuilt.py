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
        "$.logRetention",
        lambda config: config.log_retention != _DEFAULTS.log_retention,
        "this version deletes no days of the ledger; those in the spool's log/ stay until you remove them",
    ),
)


def unbuilt(config: Config) -> tuple[Problem, ...]:
    """Warn of each feature that is asked for and not there."""
    return tuple(Problem(row.path, row.instead) for row in _ROWS if row.asked_for(config))
