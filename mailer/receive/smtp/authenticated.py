"""Closes a connection that has logged in, when all places are in use and no other client can give way.

It is one of the user with the most connections, so that no program, whether it leaks connections or means
harm, keeps the others out. An idle one goes first: a 421 may follow any command, and loses nothing. A message
that is still arriving has not been accepted, so its client sends it again; but only one that takes long is
broken off, since under a real load all would be.
"""

from collections import defaultdict
from collections.abc import Iterable
from math import inf

from mailer.receive.peers import source
from mailer.receive.smtp.mail_commands import MailCommands

SLOW = 60.0
"""Seconds after which a message that is still arriving may be broken off."""


def make_room(sessions: Iterable[MailCommands], now: float, *, local: bool) -> bool:
    """Close a connection in favour of a new one; return whether there was one to close.

    Args:
        sessions: all of the server's; those that have not logged in stay.
        now: the event loop's time.
        local: the new client is on this host. One on another host is not served in place of one on this.
    """
    theirs: dict[str, list[MailCommands]] = defaultdict(list)
    for each in sessions:
        if each.authenticated and (local or not each.client.local):
            theirs[each.user or source(each.peer)].append(each)
    most = max(theirs.values(), key=len, default=[])
    chosen = min(most, key=lambda each: each.idle_since, default=None)
    if chosen is None or chosen.idle_since == inf:
        chosen = min(most, key=lambda each: each.receiving_since, default=None)
        if chosen is None or now - chosen.receiving_since < SLOW:
            return False
    chosen.give_way()
    return True
