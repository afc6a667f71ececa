"""A receiver and a runner, as small as they can be, to be watched, hindered and killed by strace.

    spools.programs receive SPOOL SIZE...     prints `accepted ID`, `refused CODE` or `open CODE`
    spools.programs run SPOOL                 prints `delivered ID ADDRESS`, `stopped CODE`, `done`
    spools.programs sweep SPOOL NOW           prints `requeued ID`, `removed ID`, `skipped ID REASON`

Each says `ready` when all is imported, and begins when it reads a line: what strace counts begins there.
"""

import ctypes
import os
import sys
from errno import errorcode
from pathlib import Path

from mailer.spool.changes import NotUndone
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool
from mailer.spool.incoming import Incoming
from mailer.spool.layout import Spot
from mailer.spool.run.sweep import clean_tmp, requeue_due
from spools.runner import HORIZON, claims_of, run_once
from spools.strategies import NOW, envelope

_PR_SET_PTRACER = 0x59616D61


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def wait_for_strace() -> None:
    # Where only a parent may trace (Yama), let anybody.
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(2**64 - 1), 0, 0, 0)
    say("ready")
    os.read(0, 1)


def message_of(size: int) -> bytes:
    return (b"%d bytes " % size * (size // 4 + 1))[:size]


def receive(root: Path, sizes: list[int]) -> None:
    with Spool.open(root) as spool:
        spool.keep_directories()  # Its start's calls are not the messages'.
        wait_for_strace()
        committer = Committer(spool).start()
        for size in sizes:
            say(receive_one(spool, committer, message_of(size)))
        committer.close()


def receive_one(spool: Spool, committer: Committer, message: bytes) -> str:
    incoming = None
    try:
        incoming = Incoming.create(
            spool, received=NOW, user="app", peer="127.0.0.1", envelope=envelope("bob@example.net")
        )
        for at in range(0, len(message), 100_000):
            incoming.write(message[at : at + 100_000])
        incoming.seal(NOW)
    except OSError as error:
        if incoming:
            try:
                incoming.discard()
            except OSError:
                return f"refused {errorcode[error.errno or 0]} (left in tmp)"
        return f"refused {errorcode[error.errno or 0]}"
    try:
        committer.commit(incoming).result()
    except NotUndone as error:
        return f"open {errorcode[error.errno or 0]}"
    except OSError as error:
        return f"refused {errorcode[error.errno or 0]}"
    incoming.release()
    return f"accepted {incoming.id}"


def run(root: Path) -> None:
    with Spool.open(root) as spool:
        wait_for_strace()
        try:
            run_once(spool, NOW, lambda name, address: say(f"delivered {name} {address}"))
        except OSError as error:
            say(f"stopped {errorcode[error.errno or 0]}")
        else:
            say("done")


def sweep(root: Path, now: float) -> None:
    def on_skip(spot: Spot, reason: str) -> None:
        say(f"skipped {spot.name} {reason}")

    with Spool.open(root) as spool:
        wait_for_strace()
        try:
            for spot in requeue_due(spool, claims_of(spool, now, on_skip), now, HORIZON):
                say(f"requeued {spot.name}")
            for name in clean_tmp(spool, now, on_skip):
                say(f"removed {name}")
        except OSError as error:
            say(f"stopped {errorcode[error.errno or 0]}")


if __name__ == "__main__":
    verb, path, *arguments = sys.argv[1:]
    if verb == "receive":
        receive(Path(path), [int(size) for size in arguments])
    elif verb == "sweep":
        sweep(Path(path), float(arguments[0]))
    else:
        run(Path(path))
