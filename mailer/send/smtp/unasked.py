"""Decide from the reply to EHLO which recipients a hop would refuse; they are not sent to it."""

from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Scope, Status
from mailer.send.smtp import utf8
from mailer.send.smtp.extensions import NO_LIMITS

if TYPE_CHECKING:
    from mailer.send.smtp.client import Message, Session

_address = attrgetter("address")


def outcomes_unasked(
    session: "Session", message: "Message", recipients: Sequence[Recipient]
) -> dict[str, Outcome]:
    """Return the outcomes that the EHLO reply already implies, by address; the others are to be sent.

    Recipients beyond the hop's limits for one transaction (RFC 9422) are `pending`. The message is read only
    if its client declared SMTPUTF8 and the hop does not offer it.
    """
    offered, label = session.extensions, session.label
    implied: dict[str, Outcome] = {}
    if offered.limits is not NO_LIMITS:
        fits = offered.limits.take([recipient.address for recipient in recipients])
        text = f"more recipients than {label} accepts in one transaction (RFC 9422)"
        implied = {
            one.address: Outcome(one.address, Status.PENDING, label, text, Scope.RECIPIENT)
            for one, fit in zip(recipients, fits, strict=True)
            if not fit
        }
    if offered.size_limit and message.size > offered.size_limit:  # RFC 1870 6.1
        most, size = offered.size_limit, message.size
        text = f"552 5.3.4 message of {size} octets exceeds the limit of {most} at {label}"
        return _refused(session, recipients, Scope.MESSAGE, text) | implied
    if not offered.smtputf8:  # RFC 6531 3.2
        # The hop's name comes first: after "not offered by", `send/replies/` would take an address in it
        # for a complaint about our own address.
        text = f"550 5.6.7 {label} does not offer SMTPUTF8, which this mail needs"
        if utf8.indispensable(message):
            return _refused(session, recipients, Scope.MESSAGE, text) | implied
        if not all(map(str.isascii, map(_address, recipients))):
            impossible = [one for one in recipients if not one.address.isascii()]
            return _refused(session, impossible, Scope.RECIPIENT, text) | implied
    return implied


def _refused(
    session: "Session", recipients: Sequence[Recipient], scope: Scope, text: str
) -> dict[str, Outcome]:
    name = session.hop.name
    host = f"[{name}]" if ":" in name else name
    return {
        one.address: Outcome(one.address, Status.BOUNCED, host, text, scope, session.tls)
        for one in recipients
    }
