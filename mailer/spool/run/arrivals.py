"""Notice new mail as it is renamed into `new/`, without scanning (inotify(7)).

A notification is only a hint. Names may be missed (the kernel's queue overflows, or a filesystem does not
notify), so callers still scan from time to time.
"""

import os
import struct

from mailer.ground.libc import last_error
from mailer.ground.libc import libc as _libc
from mailer.spool.directory import Spool
from mailer.spool.ids import is_id
from mailer.spool.layout import Place

_IN_MOVED_TO = 0x80
_IN_CREATE = 0x100
"""Also reported for a new link: see `renaming`. No file is written in `new/` itself."""
_HEARD = _IN_MOVED_TO | _IN_CREATE
_IN_Q_OVERFLOW = 0x4000
_EVENT = struct.Struct("iIII")
_READ = 64 * 1024


class Arrivals:
    """Watches `new/`; `fd` becomes readable when a message has arrived."""

    def __init__(self, spool: Spool) -> None:
        """Start watching; raises OSError if the kernel's limit of watches is reached."""
        self.fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(last_error(), os.strerror(last_error()))
        with spool.directory(Place.NEW.value) as new:
            if _libc.inotify_add_watch(self.fd, f"/proc/self/fd/{new}".encode(), _HEARD) < 0:
                code = last_error()
                self.close()
                raise OSError(code, os.strerror(code))

    def read(self) -> list[str] | None:
        """Return the ids that arrived since the last call; None if some were missed: scan then."""
        found: list[str] = []
        while True:
            try:
                data = os.read(self.fd, _READ)
            except BlockingIOError:
                return found
            offset = 0
            while offset < len(data):
                _, mask, _, length = _EVENT.unpack_from(data, offset)
                if mask & _IN_Q_OVERFLOW:
                    return None
                offset += _EVENT.size
                name = data[offset : offset + length].rstrip(b"\0").decode(errors="replace")
                offset += length
                if is_id(name):
                    found.append(name)

    def close(self) -> None:
        os.close(self.fd)
