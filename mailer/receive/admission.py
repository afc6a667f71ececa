"""Decide which new connections are served, and count those of each remote client."""

import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Protocol

from mailer.mail.reply import Reply
from mailer.receive import replies
from mailer.receive.context import ReceiverContext
from mailer.receive.line_limit import LineLimit
from mailer.receive.peers import is_local, source
from mailer.receive.users.local_users import PeerIds, user_of

_RESERVED = 16
"""Divisor: one in 16 of `maxConnections` is reserved for clients on this host."""
_LOG_INTERVAL = 60.0
"""Seconds between two log lines about refused connections."""


class MakeRoom(Protocol):
    def __call__(self, *, local: bool) -> bool:
        """Close a connection in favour of a new one, from this host or not; return whether there was one."""


class Admission:
    """The limits on the connections of one server."""

    def __init__(
        self, context: ReceiverContext, open_connections: Callable[[], int], make_room: MakeRoom
    ) -> None:
        """Begin without connections.

        Args:
            context: has the limits and the log.
            open_connections: returns the number of connections of the server.
            make_room: called when there are too many.
        """
        self.context = context
        """Replaced when the configuration changes."""
        self._open_connections = open_connections
        self._make_room = make_room
        self._peers: Counter[str] = Counter()
        self._complained = float("-inf")
        self._refusals = LineLimit(monotonic)

    def judge(self, connection: socket.socket, peer: str, *, tls: bool) -> Reply | None:
        """Return the refusal for a new connection, or None to serve it.

        Args:
            connection: accepted; nothing was read from it.
            peer: the client's address.
            tls: the client speaks first (a TLS or HTTP client), so early input is not an error.
        """
        settings, local = self.context.settings, is_local(peer)
        if settings.local_only and not local:
            self.note_refused(peer, "allowLocalOnly")
            return replies.LOCAL_ONLY
        # The reserved rest keeps remote clients from locking out the applications on this host.
        most = settings.max_connections - (0 if local else settings.max_connections // _RESERVED)
        if self._open_connections() >= most:
            self.complain(f"maxConnections ({settings.max_connections}) are open")
            if not self._make_room(local=local):
                return replies.TOO_MANY_CONNECTIONS
        if not local and self._peers[source(peer)] >= settings.max_connections_per_peer:
            self.complain(f"{peer} has maxConnectionsPerPeer ({settings.max_connections_per_peer}) open")
            return replies.TOO_MANY_CONNECTIONS
        if not tls:
            with suppress(OSError):  # no input yet, or the client has already reset the connection
                # RFC 5321 3.1: a client waits for the greeting. One that does not may be another program
                # that was tricked into connecting, such as a browser.
                if connection.recv(1, socket.MSG_PEEK):
                    return replies.EARLY_TALKER
        return None

    def note_refused(self, peer: str, reason: str) -> None:
        """Log that a client is not served, unless it has been in many lines of this minute."""
        log = self.context.store.log
        if self._refusals.allows(log, peer):
            log.notice("refused a connection", peer=peer, reason=reason)

    def count(self, peer: str) -> None:
        """Count a connection against its client's limit."""
        self._peers[source(peer)] += 1

    def uncount(self, peer: str) -> None:
        """Note that a counted connection has ended."""
        key = source(peer)
        self._peers[key] -= 1
        if not self._peers[key]:
            del self._peers[key]

    def out_of_descriptors(self, error: OSError) -> Reply:
        """Return the refusal for a connection for which no file descriptor is left."""
        self.complain(error)
        return replies.TOO_MANY_CONNECTIONS

    def complain(self, reason: object) -> None:
        """Log a shortage of connections, rate-limited because every refused connection would repeat it."""
        now = monotonic()
        if now - self._complained >= _LOG_INTERVAL:
            self._complained = now
            self.context.store.log.warning("connections are refused", reason=str(reason))


def refusal_of_program(context: ReceiverContext, ids: PeerIds) -> Reply | None:
    """Return the refusal for a local program that maps to no known user, or None if it maps to one."""
    user = user_of(ids, context.local_users)
    if user and context.authenticator is not None and context.authenticator.identity(user) is not None:
        return None
    return replies.unknown_local_user(ids.uid, user)
