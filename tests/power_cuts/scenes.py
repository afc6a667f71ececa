"""What goes on while a power-cut disk records: clients, destinations, an operator, and long silences.

A silence is where the kernel may take its time over what nobody synced. So each scene has its messages at a
few moments, and nothing between them.
"""

from typing import Any

from outbound.sending import forward_to
from testbed.ports import LOOPBACK
from testbed.relay import USERNAME

from power_cuts.mail import USER, MailScene, Stage
from power_cuts.promises import ALLOWED, RATIONED, SUPPRESSED
from power_cuts.toy import ToyScene
from power_cuts.world import DNS_PORT, ONE, SMTP_PORT

_COMMON: dict[str, Any] = {
    "bounce": "sender",
    "retry": {"schedule": ["5s"], "maxAge": "5d"},
    "minFreeSpace": "1MiB",
    "dns": {"nameservers": [f"{LOOPBACK}:{DNS_PORT}"], "timeout": "5s"},
}


def _traffic(stage: Stage) -> None:
    """Two destinations, one that never says a word, one that never answers the dot; a runner that stays."""
    stage.serve()
    stage.watch()
    stage.at(1)
    stage.submit("plain", "ann@one.test")
    stage.submit("both", "bob@one.test", "bob@two.test")
    stage.submit("later", "later.cat@one.test")
    stage.submit("never", "never.dan@one.test")
    stage.submit("tarpit", "eve@one.test", "eve@two.test", "eve@tarpit.test")
    stage.submit("slow", "fay@one.test", "fay@two.test", "fay@slow.test")
    stage.submit("held", "later.gus@one.test", "gus@two.test")
    stage.submit("removed", "later.hal@one.test")
    stage.submit("all", "ida@one.test", "later.ida@one.test", "never.ida@one.test")
    stage.at(3)
    stage.order("hold", "held")
    stage.order("rm", "removed")
    stage.at(7)
    stage.submit("second", "jim@one.test", "later.jim@two.test")
    stage.order("retry", "later")
    # At MINUTE_AT what was deferred is swept and delivered.
    stage.at(14)
    stage.order("release", "held")
    stage.at(20)
    stage.once()
    stage.submit("third", "kim@two.test")


def _campaign(stage: Stage) -> None:
    """One provider that gets one recipient at a time; delivered mail is kept."""
    stage.serve()
    stage.watch()
    stage.at(1)
    recipients = [f"r{number}@one.test" for number in range(40)]
    stage.submit("campaign", *recipients[:20], "never.r@one.test", "later.r@one.test", *recipients[20:])
    stage.at(13)
    stage.submit("beside", "ann@two.test", "later.ann@two.test")
    stage.at(24)
    stage.submit("last", "bob@two.test")


def _local(stage: Stage) -> None:
    """Everything is kept in the local Maildir; the runner comes by cron."""
    stage.serve()
    stage.at(1)
    stage.submit("early", "ann@one.test")
    stage.submit("held", "bob@one.test", "bob@two.test")
    stage.submit("removed", "cat@one.test")
    stage.order("hold", "held")
    stage.order("rm", "removed")
    stage.at(4)
    stage.once()
    stage.at(7)
    stage.submit("second", "dan@one.test", "dan@two.test")
    stage.submit("third", "eve@one.test")
    stage.at(11)
    stage.once()
    stage.at(13)
    stage.order("release", "held")
    stage.at(16)
    stage.once()
    stage.submit("fourth", "fay@one.test")
    stage.at(20)
    stage.once()


def _quiet(stage: Stage) -> None:
    """One message at a time, so that nothing else makes it durable that one is gone."""
    stage.serve()
    stage.watch()
    stage.at(1)
    stage.submit("first", "ann@one.test", "ann@two.test")
    stage.at(5)
    stage.submit("later", "later.bob@one.test")
    # At MINUTE_AT it is swept and delivered.
    stage.at(17)
    stage.submit("second", "cat@one.test")
    stage.at(21)
    stage.submit("never", "never.dan@one.test")
    stage.at(25)
    stage.submit("third", "eve@one.test")
    stage.submit("fourth", "eve@two.test")


def _brief(stage: Stage) -> None:
    """Mail that waits for its runner, and then silence: nothing makes durable what a program did not."""
    stage.serve()
    stage.at(1)
    stage.submit("first", "ann@one.test", "ann@two.test")
    stage.submit("second", "bob@one.test")
    stage.at(6)
    stage.watch()


def _promises(stage: Stage) -> None:
    """Users' drops, keys, an allowance, the suppression list, and somebody who is told of all."""
    with stage.relay.serve(under=stage.clock):
        pass
    stage.at(1)
    stage.leave("drop-one", "ann@one.test")
    stage.leave("drop-two", "bob@two.test")
    stage.at(3)
    stage.once()
    stage.at(6)
    stage.leave("drop-three", "cat@one.test")
    stage.serve()
    stage.watch()
    stage.submit("keyed-one", "dan@one.test", key="keyed-one")
    stage.submit("rationed-one", "eve@few.test", "fay@few.test")
    stage.submit("before", SUPPRESSED)
    stage.at(10)
    stage.books.wait_for("delivered", "before")  # what has been offered to a server is still sent
    stage.suppress(SUPPRESSED)
    stage.submit("after", SUPPRESSED)
    stage.submit("keyed-two", "later.gus@one.test", key="keyed-two")
    stage.at(15)
    stage.submit("rationed-two", "hal@few.test", "ida@few.test", "jim@few.test")
    stage.submit("keyed-three", "kim@two.test", key="keyed-three")
    stage.at(22)
    stage.submit("rationed-three", "lea@few.test")


_DIRECT = {"directDelivery": {"enabled": True, "port": SMTP_PORT, "allowPrivate": True}, "batchDelay": 0}
_FORWARD = forward_to(forwardProviders=[{"host": ONE, "port": SMTP_PORT}])
_ONE_BY_ONE = {"batchSize": 1, "batchDelay": 500, "security": {"logAllEmails": True}}
_RATIONED = {
    "domainBudgets": [{"domains": [RATIONED], "maxPerDay": ALLOWED}],
    "localUsers": [{"login": str(USER), "user": USERNAME}],
}
MAIL = (
    MailScene("traffic", _COMMON | _DIRECT, _traffic),
    MailScene("quiet", _COMMON | _DIRECT, _quiet),
    MailScene("campaign", _COMMON | _FORWARD | _ONE_BY_ONE, _campaign),
    MailScene("local", _COMMON | {"forwardSMTP": False}, _local),
    MailScene("promises", _COMMON | _DIRECT | _RATIONED, _promises, promises=True),
)
BRIEF = MailScene("brief", _COMMON | _DIRECT, _brief, seconds=15.0)
"""For what is wrong in a way that any scene shows."""
TOYS = (ToyScene("careful"), ToyScene("careless"))
SCENES = {scene.name: scene for scene in (*MAIL, BRIEF, *TOYS)}
