"""Identifies a client of `submitSocket` by the uid that the kernel gives, and its user by `localUsers`.

A connection shows the user and groups that its program had when it connected (unix(7), SO_PEERCRED), and no
program can show others than its own. So nothing is asked of it, and no password lies in a file.
"""

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from mailer.receive.peers import UNIX

_CREDENTIALS = struct.Struct("3i")
"""struct ucred: process, user, group."""
_GID = struct.Struct("I")
_SO_PEERGROUPS = 59
"""Linux 4.13, asm-generic/socket.h; Python has no name for it."""
_MOST_GROUPS = 1024
"""Octets, the most that Python reads: 256 groups. Of a program with more only the first, its own, counts."""


@dataclass(frozen=True, slots=True)
class PeerIds:
    """The user and groups of a program that has connected."""

    uid: int
    gids: frozenset[int]

    @property
    def peer(self) -> str:
        """What the journal and the ledger call it."""
        return f"{UNIX}:{self.uid}"


@dataclass(frozen=True, slots=True)
class LocalUser:
    """Programs that are a user's: those with this user id or in this group; with neither, all of them."""

    user: str
    uid: int | None = None
    gid: int | None = None

    def covers(self, ids: PeerIds) -> bool:
        if self.uid is not None:
            return ids.uid == self.uid
        return self.gid is None or self.gid in ids.gids


def peer_ids(connection: socket.socket) -> PeerIds:
    """Ask the kernel who connected. Raises OSError."""
    buffer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, gid = _CREDENTIALS.unpack(buffer)
    try:
        groups = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_GROUPS)
    except OSError:
        groups = b""
    return PeerIds(uid, frozenset({gid, *(each for (each,) in _GID.iter_unpack(groups))}))


def user_of(ids: PeerIds, local_users: Sequence[LocalUser]) -> str:
    """Return the user whose mail a program submits: the first that covers it; empty: none does."""
    return next((each.user for each in local_users if each.covers(ids)), "")
