"""Allow one handover at a time in a spool, whether into it or out of it.

If the source dies, the target may still be storing its messages. A second source must not be told meanwhile
that they are not there. For the same reason a spool cannot be moved into itself.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mailer.spool.directory import Spool
from mailer.spool.flock import lock
from mailer.spool.layout import Place

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Occupied(Exception):
    """Another handover is under way in this spool."""


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
