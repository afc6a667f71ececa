"""Problems of a configuration: the place and what was expected, never the value, which may be a secret."""

from pathlib import Path

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """One problem at one place."""

    path: str
    """A JSON path (`$.forwardProviders[1].port`), `environment SMTP_PORT`, or the file's own name."""
    message: str
    """What was expected and what kind of value is there; one printable line without any value."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class ConfigError(ValueError):
    """The configuration cannot be used. Programs print it and exit with 78 (EX_CONFIG of sysexits.h)."""

    def __init__(self, problems: tuple[Problem, ...], found: Path | None = None) -> None:
        """Store the problems.

        Args:
            problems: all of them, in the order of the file; at least one.
            found: the file, if it was found by searching, since the reader may have another one in mind.
        """
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
        self.found = found
