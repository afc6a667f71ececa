"""What this host is called when the configuration does not say: its full name, as far as it knows one.

No name server is asked: programs start each minute, and while the network is down. What is read is what an
installer or administrator wrote: the kernel's name, /etc/hosts (which maps a short name to a full one),
/etc/mailname (Debian's name for mail).
"""

import contextlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from mailer.config.model import Config
from mailer.mail.host_name import fault

_MOST = 64 * 1024
"""Octets of a file that are looked at; /etc/hosts may be a list of a million advertisers."""


def own_name(config: Config) -> str:
    """Return what we call ourselves: `hostname`, or the system's name."""
    return config.hostname or system_name()


@cache
def system_name(etc: Path = Path("/etc"), kernel: str = "") -> str:
    """Return the first full name that the host knows itself by, or else the kernel's.

    Args:
        etc: where the files are.
        kernel: its name for the host; empty: ask it.
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
        return file.read(_MOST).splitlines()
    return []
