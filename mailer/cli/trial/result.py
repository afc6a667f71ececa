"""Print the result of `mailer test`: what happened, what it means, and which command to type next."""

import sys

from mailer.cli.exits import Exit
from mailer.cli.output import json_line
from mailer.cli.spool.story import record
from mailer.mail.outcome import Status
from mailer.mail.reply import printable
from mailer.monitor.message_story import Story
from mailer.spool.journal import Event
from mailer.spool.layout import LOCAL
from mailer.spool.view import story

_CODES = {Status.SENT: Exit.OK, Status.BOUNCED: Exit.FINDINGS, Status.EXPIRED: Exit.FINDINGS}

_START = (
    " If no runner is at work, start one: mailer-send --watch, or systemctl start mailer-send.timer "
    "mailer-send.path."
)


def conclude(told: Story, to: str, *, known: bool, as_json: bool) -> Exit:
    """Print the story of a mail to one recipient, then its meaning; return the exit code.

    Args:
        told: the story.
        to: the recipient.
        known: whether `mailer spool why` can also explain it.
        as_json: whether to print one JSON object instead.
    """
    last = _last(told.steps)
    status = Status(last.event) if last else Status.PENDING
    meaning = printable(_meaning(status, last, told, to, known=known), 4000)
    if as_json:
        sys.stdout.write(json_line(record(told) | {"status": status.value, "meaning": meaning}))
    else:
        sys.stdout.writelines(f"  {story.tell(step)}\n" for step in story.chronicle(told.steps))
        sys.stdout.write(f"\n{meaning}\n")
    return _CODES.get(status, Exit.TEMPORARY)


def _last(steps: tuple[Event, ...]) -> Event | None:
    """Return the last step that is an outcome."""
    statuses = {status.value for status in Status}
    return next((step for step in reversed(steps) if step.event in statuses), None)


def _meaning(status: Status, last: Event | None, told: Story, to: str, *, known: bool) -> str:
    if last is None:
        nobody = _START if any("no runner" in line for line in told.verdict) else ""
        stands = " ".join(line if line.endswith(".") else f"{line}." for line in told.verdict)
        return f"Not sent: {stands}{nobody} Later: mailer spool why {told.id}"
    if status is Status.SENT and last.hop == LOCAL:
        return (
            "It works as far as it is set up: the mail is kept in the local Maildir, and has not left this "
            "host. For real mail set forwardSMTP and a provider (forwardProviders), or directDelivery."
        )
    if status is Status.SENT:
        return (
            f"Sent: {last.hop} took it for {to}. This host cannot see what happens to it there; look into "
            "that mailbox, and its spam folder."
        )
    explain = f"mailer spool why {told.id}" if known else "mailer doctor"
    if status in {Status.BOUNCED, Status.EXPIRED}:
        return f"Refused permanently by {last.hop}: {last.reply}. What it means: {explain}"
    if status is Status.UNCERTAIN:
        return (
            f"Handed over to {last.hop}, whose final reply was lost: it may have arrived. See: mailer doctor"
        )
    again = "" if last.next else "; this mail is not tried again"
    return f"Not sent, for now, at {last.hop or 'no next hop'}: {last.reply}{again}. What it means: {explain}"
