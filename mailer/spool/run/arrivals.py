"""Hearing of new mail as it is renamed into `new/`, without looking for it (inotify(7)).

What is heard is a hint: names may be missed (the kernel's queue overflows, a filesystem does not tell), so
listeners still scan from time to time.
"""

import ctypes
import os
import struct

from mailer.spool.ids import is_id
from mailer.spool.layout import Place, Spool

_IN_MOVED_TO = 0x80
_IN_CREATE = 0x100
"""That of a link too: see `renaming`. Nothing is written in `new/` itself."""
_HEARD = _IN_MOVED_TO | _IN_CREATE
_IN_Q_OVERFLOW = 0x4000
_EVENT = struct.Struct("iIII")
_READ = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


class Arrivals:
    """Listens to `new/`; `fd` becomes readable when something arrived."""

    def __init__(self, spool: Spool) -> None:
        """Start listening; raises OSError when the kernel has no more watches to give."""
        self.fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        with spool.directory(Place.NEW.value) as new:
            if _libc.inotify_add_watch(self.fd, f"/proc/self/fd/{new}".encode(), _HEARD) < 0:
                code = ctypes.get_errno()
                self.close()
                raise OSError(code, os.strerror(code))

    def read(self) -> list[str] | None:
        """Return the ids that arrived since the last call; None when some were missed: scan."""
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
