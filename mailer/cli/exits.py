"""Exit codes, from sysexits.h where it has a fitting one: scripts, cron and systemd read them."""

from enum import IntEnum


class Exit(IntEnum):
    """How a program of ours ends."""

    OK = 0
    FINDINGS = 1
    """`fsck`, `dkim check` or `doctor` found something."""
    USAGE = 2
    """The command line makes no sense, a malformed or ambiguous id included; click's code, and shells'."""
    DATA = 65
    """EX_DATAERR: the message is unreadable, or its state does not allow what was asked."""
    NO_INPUT = 66
    """EX_NOINPUT: there is no such message."""
    UNAVAILABLE = 69
    """EX_UNAVAILABLE: the spool, or the address to listen on, is not to be had."""
    SOFTWARE = 70
    """EX_SOFTWARE: a defect of ours; a traceback goes to standard error."""
    CANNOT_CREATE = 73
    """EX_CANTCREAT: the spool could not be made."""
    TEMPORARY = 75
    """EX_TEMPFAIL: not now; a message in a runner's hands, a full disk. Try again."""
    NO_PERMISSION = 77
    """EX_NOPERM."""
    CONFIG = 78
    """EX_CONFIG: the configuration cannot be used, or not be read: sysexits.h does not mean files by 77,
    and a service manager that knows 78 does not start the program again and again."""
    INTERRUPTED = 130
    """128 + SIGINT, as shells have it."""


class Failure(Exception):
    """An expected end: one sentence for the operator and a code; never a traceback."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code
