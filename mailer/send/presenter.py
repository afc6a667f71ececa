"""One claimed message in each of the forms that routes want: its header edited, then signed."""

import asyncio

from mailer.mail.header import HeaderTooLarge, read_header
from mailer.send.dkim.signer import NoKey, Signer, SigningError
from mailer.send.outgoing import Outgoing
from mailer.send.presentation import AS_ACCEPTED, Presentation
from mailer.spool.run.claim import Claim

_SIGNED_HERE = 256 * 1024
"""Octets of a message that is signed without a thread: about a millisecond."""


class Presenter:
    """Makes what a route sends."""

    def __init__(self, claim: Claim, signer: Signer | None) -> None:
        """Prepare; nothing is read yet.

        Args:
            claim: the message.
            signer: signs what leaves this host; None: nothing is to be signed.
        """
        self._claim = claim
        self._signer = signer
        self._made: dict[Presentation, Outgoing | SigningError] = {}
        self._making = asyncio.Lock()

    async def outgoing(self, presentation: Presentation) -> Outgoing:
        """Return the message as it is to be sent.

        Raises:
            SigningError: it must wait; also when it is asked for again.
            OSError: it cannot be read.
        """
        if presentation is AS_ACCEPTED and self._signer is None:
            return Outgoing(self._claim)
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
        outgoing = Outgoing(self._claim)
        if (shown := presentation.envelope(accepted)) is not accepted:
            outgoing = Outgoing(self._claim, shown=shown)
        if presentation.edits(accepted):
            head = _header(outgoing)
            outgoing = Outgoing(self._claim, presentation.header(head, accepted), len(head), outgoing.shown)
        if self._signer is None or not presentation.dkim:
            return outgoing
        try:
            signatures = await self._sign(self._signer, outgoing)
        except NoKey:
            if not self._claim.entry.state.about:
                raise
            # A notification of ours, from MAILER-DAEMON at this host, which few have a key for. It would wait
            # for one until it is too old to be of use.
            return outgoing
        return Outgoing(self._claim, signatures + outgoing.on_top, outgoing.skip, outgoing.shown)

    async def _sign(self, signer: Signer, outgoing: Outgoing) -> bytes:
        if outgoing.size <= _SIGNED_HERE:
            return signer.sign(outgoing)
        return await asyncio.to_thread(signer.sign, outgoing)


def _header(outgoing: Outgoing) -> bytes:
    try:
        return read_header(outgoing.read)
    except HeaderTooLarge:
        raise SigningError("the header is too large for rewriteFrom or bounceFrom of a provider") from None
