"""A write that the disk refuses, of which another process's fsync has heard first.

The kernel tells each open file once of an error since it was opened (ext4 without a journal), or nobody any
more: where a journal, or a tree, could not be written, the filesystem takes no change from then on, and an
fsync of what was changed before says that all is well. (*Measured on Linux 6.18: on ext4, xfs and btrfs the
first fsync said EIO, that of a descriptor opened long before said 0, and the rename was lost.*) So after each
fsync of a directory it is seen that the filesystem still takes changes.
"""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from spools.strategies import NOW, envelope
from testbed.capability import forbidden
from testbed.filesystem import FILE_SYSTEMS
from testbed.write_log_disk import WriteLogDisk

from mailer.spool.changes import make_durable
from mailer.spool.directory import Spool
from mailer.spool.incoming import Incoming

_NEEDED = ("/dev/fuse", "/dev/loop-control")
_SYNC = """
import os, sys
try:
    os.fsync(os.open(sys.argv[1], os.O_RDONLY))
except OSError as error:
    print(error.strerror)
"""

pytestmark = pytest.mark.usefixtures("unmeasured")


@contextmanager
def spool_on(system: str, tmp_path: Path) -> Iterator[tuple[Spool, WriteLogDisk]]:
    if os.geteuid() != 0 or not all(map(os.path.exists, _NEEDED)):
        forbidden("mount file systems", f"that takes root, and {' and '.join(_NEEDED)}")
    kind = FILE_SYSTEMS[system]
    kind.create(tmp_path / "image")
    with (
        WriteLogDisk(tmp_path, tmp_path / "image") as disk,
        kind.mounted(disk.device, tmp_path / "mount") as mount,
        Spool.open(mount / "spool", create=True) as spool,
    ):
        spool.keep_directories()
        yield spool, disk


def begun(spool: Spool) -> Incoming:
    incoming = Incoming.create(spool, received=NOW, user="", peer="", envelope=envelope())
    incoming.write(b"x")
    incoming.seal(NOW)
    return incoming


@pytest.mark.parametrize("system", FILE_SYSTEMS)
def test_a_failed_sync_that_another_process_heard_of_first_is_not_taken_for_success(
    system: str, tmp_path: Path
) -> None:
    """A client would be told 250 for a message that no power cut leaves."""
    with spool_on(system, tmp_path) as (spool, disk):
        make_durable(spool, first := begun(spool))
        first.release()
        incoming = begun(spool)
        incoming.sync()
        disk.fail(("write", 0, FILE_SYSTEMS[system].size))
        incoming.move()
        incoming.release()
        command = [sys.executable, "-c", _SYNC, str(spool.path / "new")]
        heard = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        try:
            spool.sync_directory("new")
        except OSError as error:
            said = error.errno
        else:
            said = 0
        disk.fail()
    assert heard == "Input/output error\n"
    assert said in {errno.EIO, errno.EROFS}
