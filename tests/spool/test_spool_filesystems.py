"""Where a spool may be: on what this machine alone keeps, and on nothing that merely might be so."""

import os
import sys
from pathlib import Path

import pytest
from testbed.capability import with_own_mounts
from testbed.doctor_findings import examined
from testbed.relay import Relay

from mailer.mail.finding import Grade
from mailer.spool.checks import probe
from mailer.spool.directory import Spool
from mailer.spool.filesystems import LOCAL, filesystem_of, refusal
from mailer.spool.syscalls import mount_at

_MOUNT = str(Path(__file__).parents[1] / "testbed" / "fuse_mount.py")


def mounted(kind: str, place: Path) -> tuple[str, ...]:
    """The command under which another sees a FUSE filesystem of this kind there."""
    place.mkdir()
    return (*with_own_mounts(), sys.executable, _MOUNT, kind, str(place))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("fuse.glusterfs", "a filesystem over a network that has granted one lock to two clients"),
        ("fuse.ceph-fuse", "a filesystem over a network, where two hosts that append to one file"),
        ("fuse.sshfs", "a filesystem over a network"),
        ("fuse.novel", "not known to be reliable"),
        ("fuse", "not known to be reliable"),
    ],
)
def test_no_program_starts_on_a_filesystem_of_a_network(relay: Relay, kind: str, why: str) -> None:
    under = mounted(kind, relay.spool)
    for command in (["serve"], ["monitor"], ["spool", "ls"]):
        relay.configure({"enableHealthCheck": True, "healthCheckPort": relay.http_port})
        done = relay.mailer(*command, under=under)
        assert done.returncode == 69, done.stderr
        assert f"{relay.spool} is on {kind}, " in done.stderr
        assert why in done.stderr
        assert "set spoolDir to a directory on a local filesystem" in done.stderr
    assert relay.mailer_send("--once", under=under).returncode == 75


def test_no_host_joins_on_a_filesystem_that_hosts_cannot_share(relay: Relay) -> None:
    """An epoch there would name an owner that can never start."""
    relay.configure({"host": "a"})
    done = relay.mailer("hosts", "join", under=mounted("fuse.sshfs", relay.spool))
    assert done.returncode == 69, done.stderr
    assert f"{relay.spool} is on fuse.sshfs, a filesystem over a network" in done.stderr


def test_the_doctor_names_it_too(relay: Relay) -> None:
    grade, words = examined(relay, mounted("fuse.sshfs", relay.spool))["filesystem"]
    assert grade == "problem"
    assert words.startswith("fuse.sshfs, a filesystem over a network")


_OTHERS = """
    nfs nfs4 cifs smb3 smbfs 9p ceph glusterfs afs lustre beegfs gpfs orangefs ocfs2 gfs2 virtiofs vboxsf
    wekafs acfs novelfs fuse fuse. fuse.glusterfs fuse.sshfs fuse.ceph-fuse fuse.s3fs fuse.rclone
    fuse.mergerfs fuse.bindfs
"""


@pytest.mark.parametrize("kind", _OTHERS.split())
def test_what_is_not_known_to_be_local_is_refused(tmp_path: Path, kind: str) -> None:
    """Those that a list of network filesystems had left out are among them."""
    assert refusal(kind)
    mountinfo = tmp_path / "mountinfo"
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        mine = next(
            line.split()[1]
            for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
            if line.startswith("mnt_id:")
        )
        mountinfo.write_text(
            f"1{mine} 1 0:55 / /other rw - ext4 /dev/sda1 rw\n{mine} 1 0:56 / / rw - {kind} x rw\n"
        )
        mount = mount_at(fd, str(mountinfo))
    finally:
        os.close(fd)
    assert mount.kind == kind
    assert probe._filesystem(tmp_path, mount).grade is Grade.PROBLEM


@pytest.mark.parametrize("kind", LOCAL)
def test_what_is_known_to_be_local_is_taken(tmp_path: Path, kind: str) -> None:
    assert not refusal(kind)


def test_without_proc_a_filesystem_is_known_by_its_number(
    spool_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Spool.open(spool_path, create=True) as spool:
        real = filesystem_of(spool.root)
        assert real.kind in LOCAL
        monkeypatch.setattr("mailer.spool.filesystems.mount_at.__defaults__", ("/nonexistent",))
        monkeypatch.setattr("mailer.spool.filesystems.mount_of.__defaults__", ("/nonexistent",))
        named = filesystem_of(spool.root)
        assert named.options == frozenset()
        assert (named.kind, real.kind) in {(kind, kind) for kind in LOCAL} | {
            ("ext4", "ext2"),
            ("ext4", "ext3"),
        }
