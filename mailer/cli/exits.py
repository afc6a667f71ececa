"""Exit codes for scripts, cron and systemd, taken from sysexits.h where it has a fitting one."""

from enum import IntEnum


class Exit(IntEnum):
    """The exit code of a mailer program."""

    OK = 0
    FINDINGS = 1
    """`fsck`, `dkim check` or `doctor` found something."""
    USAGE = 2
    """The command line is invalid, or an id malformed or ambiguous; click and shells use the same code."""
    DATA = 65
    """EX_DATAERR: the message is unreadable, or its state does not allow what was asked."""
    NO_INPUT = 66
    """EX_NOINPUT: there is no such message."""
    UNAVAILABLE = 69
    """EX_UNAVAILABLE: the spool, or the address to listen on, is not available."""
    SOFTWARE = 70
    """EX_SOFTWARE: a defect in mailer; a traceback goes to standard error."""
    CANNOT_CREATE = 73
    """EX_CANTCREAT: the spool could not be created."""
    TEMPORARY = 75
    """EX_TEMPFAIL: a temporary failure, such as a message that a runner has claimed, or a full disk."""
    NO_PERMISSION = 77
    """EX_NOPERM."""
    CONFIG = 78
    """EX_CONFIG: the configuration is invalid or cannot be read. sysexits.h reserves 77 for other things than
    files, and a service manager that knows 78 does not restart the program again and again."""
    INTERRUPTED = 130
    """128 + SIGINT, by the convention of shells."""


class Failure(Exception):
    """An expected failure: it ends the program with one sentence for the operator and an exit code."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code
