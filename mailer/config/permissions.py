"""Modes of files that hold secrets, and the command that corrects them."""

import stat
from pathlib import Path


def others_can_read(mode: int) -> bool:
    """True if every user of the host can; the group may (root:mailer 0640 is how services share a file)."""
    return bool(mode & stat.S_IROTH)


def chmod(path: Path) -> str:
    """What to type so that others cannot read the file, quoted for a shell."""
    import shlex  # noqa: PLC0415 - only for a message

    return f"chmod 0640 {shlex.quote(str(path))}"
