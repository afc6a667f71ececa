"""Identifies a client of `submitSocket` by its user id, and maps that to a user by `localUsers`.

The kernel reports the user and groups that a program had when it connected (unix(7), SO_PEERCRED), and a
program cannot forge them. So the program needs no login, and no password has to be stored in a file.
"""

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from mailer.receive.peers import UNIX

_CREDENTIALS = struct.Struct("3i")
"""struct ucred: process id, user id, group id."""
_GID = struct.Struct("I")
_SO_PEERGROUPS = 59
"""Linux 4.13, asm-generic/socket.h; Python has no name for it."""
_MOST_GROUPS = 1024
"""Octets, the most that Python reads: 256 groups. Of a program with more, only the primary group counts."""


@dataclass(frozen=True, slots=True)
class PeerIds:
    """The user and group ids of a connected program."""

    uid: int
    gids: frozenset[int]

    @property
    def peer(self) -> str:
        """The program's name as a peer in the journal and the ledger."""
        return f"{UNIX}:{self.uid}"


@dataclass(frozen=True, slots=True)
class LocalUser:
    """Maps programs to a user: those with a user id, or in a group; if neither is set, all programs."""

    user: str
    uid: int | None = None
    gid: int | None = None

    def covers(self, ids: PeerIds) -> bool:
        if self.uid is not None:
            return ids.uid == self.uid
        return self.gid is None or self.gid in ids.gids


def peer_ids(connection: socket.socket) -> PeerIds:
    """Return the user and groups of the program at the other end of a Unix socket; raises OSError."""
    buffer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, gid = _CREDENTIALS.unpack(buffer)
    try:
        groups = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_GROUPS)
    except OSError:
        groups = b""
    return PeerIds(uid, frozenset({gid, *(each for (each,) in _GID.iter_unpack(groups))}))


def user_of(ids: PeerIds, local_users: Sequence[LocalUser]) -> str:
    """Return the user of the first entry that covers a program; empty: none does."""
    return next((each.user for each in local_users if each.covers(ids)), "")
