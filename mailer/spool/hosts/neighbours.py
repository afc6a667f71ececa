"""The spools of the other hosts, for programs that count what all hosts do together."""

from collections.abc import Iterator
from contextlib import suppress

from mailer.spool.directory import Spool
from mailer.spool.hosts.epochs import Hosts
from mailer.spool.state import small_files


def names(spool: Spool) -> list[str]:
    """Return the other hosts, sorted; none if the spool is not shared. Raises as `Hosts.open`."""
    if not spool.is_shared:
        return []
    with Hosts.open(spool.path.parent) as hosts:
        return [name for name in hosts.names() if name != spool.path.name]


def others(spool: Spool) -> Iterator[Spool]:
    """Yield the spools of the other hosts, each open while it is looked at.

    Those that cannot be opened are left out. Raises OSError if the hosts cannot be listed.
    """
    for name in names(spool):
        with suppress(OSError), Spool.open_unchecked(spool.path.parent / name) as other:
            yield other


def states(spool: Spool, name: str) -> list[bytes]:
    """Return the other hosts' contents of a file of `state/`; those that cannot be read are left out."""
    found: list[bytes] = []
    with suppress(OSError):
        found = [data for each in others(spool) if (data := small_files.read(each, name)) is not None]
    return found
