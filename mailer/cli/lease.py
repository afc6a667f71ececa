"""The lease of a program on its host's spool, where several hosts share `spoolDir`."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mailer.cli.clocks import clocks
from mailer.cli.exits import Exit, Failure
from mailer.cli.owner import acting_as_owner
from mailer.config.model import Config
from mailer.maillog.events import MailLog
from mailer.spool.directory import Permission, Spool
from mailer.spool.hosts.epochs import Hosts, this_machine
from mailer.spool.hosts.lease import Lease, required


def taken(config: Config, opened: Callable[[Path], Spool]) -> Spool:
    """Open the spool of this host with a lease on it.

    Args:
        config: of this host.
        opened: opens a spool, and may make it.

    Raises:
        Failure, SpoolError: see `setup.program_spool`.
        OSError: the filesystem that the hosts share does not answer.
    """
    assert config.shared_dir is not None
    # Root does not know whom to become before this host's spool is made.
    with acting_as_owner(config.shared_dir), ExitStack() as undo:
        with Hosts.open(config.shared_dir) as hosts:
            # Before anything is made: a directory for this host in an empty mount point would look like a
            # spool.
            required(hosts, this_machine(config.host), config.spool_dir)
        spool = undo.enter_context(opened(config.spool_dir))
        take(config, spool)
        undo.pop_all()
        return spool


def take(config: Config, spool: Spool, adopted: str = "") -> Lease:
    """Take the lease on an open spool; return it. `kept` renews it.

    Args:
        config: of this host.
        spool: its own, or one that it is taking over.
        adopted: the host whose spool that is; empty: its own.

    Raises:
        SpoolError: the spool is not this machine's.
        OSError: the filesystem that the hosts share does not answer.
    """
    assert config.shared_dir is not None
    machine = this_machine(config.host)
    with ExitStack() as undo:
        hosts = undo.enter_context(Hosts.open(config.shared_dir))
        required(hosts, machine, spool.path, adopted)
        lease = Lease(spool, hosts, machine, clocks(), adopted)
        lease.renew()
        spool.lease = lease
        undo.pop_all()
        return lease


@contextmanager
def kept(lease: Permission, log: MailLog) -> Iterator[None]:
    """Renew a lease within the block, in a thread; end this program, as by SIGTERM, when the spool is lost.

    Raises:
        Failure: at the end, if it is lost.
    """
    assert isinstance(lease, Lease)

    def on_lost(why: str) -> None:
        log.error("ending: this host may not use the spool any more", reason=why)
        os.kill(os.getpid(), signal.SIGTERM)

    lease.keep(on_lost)
    yield
    lease.end()
    if lease.lost:
        raise Failure(Exit.TEMPORARY, lease.lost)
