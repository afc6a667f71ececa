"""Take over the spool of a dead host: begin a new epoch, and wait until that host's programs have stopped.

The mail itself is then moved by `handover`, from the dead host's spool into the new owner's, with its
journals. A takeover may be interrupted at any point and begun again, by the same host, or by another one if
that host dies, too.
"""

from collections.abc import Callable, Iterator

from mailer.mail.clock import Clocks
from mailer.spool.directory import Spool
from mailer.spool.handover.leaving import MOVABLE
from mailer.spool.hosts.epochs import Epoch, Grounds, Hosts, Machine, Why, following
from mailer.spool.hosts.lease import LEASE, MARGIN, RENEW_EVERY, records
from mailer.spool.layout import DROP, Place
from mailer.spool.preparation import SpoolError
from mailer.spool.scan import batches, names

_LOOK_EVERY = 1.0
WAITING = (Place.NEW, Place.CUR, Place.RETRY)
"""Where messages wait to be sent."""


class NotAdoptable(SpoolError):
    """The spool cannot be taken over now; the text says why."""


def claim(
    hosts: Hosts, host: str, machine: Machine, grounds: Grounds, now: float, *, again: bool = False
) -> Epoch:
    """Begin the epoch in which a machine owns the spool of a host.

    Args:
        hosts: the epochs of all hosts.
        host: the host whose spool it is.
        machine: the new owner.
        grounds: the operator, and the evidence that the owner has stopped. Without evidence, only a spool
            without an owner, or this machine's own, can be taken.
        now: the time, shown to operators.
        again: the machine joins as this host again, instead of taking over its spool.

    Raises:
        NotAdoptable: it cannot be taken, or there is no evidence.
        Overtaken: another host was faster.
        OSError: see `Hosts.advance`.
    """
    latest = hosts.latest(host)
    if latest is None and not again:
        known = ", ".join(hosts.names()) or "none"
        raise NotAdoptable(None, f"no host {host} has ever joined; known: {known}")
    if latest and latest.is_of(machine):
        return latest
    if latest and latest.owner and again and latest.owner_host != host:
        raise NotAdoptable(
            None,
            f"{latest.owner_host} is taking the spool of {host} over since {latest.at}: wait until "
            f"`mailer hosts` shows that {host} has left",
        )
    if latest and latest.owner and not grounds.evidence:
        raise NotAdoptable(
            None,
            f"the spool of {host} is in use by {latest.node}, as {latest.owner_host}: see --help for "
            "how to make sure that it is off",
        )
    return hosts.advance(following(latest, host, Why.JOINED if again else Why.ADOPTED, now, grounds, machine))


def release(hosts: Hosts, epoch: Epoch, by: str, now: float) -> Epoch:
    """Begin an epoch in which a spool has no owner, after one of this machine; raises as `Hosts.advance`."""
    return hosts.advance(following(epoch, epoch.host, Why.LEFT, now, Grounds(by)))


def wait_until_quiet(spool: Spool, clocks: Clocks, sleep: Callable[[float], None]) -> Iterator[float]:
    """Wait until the leases of all programs of the previous owner have ended; yield the seconds left.

    Args:
        spool: the spool that was claimed.
        clocks: of this machine; only the time since boot counts.
        sleep: waits for some seconds.

    Raises:
        NotAdoptable: a program still renews its lease, and so has not seen that the epoch has ended.
        OSError: the spool cannot be read.
    """
    until = clocks.uptime() + LEASE + MARGIN
    seen = dict(records(spool))
    changed = float("-inf")
    while (left := until - clocks.uptime()) > 0:
        yield left
        sleep(min(left, _LOOK_EVERY))
        found = dict(records(spool))
        if found != seen:
            seen, changed = found, clocks.uptime()
    if changed > until - MARGIN - RENEW_EVERY:
        raise NotAdoptable(
            None,
            f"a program still renews its lease on {spool.path}, so its host is not off, nor cut off: end its "
            "programs, or fence it, and type the same again",
        )


def mail_in(spool: Spool) -> int:
    """Count the messages in a spool that can be taken over, in `drop/` too; raises OSError."""
    # A message may have two names: see `renaming`.
    found = {name for *_, ids in batches(spool, MOVABLE) for name in ids}
    return len(found.union(names(spool, DROP)))


def has_mail(spool: Spool) -> bool:
    """Return whether there is mail in a spool that waits to be sent; raises OSError."""
    return any(True for _ in batches(spool, WAITING)) or any(True for _ in names(spool, DROP))
