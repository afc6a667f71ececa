"""Check the mode of files with secrets, and build the command that corrects it."""

import stat
from pathlib import Path


def others_can_read(mode: int) -> bool:
    """Return whether every user can read; a group may (services share files as root:mailer 0640)."""
    return bool(mode & stat.S_IROTH)


def chmod(path: Path) -> str:
    """Return the shell command that denies other users access to the file."""
    import shlex  # noqa: PLC0415 - only for a message

    return f"chmod 0640 {shlex.quote(str(path))}"
