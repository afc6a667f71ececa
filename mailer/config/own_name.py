"""Find this host's fully qualified name, for configurations without `hostname`.

No name server is queried, because programs start each minute, also while the network is down. The sources are
local: the kernel's host name, /etc/hosts (which maps a short name to a full one), and /etc/mailname (Debian's
name for mail).
"""

import contextlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from mailer.config.model import Config
from mailer.mail.host_name import fault

_MAX_READ = 64 * 1024
"""Octets of a file that are read; /etc/hosts may be a block list with a million entries."""


def own_name(config: Config) -> str:
    """Return our name: `hostname`, or else the system's name."""
    return config.hostname or system_name()


@cache
def system_name(etc: Path = Path("/etc"), kernel: str = "") -> str:
    """Return the first fully qualified name that the host has locally, or else the kernel's host name.

    Args:
        etc: the directory of `hosts` and `mailname`.
        kernel: the kernel's host name; empty: read it.
    """
    short = kernel or os.uname().nodename
    return next((name for name in _candidates(etc, short) if not fault(name)), short)


def _candidates(etc: Path, short: str) -> Iterator[str]:
    yield short
    for line in _lines(etc / "hosts"):
        _, *names = line.partition("#")[0].split() or [""]
        if short in names:
            yield from names
    yield from (line.strip() for line in _lines(etc / "mailname"))


def _lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError), path.open(encoding="ascii", errors="replace") as file:
        return file.read(_MAX_READ).splitlines()
    return []
