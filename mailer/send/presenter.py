"""Create each form of one claimed message that its routes demand: edit the header, then sign."""

import asyncio

from mailer.mail.envelope import Envelope
from mailer.mail.header import HeaderTooLarge, read_header
from mailer.send.dkim.signer import NoKey, Signer, SigningError
from mailer.send.outgoing import OnWait, Outgoing
from mailer.send.presentation import AS_ACCEPTED, Presentation
from mailer.spool.run.claim import Claim

_SIGNED_INLINE = 256 * 1024
"""The most octets of a message that is signed in the event loop, which takes about a millisecond."""


class Presenter:
    """Creates the messages that routes send, each form once."""

    def __init__(self, claim: Claim, signer: Signer | None, on_wait: OnWait) -> None:
        """Prepare; reads nothing yet.

        Args:
            claim: the message.
            signer: signs mail that leaves this host; None if nothing is to be signed.
            on_wait: see `Outgoing`.
        """
        self._claim = claim
        self._signer = signer
        self._on_wait = on_wait
        self._made: dict[Presentation, Outgoing | SigningError] = {}
        self._making: asyncio.Lock | None = None

    async def outgoing(self, presentation: Presentation) -> Outgoing:
        """Return the message in the form to be sent.

        Raises:
            SigningError: it cannot be signed and must wait; later calls raise the same error.
            OSError: the message cannot be read.
        """
        if presentation is AS_ACCEPTED and self._signer is None:
            return self._with()
        self._making = self._making or asyncio.Lock()
        async with self._making:
            if presentation not in self._made:
                try:
                    self._made[presentation] = await self._make(presentation)
                except SigningError as error:
                    self._made[presentation] = error
        made = self._made[presentation]
        if isinstance(made, SigningError):
            raise made
        return made

    async def _make(self, presentation: Presentation) -> Outgoing:
        accepted = self._claim.entry.envelope
        shown = presentation.envelope(accepted)
        outgoing = self._with(b"", 0, shown)
        if presentation.edits(accepted):
            head = _header(outgoing)
            outgoing = self._with(presentation.header(head, accepted), len(head), shown)
        if self._signer is None or not presentation.dkim:
            return outgoing
        try:
            signatures = await self._sign(self._signer, outgoing)
        except NoKey:
            if not self._claim.entry.state.about:
                raise
            # This is our own notification, from MAILER-DAEMON at this host. Few operators have a key for the
            # host's name, so it would wait until it is too old to be useful.
            return outgoing
        return self._with(signatures + outgoing.on_top, outgoing.skip, shown)

    def _with(self, on_top: bytes = b"", skip: int = 0, shown: Envelope | None = None) -> Outgoing:
        return Outgoing(self._claim, on_top, skip, shown, on_wait=self._on_wait)

    async def _sign(self, signer: Signer, outgoing: Outgoing) -> bytes:
        if outgoing.size <= _SIGNED_INLINE:
            return signer.sign(outgoing)
        return await asyncio.to_thread(signer.sign, outgoing)


def _header(outgoing: Outgoing) -> bytes:
    try:
        return read_header(outgoing.read)
    except HeaderTooLarge:
        raise SigningError("the header is too large for rewriteFrom or bounceFrom of a provider") from None
