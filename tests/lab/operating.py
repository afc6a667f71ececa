"""Whoever acts on a spool beside the flow of mail: the operator, hands, other users, what rotates tokens."""

import asyncio
import stat
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from spools.walk import parse

from lab import judge
from lab.disk import Disk
from lab.forged import HOME, NAMES, message
from lab.hops import Planted
from lab.status import UID
from lab.story import Command, Plant
from lab.submitting import open_spool
from lab.world import World
from mailer.spool.checks import fsck
from mailer.spool.directory import Spool
from mailer.spool.entry import Corrupt
from mailer.spool.locked_message import Missed, Unsafe
from mailer.spool.run.operate import Operator, Refused
from mailer.spool.scan import find
from mailer.spool.state import pause, suppression, token_store
from mailer.spool.state.token_store import Tokens

ACCOUNT = "login.example.net"


def operator(commands: Iterable[Command]) -> Callable[[World], Awaitable[None]]:
    """Somebody at the command line."""

    async def main(world: World) -> None:
        with open_spool() as spool:
            who = Operator(spool, "operator")
            began = world.scheduler.now
            for command in sorted(commands, key=lambda command: command.after):
                await asyncio.sleep(max(0.0, began + command.after - world.scheduler.now))
                world.log.version += 1
                if command.verb == "copy":
                    _copy(world, command)
                elif command.verb == "fsck":
                    examine(world, spool)
                elif command.verb in {"suppress", "restore"}:
                    _list(world, spool, command)
                elif not command.token:
                    _switch(world, spool, command.verb)
                else:
                    with suppress(Missed, Unsafe, Refused, Corrupt, OSError):
                        _command(world, spool, who, command)

    return main


def _command(world: World, spool: Spool, who: Operator, command: Command) -> None:
    log, token = world.log, command.token
    name = world.id_of(token)
    for spot in find(spool, name) if name else []:
        log.kept.discard(token)
        match command.verb:
            case "retry":
                log.reopened[token] += 1
                who.retry(spot, world.wall())
            case "hasten":
                log.reopened[token] += 1
                who.hasten(spot, world.wall())
            case "hold":
                log.held.append(token)
                who.hold(spot, world.wall())
                log.kept.add(token)
            case "release":
                who.release(spot, world.wall())
            case "rm":
                log.removed.append(token)
                who.remove(spot)
                log.gone.add(token)
        log.version += 1


async def hold_again(world: World) -> None:
    """Give a `hold` again that has not ended: of mail that failed, no run finishes it."""
    with open_spool() as spool:
        for token in sorted({*world.log.held} - world.log.kept):
            file = judge.file_of(world.disk, token)
            for spot in find(spool, file.name) if file else ():
                with suppress(Missed, Refused):
                    Operator(spool, "operator").hold(spot, world.wall())


def _switch(world: World, spool: Spool, verb: str) -> None:
    world.log.paused[0] = None
    with suppress(OSError):
        if verb == "pause":
            pause.pause(spool, world.wall(), "operator")
        else:
            pause.resume(spool)
        world.log.paused[0] = verb == "pause"
    world.log.version += 1


def _list(world: World, spool: Spool, command: Command) -> None:
    """Put an address on the suppression list, or take it off."""
    log, address = world.log, command.to
    log.listed[address] = None
    with suppress(OSError):
        if command.verb == "suppress":
            suppression.add(spool, [suppression.Entry(address=suppression.key(address))])
            log.listed[address] = world.time()
        else:
            suppression.remove(spool, [suppression.key(address)])
    log.version += 1


def examine(world: World, spool: Spool) -> None:
    """Run `fsck`: mail in motion, and what faults leave once runs have ended, is no finding."""
    for finding in fsck.findings(spool, world.wall()):
        if not _is_interrupted(world, finding):
            world.log.violations.append(f"fsck: {finding.path} {finding.problem}")


def _is_interrupted(world: World, finding: fsck.Finding) -> bool:
    """Tell whether a fault came between the line of a command and its move: the operator gives it again."""
    if "misfiled" not in finding.problem:
        return False
    data = world.disk.tree()[f"{judge.SPOOL}{finding.path}"].data
    return parse(data, finding.path).kinds[-1] in {"requeued", "released"}


def _copy(world: World, command: Command) -> None:
    """`cp -p` to another place, and `sync`."""
    found = judge.file_of(world.disk, command.token)
    tree = world.disk.tree()
    target = f"{judge.SPOOL}{command.to}/{found.name}" if found else ""
    if found and target not in tree and not world.disk.full:
        path = "/".join(part for part in (found.place, found.bucket, found.name) if part)
        world.disk.plant(target, tree[f"{judge.SPOOL}{path}"].data)
        world.log.copies[command.token] += 1
        without = (to for to, status in found.statuses.items() if status != "sent")
        world.log.copied.update((command.token, to) for to in without)


def plant(plants: Iterable[Plant]) -> Callable[[World], Awaitable[None]]:
    """Somebody who can write into the spool, and should not."""

    async def main(world: World) -> None:
        began = world.scheduler.now
        for number, one in enumerate(plants):
            await asyncio.sleep(max(0.0, began + one.after - world.scheduler.now))
            _plant(world, one.kind, f"{judge.SPOOL}{one.place}/{NAMES[number]}", NAMES[number])
            world.log.version += 1

    return main


def _plant(world: World, kind: str, path: str, name: str) -> None:
    disk = world.disk
    if path in disk.tree():
        return
    match kind:
        case "link":
            disk.plant(f"{HOME}/{name}", message(name))
            node = disk.plant(path, f"/lab{HOME}/{name}".encode(), stat.S_IFLNK | 0o777)
        case "hardlink":
            node = disk.plant(path, message(name))
            _also(disk, node.number, f"{HOME}/{name}")
        case "directory":
            node = disk.plant(path, b"", stat.S_IFDIR | 0o700)
        case "fifo":
            node = disk.plant(path, b"", stat.S_IFIFO | 0o600)
        case _:
            node = disk.plant(path, message(name), owner=UID + 1)
    world.log.planted[name] = Planted(kind, path.removeprefix(judge.SPOOL), node.number)


def _also(disk: Disk, number: int, path: str) -> None:
    """Give a file another name, durably."""
    disk.plant(f"{path}.", b"")
    directory, _, name = path.rpartition("/")
    parent = disk.inodes[1]
    for part in directory.strip("/").split("/"):
        assert parent.entries is not None
        parent = disk.inodes[parent.entries[part]]
    assert parent.entries is not None
    parent.entries[name] = parent.durable_entries[name] = number
    disk.inodes[number].links += 1


async def rotate(world: World) -> None:
    """Get another refresh token for the one that there is, as a program that sends does."""
    with open_spool() as spool, suppress(OSError), token_store.locked(spool, ACCOUNT) as mine:
        if mine:
            known = token_store.read(spool, ACCOUNT)
            world.log.violations += judge.token_of_account(world.log, known.refresh)
            await asyncio.sleep(0.05)
            store_another(world, spool)


def store_another(world: World, spool: Spool) -> None:
    """Keep what the server gives, which ends what it gave before."""
    refresh = f"token{len(world.log.tokens)}"
    world.log.tokens.append(refresh)
    world.log.version += 1
    token_store.write(spool, ACCOUNT, Tokens(account=ACCOUNT, refresh=refresh))
    world.log.stored.append(refresh)
    world.log.version += 1


async def first_token(world: World) -> None:
    with open_spool() as spool:
        store_another(world, spool)
