"""Run `mailer spool replay` as a child: the page and `/admin/replay` send a message to another address by it.

Only that command may use the room that accepts mail, so that its rules are written once.
"""

import asyncio
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus

import msgspec

from mailer.mail.address import check_address
from mailer.mail.reply import printable
from mailer.monitor.exchange import Refusal

_PATIENCE = 60.0
"""Seconds; a command that takes longer is ended."""
_MOST = 50
"""Recipients of one request."""
_STATUSES = {66: HTTPStatus.NOT_FOUND, 75: HTTPStatus.SERVICE_UNAVAILABLE}
"""By the command's exit code: EX_NOINPUT, EX_TEMPFAIL."""
HIDDEN = "showContent is false, and whoever can send mail to any address can read it"


class _Outcome(msgspec.Struct, frozen=True):
    id: str | None
    reply: str


class Replays:
    """Sends messages again, one at a time."""

    def __init__(self, argv: tuple[str, ...], *, allowed: bool) -> None:
        """Prepare.

        Args:
            argv: the command and its options, without those of one message; it runs without a shell.
            allowed: `showContent`.
        """
        self._argv = argv
        self._allowed = allowed
        self._turn = asyncio.Lock()

    async def replay(self, message_id: str, to: Sequence[str], *, really: bool, by: str) -> str:
        """Send a message again; return the id of the new one, which is durable.

        Args:
            message_id: a whole one.
            to: who gets it.
            really: also to the message's own recipients.
            by: who has it done, for the journal and the ledger.

        Raises:
            Refusal: it was not sent; the text says why.
            OSError: the command cannot be started.
        """
        if not self._allowed:
            raise Refusal(HTTPStatus.FORBIDDEN, HIDDEN)
        if not 0 < len(to) <= _MOST:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"name one to {_MOST} addresses")
        for address in to:
            try:
                check_address(address)
            except ValueError as error:
                said = f"{printable(address, 320)} is not an address: {error}"
                raise Refusal(HTTPStatus.BAD_REQUEST, said) from None
        options = [f"--by={by}", "--json", *(f"--to={address}" for address in to), *["--really"] * really]
        # A browser that leaves does not stop it half-way.
        return await asyncio.shield(asyncio.create_task(self._run((*self._argv, *options, message_id))))

    async def _run(self, argv: tuple[str, ...]) -> str:
        async with self._turn:
            process = await asyncio.create_subprocess_exec(*argv, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
            try:
                async with asyncio.timeout(_PATIENCE):
                    out, err = await process.communicate()
            except TimeoutError:
                said = "it takes too long; mailer log --status replayed says whether the copy is queued"
                raise Refusal(HTTPStatus.GATEWAY_TIMEOUT, said) from None
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
        try:
            outcome = msgspec.json.decode(out, type=_Outcome)
        except msgspec.MsgspecError:
            lines = err.decode("utf-8", "replace").splitlines() or ["it says nothing"]
            status = _STATUSES.get(process.returncode or 0, HTTPStatus.SERVICE_UNAVAILABLE)
            raise Refusal(status, f"mailer spool replay failed: {printable(lines[-1], 1000)}") from None
        if outcome.id:
            return outcome.id
        raise Refusal(_STATUSES.get(process.returncode or 0, HTTPStatus.CONFLICT), outcome.reply)
