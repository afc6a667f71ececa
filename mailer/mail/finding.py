"""Findings: the results of single checks that `mailer doctor` and `mailer dkim check` print."""

from enum import StrEnum

import msgspec


class Grade(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    """Mail still flows; something related is missing or weak, or soon will be."""
    PROBLEM = "problem"
    """Mail will be refused, delayed or lost, or a program will not start."""
    UNKNOWN = "unknown"
    """The check got no answer; it may succeed later."""
    SKIPPED = "skipped"
    """The check was not made; `Finding.found` says why."""


class Finding(msgspec.Struct, frozen=True):
    """The result of one check."""

    about: str
    """The subject of the check: a DNS name, a file or a server."""
    what: str
    """The name of the check, one word: `key`, `spf`, `fsync`, `tls`."""
    grade: Grade
    found: str
    todo: str = ""
    always_shown: bool = False
    """Print the finding even when it is `OK`: the operator has opened something to other hosts or users."""
