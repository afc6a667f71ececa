"""`mailer-sendmail` as a program that other programs start, and those that start it."""

import sys
from pathlib import Path

from testbed.tools import TESTBED, MissingToolError

_SCRIPT = """#!{python}
import ctypes, os, sys
os.environ["MAILER_SUBMIT_SOCKET"] = {socket!r}
if {drop!r}:
    os.environ["MAILER_DROP"] = {drop!r}
from mailer.sendmail import drop, main, relay, session, syntax
main._RESTART = {patience}
if {uid}:
    os.setgroups([])
    os.setgid({uid})
    os.setuid({uid})
sys.exit(main.main())
"""


def write_sendmail(
    directory: Path,
    socket: Path,
    *,
    name: str = "sendmail",
    uid: int = 0,
    patience: float = 0,
    drop: Path | None = None,
) -> Path:
    """Write a program that is what pip makes of the console script, for a socket at an uncustomary place.

    Args:
        directory: where to.
        socket: the receiver's `submitSocket`.
        name: the program's.
        uid: whose program it becomes once it is loaded; our Python may lie where others cannot read it.
        patience: seconds for a receiver that is not there.
        drop: the drop directory.
    """
    path = directory / name
    text = _SCRIPT.format(
        python=sys.executable, socket=str(socket), uid=uid, patience=patience, drop=str(drop or "")
    )
    path.write_text(text)
    path.chmod(0o755)
    return path


def unpacked(package: str, path: str) -> str:
    """A program of a package that `scripts/testbed` unpacks.

    Raises:
        MissingToolError: it is not there.
    """
    found = TESTBED / package / path
    if not found.exists():
        raise MissingToolError(package)
    return str(found)
