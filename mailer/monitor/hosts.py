"""The hosts that share `spoolDir`, as the monitor of one of them sees the others."""

from collections.abc import Iterator
from pathlib import Path

from mailer.config.model import Config
from mailer.mail import clock
from mailer.mail.duration import duration
from mailer.monitor.checks import Check, Status
from mailer.spool.directory import Spool
from mailer.spool.hosts.adoption import has_mail
from mailer.spool.hosts.epochs import Hosts
from mailer.spool.hosts.lease import is_draining, renewed

SILENT = 600.0
"""Seconds without a renewed lease after which a host counts as gone; clocks of hosts differ by less."""


def judged(spool: Spool, config: Config, now: float) -> dict[str, Check]:
    """Judge this host and the others that share its directory; empty if it shares none.

    It reads that directory, which may take long, or hang.
    """
    if config.shared_dir is None:
        return {}
    try:
        found = list(troubles(config.shared_dir, config.host, now))
        draining = is_draining(spool)
    except OSError as error:
        return {"hosts": Check(Status.FAILING, f"the other hosts cannot be seen: {error.strerror or error}")}
    told = ["new mail is refused here (mailer hosts drain)"] if draining else []
    told += [trouble for trouble, _ in found]
    if not told:
        return {"hosts": Check(Status.OK, "all renew their leases, or have left without mail")}
    stuck = any(waits for _, waits in found)
    return {"hosts": Check(Status.FAILING if stuck else Status.DEGRADED, "; ".join(told))}


def troubles(shared: Path, host: str, now: float) -> Iterator[tuple[str, bool]]:
    """Yield what is wrong with each other host, and whether mail may wait there that no program sends.

    Args:
        shared: the directory that the hosts share.
        host: this host.
        now: the time.

    Raises:
        OSError: it cannot be read.
    """
    with Hosts.open(shared) as hosts:
        for name in hosts.names():
            if name == host:
                continue
            try:
                yield from _troubles_of(hosts, name, now)
            except FileNotFoundError:
                yield (
                    f"{name} has joined, and its spool {shared / name} does not exist or is not whole",
                    False,
                )
            except OSError as error:
                yield f"{name} cannot be examined: {error.strerror or error}", True


def _troubles_of(hosts: Hosts, name: str, now: float) -> Iterator[tuple[str, bool]]:
    epoch = hosts.latest(name)
    if epoch is None:
        return
    with Spool.open_unchecked(hosts.shared / name) as spool:
        waits = has_mail(spool)
        last = clock.seconds(renewed(spool) or epoch.at)
    if not epoch.owner and waits:
        yield f"{name} has left, and mail waits there: mailer hosts adopt {name}", True
    elif epoch.owner and epoch.owner_host != name:
        yield f"{epoch.owner_host} has not finished mailer hosts adopt {name}", waits
    elif epoch.owner and now - last > SILENT:
        since = f"{name} has been silent for {duration(now - last)}"
        yield f"{since}{', and mail waits there' if waits else ''}", waits
