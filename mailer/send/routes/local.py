"""The local route: mail is kept in the Maildir `local/` of the spool, for any mail reader to open.

There is one file per message. Its name contains the message's id, so if a delivery is repeated because a
crash hid its success, it finds the file and is done. Line ends are LF, as readers of a Maildir expect;
`Return-Path` and one `Delivered-To` per recipient are added on top (RFC 5321 4.4).
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Scope, Status
from mailer.mail.reply import printable
from mailer.send.outgoing import Outgoing
from mailer.send.phase import Phase
from mailer.send.presentation import Presentation
from mailer.send.routes.route import OnCommit, OnTrouble
from mailer.send.trouble import HopTrouble
from mailer.spool.changes import NotUndone
from mailer.spool.committer import Committer
from mailer.spool.directory import Spool
from mailer.spool.layout import FILE_MODE, LOCAL
from mailer.spool.run.claim import Claim
from mailer.spool.syscalls import rename_exclusive

if TYPE_CHECKING:
    from mailer.send.budgets import BudgetShare

_UNFINISHED, _UNREAD, _READ = "tmp", "new", "cur"
"""The three directories of every Maildir."""
_MAX_LINES = 2
"""The most journal lines for one delivery: one for recipients with NOTIFY=SUCCESS, one for the others."""
_ROOM_FOR_LINE = 512
"""Journal octets to reserve for each of these lines, in addition to the reply and the addresses."""
_CHUNK = 256 * 1024
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalRoute:
    """Delivers all mail into the local Maildir; it never refuses a recipient."""

    name = "local"
    batch_size = 1_000_000
    batch_delay = 0.0
    attempts = 1
    presentation = Presentation(dkim=False)
    retries_unclear_refusals = False
    holds_second_doubt = False
    budget: "BudgetShare | None" = None

    def __init__(self, spool: Spool, committer: Committer) -> None:
        """Create the Maildir if it does not exist; raises OSError."""
        self._spool = spool
        self._committer = committer
        for part in (_UNFINISHED, _UNREAD, _READ):
            spool.make_directory(f"{LOCAL}/{part}")

    def groups(self, recipients: Sequence[Recipient]) -> list[list[Recipient]]:
        """Return one group: one copy is for all recipients."""
        return [list(recipients)]

    async def deliver(
        self, outgoing: Outgoing, recipients: Sequence[Recipient], on_commit: OnCommit, on_trouble: OnTrouble
    ) -> list[Outcome]:
        """Deliver one copy for all recipients; see `Route`."""
        del on_trouble  # There is no other hop.
        del on_commit  # No outcome is ever uncertain here: a repeated delivery is recognised.
        claim = outgoing.claim
        delivery = _Delivery(self._spool, claim, recipients)
        reply = printable(f"kept in {self._spool.path / LOCAL}")
        tried_before = claim.recovered or claim.entry.state.attempts > 0
        if not (tried_before and self._was_read(delivery.name)):
            room = _ROOM_FOR_LINE + 2 * len(reply.encode())
            room = _MAX_LINES * room + sum(2 * len(r.address.encode()) + 8 for r in recipients)
            claim.locked.reserve(room)
            try:
                await self._commit(delivery)
            finally:
                # Nothing else is written before the outcome, so the room is still there for it.
                claim.locked.give_back(room)
        return [
            Outcome(
                address=recipient.address,
                status=Status.SENT,
                hop=self.name,
                reply=reply,
                action="delivered" if recipient.wants("SUCCESS") else "",
            )
            for recipient in recipients
        ]

    def leads_to(self, hop: str) -> bool:
        return hop == self.name

    async def _commit(self, delivery: "_Delivery") -> None:
        committing = self._committer.commit_in_loop(delivery)
        while not committing.done():
            # Wait to the end even when cancelled: the committer is reading the claimed file, and what it
            # delivers must be recorded.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([committing])
        try:
            committing.result()
        except OSError as error:
            text = f"{error.strerror or error} in {self._spool.path / LOCAL}"
            raise HopTrouble(self.name, Phase.BODY, text, scope=Scope.LOCAL) from error

    def _was_read(self, name: str) -> bool:
        """Tell whether a mail reader has already moved this delivery to `cur/`, where flags are appended."""
        with self._spool.directory(f"{LOCAL}/{_READ}") as fd, os.scandir(fd) as entries:
            return any(entry.name.partition(":")[0] == name for entry in entries)


class _Delivery:
    """A `Change` that writes and syncs the copy in `local/tmp`, then renames it into `local/new`."""

    def __init__(self, spool: Spool, claim: Claim, recipients: Sequence[Recipient]) -> None:
        self._spool = spool
        self._claim = claim
        self._recipients = recipients
        # The Maildir convention: time, something unique, host.
        self.name = f"{int(claim.entry.block.received)}.{claim.id}.mailer"
        self._unfinished = f"{LOCAL}/{_UNFINISHED}/{self.name}"

    def begin_sync(self) -> None:
        """Do nothing: the copy is not written yet."""

    def sync(self) -> None:
        fd = os.open(self._unfinished, _FLAGS, FILE_MODE, dir_fd=self._spool.root)
        with os.fdopen(fd, "wb") as file:
            file.write(self._trace())
            self._copy_to(file.write)
            file.flush()
            os.fsync(fd)

    def _trace(self) -> bytes:
        lines = [f"Return-Path: <{self._claim.entry.envelope.sender}>"]
        lines += [f"Delivered-To: {recipient.address}" for recipient in self._recipients]
        return "".join(f"{line}\n" for line in lines).encode()

    def _copy_to(self, write: Callable[[bytes], object]) -> None:
        offset, carried = 0, b""
        while chunk := self._claim.locked.read_message(self._claim.entry, offset, _CHUNK):
            offset += len(chunk)
            chunk = carried + chunk
            # A CR at the end of a chunk is kept for the next one, which may begin with its LF.
            carried = b"\r" if chunk.endswith(b"\r") else b""
            write(chunk[: len(chunk) - len(carried)].replace(b"\r\n", b"\n"))
        write(carried)

    def move(self) -> None:
        try:
            rename_exclusive(self._spool.root, self._unfinished, f"{LOCAL}/{_UNREAD}/{self.name}")
        except FileExistsError:
            # A runner delivered it and died before it could record that.
            os.unlink(self._unfinished, dir_fd=self._spool.root)

    def directories(self) -> tuple[str, ...]:
        return (f"{LOCAL}/{_UNREAD}",)

    def sources(self) -> tuple[str, ...]:
        return (f"{LOCAL}/{_UNFINISHED}",)

    def undo(self) -> None:
        """Remove an unfinished copy; the next attempt finds one that was renamed already."""
        try:
            os.unlink(self._unfinished, dir_fd=self._spool.root)
        except FileNotFoundError:
            return
        except OSError as error:
            raise NotUndone(error.errno, error.strerror) from error
