"""Disks that fail, are full or read-only, as a command of the product sees them."""

from pathlib import Path

from testbed.capability import tracer, with_own_mounts
from testbed.relay import Relay


def failing(log: Path, call: str, error: str, when: str = "1+") -> tuple[str, ...]:
    """Run a command whose n-th such system call (`when`, as strace has it) fails."""
    inject = f"inject={call}:error={error}:when={when}"
    return (tracer(), "-f", "-o", str(log), "-e", f"trace={call}", "-e", inject)


def remounted(relay: Relay, options: str, place: str = "") -> tuple[str, ...]:
    """Run a command that sees the spool, or a directory in it, mounted with these options.

    It runs in a namespace of its own.
    """
    spool = relay.spool / place
    script = f'mount --bind {spool} {spool} && mount -o remount,bind,{options} {spool} && exec "$@"'
    return (*with_own_mounts(), "sh", "-c", script, "sh")


def full(relay: Relay) -> tuple[str, ...]:
    """Run a command that sees the spool on a filesystem without a free page; the end is in `spool.after`."""
    spool, small = relay.spool, relay.directory / "small"
    script = (
        f"mkdir {small} && mount -t tmpfs -o size=64k none {small} && cp -a {spool}/. {small}"
        f" && mount --bind {small} {spool}"
        f"; dd if=/dev/zero of={spool}/filler bs=4k 2>/dev/null"
        f'; "$@"; code=$?; rm {spool}/filler; umount {spool}; cp -a {small} {spool}.after; exit $code'
    )
    return (*with_own_mounts(), "sh", "-c", script, "sh")
