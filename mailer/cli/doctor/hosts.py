"""The checks of `mailer doctor` about the hosts that share `spoolDir`."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mailer.config.model import Config
from mailer.mail.finding import Finding, Grade
from mailer.monitor.hosts import troubles
from mailer.spool.directory import Spool
from mailer.spool.hosts.epochs import Hosts, this_machine
from mailer.spool.hosts.lease import is_draining, lost
from mailer.spool.preparation import is_of_hosts


def host_findings(config: Config, now: float) -> Iterator[Finding]:
    """Check whether this host may use its spool, and how the others are; without `host`, that it needs none.

    Args:
        config: of this host.
        now: the time.
    """
    path, shared = config.spool_dir, config.shared_dir
    try:
        if shared is None:
            if _is_a_hosts(path):
                words = "is the spool of one of several hosts, and no program starts here without `host`"
                todo = (
                    f'set "spoolDir": "{path.parent.absolute()}" and "host": "{path.name}" on that host only'
                )
                yield Finding(str(path), "host", Grade.PROBLEM, words, todo)
            return
        yield from _known(config, shared)
        for words, waits in troubles(shared, config.host, now):
            grade = Grade.PROBLEM if waits else Grade.WARNING
            yield Finding(str(shared), "hosts", grade, words, "look at it: mailer hosts")
    except OSError as error:
        words = f"no program starts here: {error.strerror or error}"
        yield Finding(str(shared or path), "host", Grade.PROBLEM, words)


def _is_a_hosts(path: Path) -> bool:
    try:
        with Spool.open_unchecked(path) as spool:
            return is_of_hosts(spool.root)
    except FileNotFoundError:
        return False


def _known(config: Config, shared: Path) -> Iterator[Finding]:
    """Check this host; raises OSError."""
    machine = this_machine(config.host)
    with Hosts.open(shared) as hosts:
        epoch = hosts.latest(config.host)
    if epoch is None or not epoch.is_of(machine):
        words = f"no program of this host starts: {lost(epoch, config.host)}"
        yield Finding(str(config.spool_dir), "host", Grade.PROBLEM, words, "mailer hosts shows all hosts")
        return
    yield Finding(str(config.spool_dir), "host", Grade.OK, f"this is host {config.host}, since {epoch.at}")
    draining = False
    # The first start makes what an interrupted `mailer hosts join` did not.
    with suppress(FileNotFoundError), Spool.open_unchecked(config.spool_dir) as spool:
        draining = is_draining(spool)
    if draining:
        words = "new mail is refused (mailer hosts drain)"
        yield Finding(
            str(config.spool_dir), "drain", Grade.WARNING, words, "to end that: mailer hosts drain --undo"
        )
