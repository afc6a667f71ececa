"""The operator's commands: what one says is done is done, and nothing else."""

import os
from collections.abc import Iterator

from call_faults.scene import Scene, queued
from call_faults.world import SENDER, Mail, World, due
from mailer.spool.directory import Spool
from mailer.spool.state import suppression


def verb(world: World, _scene: Scene, verb: str) -> None:
    ids = [queued(world, to) for to in ("ann@example.net", "bob@example.net")]
    if verb == "retry":
        for each, mail in zip(ids, world.mails, strict=True):
            due(world.spool, each, mail.to[0])
    if verb == "release":
        world.run("mailer", "spool", "hold", *ids)
    status = world.faulted("mailer", "spool", verb, *ids)
    if world.harmless and status:
        world.wrong.append(f"{verb} ended with {status}")
    if verb == "hold":
        for mail in world.mails:
            mail.held = True
    if verb == "rm":
        for mail in world.mails:
            mail.gone, mail.refused = True, status == 0
    if verb == "release" and status:
        world.run("mailer", "spool", "release", *ids)


def held(world: World, _scene: Scene) -> Iterator[str]:
    """What `hold` has said is done, and holds in the runs that come after it."""
    if world.status == 0 and (sent := world.copies()):
        yield f"held, and sent to {list(sent)}"


def replay(world: World, _scene: Scene, once: str = "") -> None:
    """A copy is queued once or not at all, and the original is as it was."""
    original = queued(world, "ann@example.net")
    copy = Mail(("zoe@example.net",))
    world.mails.append(copy)
    command = ("mailer", "spool", "replay", original, "--to", *copy.to, "--sender", SENDER)
    request = (*command, "--once", once) if once else command
    status = world.faulted(*request)
    if world.harmless and status:
        world.wrong.append(f"replay ended with {status}")
    copy.acknowledged, copy.refused = status == 0, status in {os.EX_DATAERR, os.EX_TEMPFAIL}
    if once:
        # Whoever has not heard that it was done asks again.
        copy.acknowledged, copy.refused = True, False
        if status := world.run(*request):
            world.wrong.append(f"replay ended with {status} when the fault was over")


def suppress(world: World, _scene: Scene, verb: str) -> None:
    world.run("mailer-send", "--once")
    world.run("mailer", "suppress", "add", "old@example.net", "bob@example.net")
    names = ("never.ann@example.net", "bob@example.net") if verb == "add" else ("bob@example.net",)
    world.status = world.faulted("mailer", "suppress", verb, *names)


def listed(world: World, _scene: Scene, verb: str) -> Iterator[str]:
    with Spool.open(world.spool) as spool:
        listed = {
            name
            for name in ("old@example.net", "bob@example.net", "never.ann@example.net")
            if suppression.find(spool, name, "2026-11-22T12:00:00.000000Z")
        }
    if "old@example.net" not in listed:
        yield "an entry that nobody touched is gone from the suppression list"
    if verb == "add" and "bob@example.net" not in listed:
        yield "adding an entry again has removed it"
    if verb == "add" and world.status == 0 and "never.ann@example.net" not in listed:
        yield "added, it was said, and is not on the list"
    if verb == "rm" and world.status == 0 and "bob@example.net" in listed:
        yield "removed, it was said, and is on the list"


def pause(world: World, _scene: Scene, verb: str) -> None:
    queued(world, "ann@example.net")
    if verb == "resume":
        world.run("mailer", "pause")
    world.faulted("mailer", verb)
    paused = (world.spool / "state" / "paused").exists()
    if world.status == 0 and paused != (verb == "pause"):
        world.wrong.append(f"{verb} ended with 0, and was not done")
    world.run("mailer", "resume")
