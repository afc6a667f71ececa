"""What a look at one thing found, for an operator: the words of `mailer doctor` and `mailer dkim check`."""

from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """How a finding stands."""

    OK = "ok"
    WARNING = "warning"
    """Mail goes on; something near it is missing, weak, or soon will be."""
    PROBLEM = "problem"
    """Mail will be refused, wait, or be lost, or a program will not start."""
    UNKNOWN = "unknown"
    """Nobody could tell; ask again."""
    SKIPPED = "skipped"
    """Not looked at, and why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    about: str
    """The name that was asked for, the file, or the server."""
    what: str
    """One word for what was looked at: `key`, `spf`, `fsync`, `tls`."""
    grade: Grade
    found: str
    todo: str = ""
    always_shown: bool = False
    """Also where it is well: something that the operator has opened to others."""
