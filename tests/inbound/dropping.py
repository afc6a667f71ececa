"""Mail in `drop/`, and the part of the receiver that takes it in."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping

from spools.crash import InPlace
from spools.runner import run_once
from spools.walk import walk
from testbed.ci import only_root

from inbound.receiving import PASSWORD, USER, login
from mailer.maillog.events import MailLog
from mailer.maillog.stderr import logfmt
from mailer.receive.context import ReceiverContext
from mailer.receive.pickup import Pickup
from mailer.receive.settings import Settings
from mailer.receive.upload import Store
from mailer.receive.users.accounts import single_login
from mailer.receive.users.local_users import LocalUser
from mailer.receive.users.rates import RateLimiter
from mailer.sendmail.drop import hand_over
from mailer.spool.directory import Spool
from mailer.spool.layout import DROP

as_root = only_root("only root can give a file to another user")
TEXT = b"From: app@example.com\r\nSubject: drop\r\n\r\n.hello\r\n"
MAIL, TO = f"MAIL FROM:<{USER}> SIZE={len(TEXT)}", "RCPT TO:<sent@example.net>"
ANN, EVE = 4711, 4712


def leave(spool: Spool, text: bytes = TEXT, *, uid: int | None = None, name: str = "") -> str:
    """Hand a message over; as root also as another user's."""
    made = hand_over(str(spool.path / DROP), [MAIL, TO], text)
    path = spool.path / DROP / made
    if uid is not None:
        os.chown(path, uid, -1)
    if name:
        path.rename(path.with_name(name))
    return name or made


class Receiver:
    """What takes in, with its committer in the caller's thread."""

    def __init__(
        self, spool: Spool, rates: RateLimiter | None = None, limits: Mapping[str, int] | None = None
    ) -> None:
        self.log: list[str] = []
        self.on_line: Callable[[str], object] = lambda _: None
        self._log = MailLog(time.time, lambda _, text, fields: self._note(logfmt(text, fields)))
        users = (LocalUser(USER, uid=os.getuid()), LocalUser(USER, uid=ANN), LocalUser("eve", uid=EVE))
        self._spool = spool
        self._context = ReceiverContext(
            Settings(port=0, **(limits or {})),  # type: ignore[arg-type]
            Store(spool, InPlace(spool), self._log, time.time),
            login(single_login(USER, PASSWORD), single_login("eve", PASSWORD)),
            rates=rates,
            local_users=users,
        )

    def _note(self, line: str) -> None:
        self.log.append(line)
        self.on_line(line)

    def take_in(self, clock: Callable[[], float] = time.time) -> int:
        return asyncio.run(Pickup(self._spool, self._log, clock, lambda: self._context).once())


def names(spool: Spool) -> list[str]:
    return sorted(each.name for each in (spool.path / DROP).iterdir())


def queued(spool: Spool) -> list[bytes]:
    return [each.message for each in walk(spool.path).values()]


def run(spool: Spool) -> list[str]:
    """Deliver all that is queued; return the ids."""
    delivered: list[str] = []
    run_once(spool, time.time(), lambda name, _: delivered.append(name))
    return delivered
