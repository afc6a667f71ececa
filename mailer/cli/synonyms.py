"""Synonyms: the words of Postfix, Exim and others for states and events, which their operators type."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

STATES = {
    "active": ("cur",),
    "archived": ("sent",),
    "bounced": ("failed",),
    "claimed": ("cur",),
    "damaged": ("corrupt",),
    "deferred": ("retry",),
    "delivered": ("sent",),
    "expired": ("failed",),
    "frozen": ("hold",),
    "held": ("hold",),
    "incoming": ("new",),
    "pending": ("new",),
    "quarantined": ("corrupt",),
    "queued": ("new", "cur", "retry"),
    "ready": ("new",),
    "sending": ("cur",),
    "undelivered": ("new", "cur", "retry", "hold", "failed"),
    "unreadable": ("corrupt",),
    "waiting": ("new", "retry"),
}
"""For each synonym the directories of the spool that it may mean (`spool.layout.Place`)."""

EVENTS = {
    "auth-failed": ("login-failed",),
    "bounce": ("bounced",),
    "completed": ("sent",),
    "corrupt": ("quarantined",),
    "defer": ("deferred",),
    "deleted": ("removed",),
    "delivered": ("sent",),
    "failed": ("bounced", "expired"),
    "frozen": ("held",),
    "hold": ("held",),
    "queued": ("accepted",),
    "rate-limited": ("limited",),
    "received": ("accepted",),
    "refused": ("rejected", "bounced"),
    "reject": ("rejected",),
    "retry": ("deferred", "requeued"),
    "submitted": ("accepted",),
    "thawed": ("released",),
    "throttled": ("limited",),
}
"""For each synonym the events of the ledger that it may mean (`maillog.ledger.EVENTS`)."""

COMMANDS = {
    "cancel": ("spool rm",),
    "cat": ("spool show",),
    "check": ("doctor", "config check"),
    "delete": ("spool rm",),
    "deliver": ("send",),
    "flush": ("spool retry --all",),
    "freeze": ("spool hold",),
    "health": ("doctor",),
    "history": ("log",),
    "list": ("spool ls",),
    "logs": ("log",),
    "mailq": ("spool ls",),
    "queue": ("spool ls",),
    "remove": ("spool rm",),
    "requeue": ("spool retry",),
    "resend": ("spool retry", "spool replay"),
    "run": ("up", "send"),
    "search": ("log",),
    "start": ("up",),
    "status": ("spool ls", "top", "doctor"),
    "thaw": ("spool release",),
    "trouble": ("explain-trouble",),
    "view": ("spool show",),
}
"""For each word that operators type as a command the commands of ours that it may mean."""


class Word(click.Choice[str]):
    """A click choice that also accepts unambiguous synonyms, and lists the meanings of ambiguous ones."""

    def __init__(self, choices: Sequence[str], synonyms: Mapping[str, Sequence[str]]) -> None:
        super().__init__(choices, case_sensitive=False)
        self._synonyms = synonyms

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401 - click's signature
        meant = [word for word in self._synonyms.get(str(value).lower(), ()) if word in self.choices]
        if len(meant) > 1:
            option = param.opts[0] if param else ""
            self.fail(f'"{value}" may mean: {" ".join(f"{option} {word}" for word in meant)}', param, ctx)
        return super().convert(meant[0] if meant else value, param, ctx)
