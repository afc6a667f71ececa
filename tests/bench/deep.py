"""Deep queues, made at once instead of by submission: a million messages would take a quarter of an hour."""

import os
import shutil
import time
from pathlib import Path

from testbed.waiting import until

from bench.load import RECIPIENT, SENDER
from bench.servers import OfPostfix
from mailer.mail import clock
from mailer.mail.envelope import Envelope, Recipient
from mailer.spool import journal
from mailer.spool.directory import Spool
from mailer.spool.incoming import Incoming
from mailer.spool.journal import Event, Kind
from mailer.spool.layout import Place, bucket_for

_BODY = b"Subject: bench\r\n\r\n" + b"X" * 70 + b"\r\n"
_LATER = 3600.0
"""Seconds until the first of them is due; then one minute's worth after the other."""
_PER_BUCKET = 1000
_MOST_BUCKETS = 120
"""What is due later than the longest back-off from now, 4 h, is a clock's mistake: it is due at once."""


def fill_new(root: Path, messages: int) -> None:
    """Put messages into a spool's `new/`."""
    with Spool.open(root, create=True) as spool:
        for _ in range(messages):
            _write(spool, time.time())


def fill_retry(root: Path, messages: int) -> None:
    """Put messages into a spool's `retry/`, deferred once and not due for an hour and more."""
    now = time.time()
    per_bucket = max(_PER_BUCKET, -(-messages // _MOST_BUCKETS))
    with Spool.open(root, create=True) as spool:
        for number in range(messages):
            due = now + _LATER + 60 * (number // per_bucket)
            bucket = bucket_for(due)
            if number % per_bucket == 0:
                (root / Place.RETRY / bucket).mkdir(mode=0o700, exist_ok=True)
            name = _write(spool, now, _deferred(now, due))
            (root / Place.NEW / name).rename(root / Place.RETRY / bucket / name)


def _deferred(now: float, due: float) -> bytes:
    event = Event(
        at=clock.rfc3339(now),
        event=Kind.DEFERRED,
        to=(RECIPIENT,),
        hop="mx.example.net[192.0.2.1]:25",
        reply="451 4.7.1 Greylisted",
        scope="recipient",
        attempt=1,
        next=clock.rfc3339(due),
    )
    return journal.encode(event)


def _write(spool: Spool, now: float, lines: bytes = b"") -> str:
    """Write a message as the receiver does, but do not wait for the disk; return its id."""
    envelope = Envelope(SENDER, (Recipient(RECIPIENT),))
    incoming = Incoming.create(spool, received=now, user="", peer="127.0.0.1", envelope=envelope)
    incoming.write(_BODY)
    incoming.seal(now)
    incoming.move()
    incoming.release()
    if lines:
        with (spool.path / Place.NEW / incoming.id).open("ab") as file:
            file.write(lines)
    return incoming.id


def fill_postfix(server: OfPostfix, messages: int) -> None:
    """Copy the one message that Postfix has deferred so many times.

    The reason, which `postqueue -p` prints, is a file of its own beside each message, in `defer/`.
    """
    assert server.postfix is not None
    queue = server.postfix.queue
    until(lambda: all(list(queue.glob(f"{of}/*/*")) for of in _OF_ONE), "Postfix to defer a message")
    originals = [path for of in _OF_ONE for path in queue.glob(f"{of}/*/*")]
    later = time.time() + _LATER
    for number in range(messages):
        name = f"{number % 16:X}{number:09X}"
        for original in originals:
            # As Postfix hashes it: by the first digit of the id.
            directory = original.parents[1] / name[0]
            if not directory.exists():
                directory.mkdir()
                _like(directory, original.parent)
            copy = directory / name
            shutil.copyfile(original, copy)
            _like(copy, original)
            os.utime(copy, (later, later))


_OF_ONE = ("deferred", "defer")


def _like(path: Path, original: Path) -> None:
    state = original.stat()
    path.chmod(state.st_mode)
    os.chown(path, state.st_uid, state.st_gid)
