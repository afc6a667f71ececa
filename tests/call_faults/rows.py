"""The commands of the product, one a row: what it is given to do, and what must hold afterwards."""

from collections.abc import Iterator
from functools import partial

from spools.walk import walk

from call_faults import accepting, keeping, moving, verbs
from call_faults.scene import Row, Scene, queued, through
from call_faults.world import World, due


def _send(world: World, _scene: Scene) -> None:
    queued(world, "ann@example.net", "bob@example.net")
    queued(world, "cat@example.net", "later.dan@example.net")
    world.faulted("mailer-send", "--once")


def _bounce(world: World, _scene: Scene) -> None:
    queued(world, "ann@example.net", "never.bob@example.net")
    world.faulted("mailer-send", "--once")


def _retry(world: World, _scene: Scene) -> None:
    for to in ("ann@example.net", "bob@example.net"):
        due(world.spool, queued(world, to), to)
    world.faulted("mailer-send", "--once")


def _archived(world: World, _scene: Scene) -> Iterator[str]:
    kept = {to for found in walk(world.spool, ("sent",)).values() for to in found.recipients}
    if missing := {to for mail in world.mails for to in mail.to} - kept:
        yield f"no copy of the mail to {missing} is in sent/"


def _archive(world: World, _scene: Scene) -> None:
    queued(world, "ann@example.net", "bob@example.net")
    queued(world, "cat@example.net")
    world.faulted("mailer-send", "--once")


ROWS = {
    row.name: row
    for row in (
        Row("accept", "`mailer serve`: three messages", accepting.accept,
            lambda scene, _: through(scene, longLines="quotedPrintable")),
        Row("accept-keyed", "the same with an Idempotency-Key, and all again",
            partial(accepting.accept, header=b"Idempotency-Key: key-%d\r\n"),
            lambda scene, _: through(scene, longLines="quotedPrintable")),
        Row("send", "`mailer-send`: sent and deferred", _send),
        Row("bounce", "`mailer-send`: bounced, with its notification", _bounce),
        Row("retry", "`mailer-send`: swept from retry/ and sent", _retry),
        Row("archive", "`mailer-send`: copies to sent/", _archive,
            lambda scene, _: through(scene, security={"logAllEmails": True}), _archived),
        Row("spool-hold", "`mailer spool hold`", partial(verbs.verb, verb="hold"), check=verbs.held),
        Row("spool-release", "`mailer spool release`", partial(verbs.verb, verb="release")),
        Row("spool-retry", "`mailer spool retry`", partial(verbs.verb, verb="retry")),
        Row("spool-rm", "`mailer spool rm`", partial(verbs.verb, verb="rm")),
        Row("spool-replay", "`mailer spool replay`", verbs.replay),
        Row("spool-replay-once", "the same request twice", partial(verbs.replay, once="request-1")),
        Row("move-out", "`mailer spool move`: the spool that mail leaves",
            partial(moving.move, side=moving.Side.SOURCE), check=moving.on_one_side),
        Row("move-in", "`mailer spool receive-moved`: the spool that it comes to",
            partial(moving.move, side=moving.Side.TARGET), check=moving.on_one_side),
        Row("suppress-add", "`mailer suppress add`", partial(verbs.suppress, verb="add"),
            check=partial(verbs.listed, verb="add")),
        Row("suppress-rm", "`mailer suppress rm`", partial(verbs.suppress, verb="rm"),
            check=partial(verbs.listed, verb="rm")),
        Row("pause", "`mailer pause`", partial(verbs.pause, verb="pause")),
        Row("resume", "`mailer resume`", partial(verbs.pause, verb="resume")),
        Row("drop-leave", "`mailer-sendmail` into drop/", accepting.leave,
            accepting.with_drops, accepting.taken),
        Row("drop-take", "`mailer-send`: takes drop/ in", accepting.take_in,
            accepting.with_drops, accepting.taken),
        Row("tokens", "`mailer-send`: a refresh token is replaced", keeping.token,
            keeping.by_token, keeping.renewed),
        Row("budgets", "`mailer-send`: an allowance of 3", keeping.budget, keeping.in_budget),
        Row("events", "`mailer-send`: `onEvent` is told", keeping.events, keeping.telling, keeping.heard),
    )
}  # fmt: skip
