"""One handover at a time in a spool, be it into it or out of it.

So a target that is still at work for a source that died cannot store what a second one says is not there, and
a spool is not moved into itself by whatever way.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mailer.spool.directory import Spool
from mailer.spool.flock import lock
from mailer.spool.layout import Place

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Occupied(Exception):
    """Another handover is at work in this spool."""


@contextmanager
def alone(spool: Spool) -> Iterator[None]:
    """Keep out other handovers while the block runs.

    Raises:
        Occupied: there is another one.
        OSError: `hold/` cannot be opened.
    """
    fd = os.open(Place.HOLD, _FLAGS, dir_fd=spool.root)
    try:
        if not lock(fd):
            raise Occupied
        yield
    finally:
        os.close(fd)
