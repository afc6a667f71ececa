"""A bad sector under a file of the spool: EIO is no emptiness, and where a read stops no end of the file.

The disk really fails: a file system on a device that answers EIO to what touches a range.
"""

import fcntl
import json
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest
from outbound.hostile import Server
from outbound.sending import MESSAGE, TO, forward_to, found, queue
from testbed.capability import forbidden
from testbed.filesystem import FILE_SYSTEMS
from testbed.relay import Relay
from testbed.write_log_disk import WriteLogDisk

from mailer.mail import clock
from mailer.spool.directory import Spool
from mailer.spool.journal import Event, Kind
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import LockedMessage

_FIBMAP = 1
_BLOCK = 4096
_NEEDED = ("/dev/fuse", "/dev/loop-control")
TROUBLE = "Input/output error"
MANY = tuple(f"recipient-with-quite-a-long-name-{number:03}@example.net" for number in range(60))
SMALL, LARGE = 8_000, 300_000
"""Octets of a message: its file is read at once, and piece by piece."""

pytestmark = pytest.mark.usefixtures("unmeasured")


class Disk:
    """An ext4 on a disk whose sectors can be made bad."""

    def __init__(self, disk: WriteLogDisk, directory: Path) -> None:
        self._disk = disk
        self._directory = directory

    def mounted(self) -> AbstractContextManager[Path]:
        """Mount it with nothing of it in memory, while the block runs."""
        return FILE_SYSTEMS["ext4"].mounted(self._disk.device, self._directory)

    def spoil(self, block: int) -> None:
        self._disk.fail(("read", block * _BLOCK, _BLOCK))

    def mend(self) -> None:
        self._disk.fail()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0 or not all(map(os.path.exists, _NEEDED)):
        forbidden("mount file systems", f"that takes root, and {' and '.join(_NEEDED)}")
    FILE_SYSTEMS["ext4"].create(tmp_path / "image")
    with WriteLogDisk(tmp_path, tmp_path / "image") as device:
        yield Disk(device, tmp_path / "mount")


@pytest.fixture
def relay(tmp_path: Path) -> Relay:
    (tmp_path / "relay").mkdir()
    relay = Relay(tmp_path / "relay")
    relay.spool = tmp_path / "mount" / "spool"
    relay.configure({"spoolDir": str(relay.spool)})
    return relay


def block_of(file: Path, offset: int) -> int:
    """Where on the disk the block with this octet of a file is."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        answer = fcntl.ioctl(opened.fileno(), _FIBMAP, struct.pack("i", offset // _BLOCK))
    [block] = struct.unpack("i", answer)
    assert block > 0, f"{file} has no block at {offset}"
    return int(block)


def in_header(file: bytes) -> int:
    return file.index(b"\r\nSpool-Length: ")


def in_body(file: bytes) -> int:
    return file.index(b"the middle")


def in_journal(file: bytes) -> int:
    return file.index(b'"event":"sent"')


def put(relay: Relay, size: int) -> str:
    """A message of which the first recipient was sent, as a line says that stands far down in its journal."""
    middle = b"x" * 70 + b"\r\n"
    half = middle * (size // len(middle) // 2)
    message_id = queue(relay.spool, MANY, MESSAGE + half + b"the middle\r\n" + half)
    now = clock.rfc3339(time.time())
    trouble = Event(at=now, event=Kind.TROUBLE, to=MANY[1:3], hop="other.example:25", reply="gone " * 100)
    sent = Event(at=now, event=Kind.SENT, to=MANY[:1], hop="other.example:25", reply="250 ok", attempt=1)
    with Spool.open(relay.spool) as spool, LockedMessage.lock(spool, Spot(Place.NEW, message_id)) as locked:
        locked.append(*[trouble] * (2 if size == SMALL else 6))
        locked.append(sent)
        locked.sync()
    return message_id


@contextmanager
def spoiled(
    disk: Disk, relay: Relay, size: int, where: Callable[[bytes], int]
) -> Iterator[tuple[str, Server]]:
    """With a bad sector under one of three messages, and a server that takes them."""
    with Server() as server:
        with disk.mounted():
            relay.configure(forward_to(server))
            queue(relay.spool)
            damaged = put(relay, size)
            queue(relay.spool)
            file = relay.spool / "new" / damaged
            content = file.read_bytes()
            assert (len(content) < 16 * 1024) == (size == SMALL)
            assert in_header(content) // _BLOCK < in_body(content) // _BLOCK < in_journal(content) // _BLOCK
            block = block_of(file, where(content))
        disk.spoil(block)
        with disk.mounted():
            yield damaged, server


@pytest.mark.fault_row(31)
@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("where", [in_header, in_body, in_journal])
def test_a_message_on_a_bad_sector_is_skipped_and_reported_while_others_flow(
    where: Callable[[bytes], int], size: int, disk: Disk, relay: Relay
) -> None:
    with spoiled(disk, relay, size, where) as (damaged, server):
        for _ in range(2):
            done = relay.mailer_send("--once")
            assert [to for to, _ in server.delivered()] == [TO, TO]
            assert [line for line in done.stderr.splitlines() if TROUBLE in line and damaged in line]
            # In new/, each look of a run would claim it anew.
            assert [path.parent.name for path in relay.spool.glob(f"*/{damaged}")] == ["cur"]
            assert [*relay.spool.glob("corrupt/*")] == []
        disk.mend()
        assert relay.mailer_send("--once").returncode == 0
        assert sorted(to for to, _ in server.delivered()) == sorted([TO, TO, *MANY[1:]])
        assert found(relay.spool, damaged) is None
        [day] = relay.spool.glob("log/*.jsonl")
        lines = map(json.loads, day.read_text().splitlines())
        told = [line["event"] for line in lines if line.get("id") == damaged]
        # Where the end of its journal cannot be read, nobody can say later that no runner has died.
        assert ("recovered" not in told) or where is not in_header


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_listing_does_not_take_a_bad_sector_for_the_end_of_a_journal(
    size: int, disk: Disk, relay: Relay
) -> None:
    with spoiled(disk, relay, size, in_journal) as (damaged, _):
        done = relay.mailer("spool", "ls")
        [line] = [line for line in done.stdout.splitlines() if damaged in line]
        assert TROUBLE in line


def test_a_message_on_a_bad_sector_is_not_shown_in_part(disk: Disk, relay: Relay) -> None:
    with spoiled(disk, relay, LARGE, in_body) as (damaged, _):
        shown = relay.mailer("spool", "show", "--raw", damaged)
        assert shown.returncode != 0
        assert TROUBLE in shown.stderr


def test_a_bad_sector_in_the_ledger_hides_no_line_in_silence(disk: Disk, relay: Relay) -> None:
    with disk.mounted():
        with Server() as server:
            relay.configure(forward_to(server))
            for _ in range(60):
                queue(relay.spool)
            relay.mailer_send("--once")
        [ledger] = relay.spool.glob("log/*.jsonl")
        lines = len(ledger.read_bytes().splitlines())
        assert ledger.stat().st_size > 3 * _BLOCK
        block = block_of(ledger, 2 * _BLOCK)
    disk.spoil(block)
    with disk.mounted():
        search = partial(relay.mailer, "log", "--json")
        done = search()
        assert done.returncode != 0
        assert TROUBLE in done.stderr
        disk.mend()
        assert len(search().stdout.splitlines()) == lines
