"""Evict a host's client from CephFS, as evidence that the host cannot use its spool any more.

An evicted client is on the blocklist of the object stores: what it still has in its caches never reaches the
files, and every call there ends with ESHUTDOWN (docs.ceph.com/en/latest/cephfs/eviction; seen with Ceph 16).
"""

import subprocess
import sys
from shlex import split
from typing import Any

import click
import msgspec

from mailer.cli.exits import Exit, Failure
from mailer.cli.output import tell
from mailer.cli.owner import acting_as_owner
from mailer.config.model import Config
from mailer.mail.reply import printable
from mailer.spool.directory import Spool
from mailer.spool.hosts.lease import client_of, clients

_PATIENCE = 60.0
"""Seconds for one call of ceph."""
_MDS = "mds.0"
"""The rank with which every client has a session, because the root directory is there."""


def evicted(command: str, config: Config, host: str) -> str:
    """Evict the clients through which a host uses its spool; return the evidence, for the epoch.

    Args:
        command: how ceph(8) is called.
        config: of this host.
        host: the other host.

    Raises:
        Failure: it could not be done, or not be confirmed.
    """
    assert config.shared_dir is not None
    ceph = _Ceph(command)
    with (
        acting_as_owner(config.spool_dir),
        Spool.open_unchecked(config.spool_dir) as own,
        Spool.open_unchecked(config.shared_dir / host) as spool,
    ):
        here, found = client_of(own), clients(spool)
    if not found:
        raise Failure(
            Exit.DATA,
            f"{config.shared_dir / host} has no record of a CephFS client: make sure that {host} is off, and "
            "use --off",
        )
    if here in found:
        raise Failure(
            Exit.DATA,
            f"{host} uses the spool through {here}, as this host does, and an eviction would cut both off: "
            "make sure that its programs have ended, and use --off",
        )
    return "evicted from CephFS: " + ", ".join(_evict(ceph, client) for client in found)


def _evict(ceph: "_Ceph", client: str) -> str:
    """Evict one client, named as in the extended attribute `ceph.client_id`, and confirm that."""
    number = client.removeprefix("client").lstrip(".")
    if not number.isdigit():
        raise Failure(Exit.DATA, f"{printable(client)} is not a CephFS client")
    session = next((each for each in ceph.sessions() if each.get("id") == int(number)), None)
    if session is None:
        return f"client {number} (has no session any more)"
    address = str(session.get("inst", "")).rpartition(" ")[2]
    ceph.run("tell", _MDS, "client", "evict", f"id={number}")
    # As text: Ceph 16 prints the list as JSON with another, empty list behind it.
    if address not in {
        line.split()[0] for line in ceph.run("osd", "blocklist", "ls").splitlines() if line.split()
    }:
        raise Failure(
            Exit.TEMPORARY,
            f"client {number} ({address}) was evicted, and is not on the blocklist: is "
            "mds_session_blocklist_on_evict off?",
        )
    tell(sys.stderr, f"client {number} ({address}) is evicted from CephFS\n")
    return f"client {number} ({address}, on the blocklist)"


class _Ceph:
    """The program ceph(8), as the operator calls it."""

    def __init__(self, command: str) -> None:
        try:
            self._argv = split(command)
        except ValueError as error:
            raise click.UsageError(f"--evict-with: {error}") from None

    def run(self, *arguments: str) -> str:
        """Run it; return what it prints. Raises Failure."""
        try:
            ran = subprocess.run(  # noqa: S603 - no shell, and the operator wrote the command
                [*self._argv, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PATIENCE,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failure(Exit.UNAVAILABLE, f"{self._argv[0]} cannot be run: {error}") from error
        if ran.returncode:
            said = printable(ran.stderr.decode(errors="replace")[-500:])
            raise Failure(Exit.UNAVAILABLE, f"{self._argv[0]} {' '.join(arguments)} failed: {said}")
        return ran.stdout.decode(errors="replace")

    def sessions(self) -> list[dict[str, Any]]:
        """Return what the metadata server says of each client's session. Raises Failure."""
        try:
            return msgspec.json.decode(self.run("tell", _MDS, "client", "ls"), type=list[dict[str, Any]])
        except msgspec.MsgspecError as error:
            raise Failure(Exit.UNAVAILABLE, f"`client ls` did not print a list: {error}") from error
