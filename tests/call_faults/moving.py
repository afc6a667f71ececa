"""`mailer spool move`: two programs and two spools, and one of the programs meets the fault.

The source starts the target, as it would by ssh. Here that is a shell that only waits, and the program which
the lab has in hand works on the shell's pipes: so each of the two can be watched without the other.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from pathlib import Path

from spools.walk import walk
from testbed.forked import Program, open_gate
from testbed.waiting import until

from call_faults.scene import Scene, queued
from call_faults.world import World, due


class Side(Enum):
    """Which program meets the fault."""

    SOURCE, TARGET, NEITHER = "source", "target", "neither"


def move(world: World, _scene: Scene, side: Side) -> None:
    """Move mail that waits, is deferred, is held and has failed; then finish the move, and move the rest."""
    _add_target(world)
    queued(world, "never.eve@example.net")
    world.run("mailer-send", "--once")
    deferred = queued(world, "bob@example.net")
    due(world.spool, deferred, "bob@example.net")
    held = queued(world, "cat@example.net")
    world.run("mailer", "spool", "hold", held)
    world.mails[-1].held = True
    queued(world, "ann@example.net")
    ids = set(walk(world.spool))
    status, said = _move(world, side, "--all")
    if world.harmless and status:
        world.wrong.append(f"move ended with {status}: {said}")
    world.wrong += _false(world, said, ids)
    # What is between the spools is sent by neither.
    for spool in world.spools:
        world.run_on(spool, "mailer-send", "--once")
    for again in ("--resume", "--all"):
        if found := _move(world, Side.NEITHER, again):
            status, said = found
            if status:
                world.wrong.append(f"move {again} ended with {status} when the fault was over: {said}")


def on_one_side(world: World, _scene: Scene) -> Iterator[str]:
    """What a runner does not send is where it was to go, and there only."""
    source, target = (walk(spool) for spool in world.spools)
    yield from (f"left behind in {found.place}: {found.kinds}" for found in source.values())
    for place, to in (("failed", "never.eve@example.net"), ("hold", "cat@example.net")):
        if (places := [found.place for found in target.values() if to in found.recipients]) != [place]:
            yield f"the mail to {to} that was in {place}/ is in {places} of the other spool"
    yield from (f"between the spools: {found.kinds}" for found in target.values() if found.is_parked)


def _add_target(world: World) -> None:
    # Its path begins as the other one's, so that the calls of both programs are seen to be on the spool.
    target = world.spool.with_name(world.spool.name + "-two")
    config = world.directory / "config-two.json"
    config.touch(mode=0o600)
    settings = json.loads(world.relay.config.read_text()) | {"spoolDir": str(target)}
    config.write_text(json.dumps(settings))
    world.spools[target] = config
    world.claimed = 4


def _false(world: World, said: str, ids: set[str]) -> Iterator[str]:
    """Compare what the command has said of each message with where it is."""
    source, target = (walk(spool) if spool.exists() else {} for spool in world.spools)
    for name in ids:
        here, there = source.get(name), target.get(name)
        mine = here is not None and not here.is_parked
        theirs = there is not None and there.intact and not there.is_parked
        if mine and theirs:
            yield f"{name} is on both sides"
        if here is None and not theirs:
            yield f"{name} is on neither side"
        result = next((line.split()[1].rstrip(":") for line in said.splitlines() if name in line), "")
        if result == "moved" and (here or not theirs):
            yield f"{name} was moved, it said, and is not"
        if result in {"refused", "failed", "busy"} and not mine:
            yield f"{name} is where it was, it said, and is not"


def _move(world: World, side: Side, *how: str) -> tuple[int, str]:
    """Run both programs to their ends; return how the source ended, and what it printed."""
    world.ran += 1
    door = world.directory / f"{world.ran}-door.gate"
    os.mkfifo(door)
    argv = ("mailer", "spool", "move", *how, "--via", f"sh -c ': <{door}' receive-moved")
    if side is not Side.SOURCE:
        source = world.program(*argv)
        _have_received(world, source, door, side)
        return world.end(source), source.said
    source = world.gated(*argv)
    with world.watched(source):
        source.begin()
        _have_received(world, source, door, side)
        world.ended(source)
    return world.status or 0, source.said


def _have_received(world: World, source: Program, door: Path, side: Side) -> None:
    """Run the target when the source has started it; nothing happens if the source ends before."""
    shell = until(lambda: _shell(source.pid) or (not source.running and -1), "the source to start the target")
    if shell < 0:
        return
    target_spool = list(world.spools)[1]
    argv = ("mailer", "spool", "receive-moved", "--spool", str(target_spool))
    ends = {"given": Path(f"/proc/{shell}/fd/0"), "answers": Path(f"/proc/{shell}/fd/1")}
    if side is Side.TARGET:
        target = world.gated(*argv, **ends)
    else:
        target = world.program(*argv, gate=True, **ends)
        target.await_gate()
    until(lambda: open_gate(door) or not Path(f"/proc/{shell}").exists(), "the shell to end")
    if side is not Side.TARGET:
        target.begin()
        world.end(target)
        return
    with world.watched(target):
        target.begin()
        world.ended(target)


def _shell(pid: int) -> int:
    """Return the process that another one has started and that runs its program by now; 0: there is none."""
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                if Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"sh\0"):
                    return int(child)
    return 0
