"""Run `mailer spool replay` as a child process, for the page and `/admin/replay`.

Only that command accepts mail, so that its rules are not written a second time here.
"""

import asyncio
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import suppress
from hashlib import sha256
from http import HTTPStatus

import msgspec

from mailer.mail.address import check_address
from mailer.mail.reply import printable
from mailer.monitor.exchange import Refusal

_PATIENCE = 60.0
"""Seconds after which a request is answered although its command is still running."""
_MOST = 50
"""The most recipients of one request."""
_STATUSES = {2: HTTPStatus.BAD_REQUEST, 65: HTTPStatus.CONFLICT, 66: HTTPStatus.NOT_FOUND}
"""By the command's exit code: usage, EX_DATAERR, EX_NOINPUT. The others mean 503."""
_SLOW = (
    "the copy takes long to queue, and is still being queued; send the same request again, which queues no "
    "second copy and returns the id of the first one"
)
HIDDEN = "showContent is false, and a copy sent to any address would reveal the content"


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request to send a message again; also the JSON object of `/admin/replay`."""

    id: str
    """The whole id of the message."""
    to: list[str]
    """The recipients of the copy."""
    really: bool = False
    """Whether the message's own recipients are allowed, which may get it twice."""
    sender: str | None = None
    """The envelope sender of the copy; `<>`: the null sender; None: the command's default."""
    key: str = ""
    """Distinguishes orders that are otherwise equal. An equal order queues no second copy."""

    def check(self) -> None:
        """Refuse what the command would not understand; raises Refusal."""
        if not 0 < len(self.to) <= _MOST:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"name one to {_MOST} addresses")
        for address in (*self.to, *([self.sender] if self.sender not in {None, "<>"} else [])):
            try:
                check_address(address)
            except ValueError as error:
                said = f"{printable(address, 320)} is not an address: {error}"
                raise Refusal(HTTPStatus.BAD_REQUEST, said) from None

    def options(self, by: str) -> list[str]:
        """Return the options and arguments of the command; `by` is recorded as the operator."""
        parts = [by, self.key, self.id, self.sender or "", *sorted(set(self.to))]
        once = sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
        return [
            f"--by={by}",
            f"--once={once}",
            "--json",
            *(f"--to={address}" for address in self.to),
            *([] if self.sender is None else [f"--sender={self.sender}"]),
            *["--really"] * self.really,
            self.id,
        ]


class _Outcome(msgspec.Struct, frozen=True):
    id: str | None
    reply: str


class Replays:
    """Sends messages again, one at a time."""

    def __init__(self, argv: tuple[str, ...], *, allowed: bool, patience: float = _PATIENCE) -> None:
        """Prepare.

        Args:
            argv: the command and its options, without those of one message; it runs without a shell.
            allowed: `showContent`.
            patience: see `_PATIENCE`.
        """
        self._argv = argv
        self._allowed = allowed
        self._patience = patience
        self._turn = asyncio.Lock()
        self._running: set[asyncio.Task[str]] = set()

    async def replay(self, order: Order, *, by: str) -> str:
        """Send a message again; return the id of the copy, which is durable.

        An order that equals an earlier one returns the id of that one's copy (`spool/idempotency.py`). The
        command is never killed, since it may have queued the copy without having logged it: it continues if
        the client disconnects, or after the request has been answered because it takes too long.

        Args:
            order: the message and the copy's envelope.
            by: the operator, for the journal and the ledger.

        Raises:
            Refusal: it was not sent, or it is not known yet whether it was; the text says why.
            OSError: the command cannot be started.
        """
        if not self._allowed:
            raise Refusal(HTTPStatus.FORBIDDEN, HIDDEN)
        order.check()
        work = asyncio.create_task(self._run((*self._argv, *order.options(by))))
        self._running.add(work)
        work.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(self._patience):
                return await asyncio.shield(work)
        except TimeoutError:
            raise Refusal(HTTPStatus.GATEWAY_TIMEOUT, _SLOW) from None

    async def close(self, grace: float) -> None:
        """Wait for running commands to end, at most `grace` seconds."""
        if self._running:
            await asyncio.wait(self._running, timeout=grace)

    def _ended(self, work: asyncio.Task[str]) -> None:
        self._running.discard(work)
        if not work.cancelled():
            work.exception()  # Retrieved, because the request may have been answered already.

    async def _run(self, argv: tuple[str, ...]) -> str:
        async with self._turn:
            process = await asyncio.create_subprocess_exec(*argv, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
            out, err = await process.communicate()
        status = _STATUSES.get(process.returncode or 0, HTTPStatus.SERVICE_UNAVAILABLE)
        with suppress(msgspec.MsgspecError):
            outcome = msgspec.json.decode(out, type=_Outcome)
            if outcome.id:
                return outcome.id
            raise Refusal(status, outcome.reply)
        lines = err.decode("utf-8", "replace").splitlines() or ["it printed nothing"]
        raise Refusal(status, f"mailer spool replay failed: {printable(lines[-1], 1000)}")
