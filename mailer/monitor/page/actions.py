"""Actions on one message: retry, release, hold, delete; after a confirmation, as `mailer spool` does them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

from mailer.mail.outcome import Status
from mailer.mail.reply import printable
from mailer.monitor import message_story
from mailer.monitor.context import MonitorContext
from mailer.monitor.exchange import Answer, Asked, Refusal, Route
from mailer.monitor.page.html import NOTHING, Markup, fill
from mailer.monitor.page.layout import page, see_other
from mailer.monitor.page.login import Door
from mailer.monitor.page.session import FIELD, Sessions, fields
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.entry import Corrupt
from mailer.spool.ids import is_id
from mailer.spool.layout import Place, Spot
from mailer.spool.locked_message import Busy, Gone, Unsafe
from mailer.spool.message_state import State
from mailer.spool.run.operate import Operator, Refused
from mailer.spool.scan import QUEUE, find
from mailer.spool.state import provider_state
from mailer.spool.view import story
from mailer.spool.view.inspect import recipients_of

BY = "status page"
"""The actor in journals and the ledger."""
_MAX_LISTED = 5
"""Recipients that a confirmation lists; it always shows their number."""
_MAX_TRIES = 10
"""How often to search again for a message that moves in between."""

Act = Callable[[Operator, Spot, float, str], None]
"""Carries out an action on a message, given the time and the operator's reason."""


@dataclass(frozen=True, slots=True)
class Action:
    """One action on a message."""

    name: str
    label: str
    event: str
    """The name of its ledger event."""
    act: Act
    places: tuple[Place, ...]
    """The places where it is offered."""
    question: str
    done: str
    starts_run: bool = False
    takes_reason: bool = False
    dangerous: bool = False


def _retry(operator: Operator, spot: Spot, now: float, _: str) -> None:
    # The operator wants an attempt now, so providers whose circuit breaker is open are tried as well.
    provider_state.end_pauses(operator.spool, datetime.fromtimestamp(now, UTC))
    operator.retry(spot, now)


def _hold(operator: Operator, spot: Spot, now: float, reason: str) -> None:
    operator.hold(spot, now, reason)


def _release(operator: Operator, spot: Spot, now: float, _: str) -> None:
    operator.release(spot, now)


def _delete(operator: Operator, spot: Spot, _: float, __: str) -> None:
    operator.remove(spot)


ACTIONS = {
    action.name: action
    for action in (
        Action(
            "retry",
            "Try again now",
            "requeued",
            _retry,
            (Place.RETRY, Place.FAILED, Place.HOLD),
            "Its open recipients, and those that were refused, will be tried again now. Recipients that "
            "have the mail are not.",
            "It is ready, and a run of mailer-send has been started.",
            starts_run=True,
        ),
        Action(
            "release",
            "Release",
            "released",
            _release,
            (Place.HOLD,),
            "It will go on as it was before it was held.",
            "It is released, and a run of mailer-send has been started.",
            starts_run=True,
        ),
        Action(
            "hold",
            "Hold",
            "held",
            _hold,
            (Place.NEW, Place.CUR, Place.RETRY, Place.FAILED),
            "It will be kept, and not be sent until it is released or retried.",
            "It is held.",
            takes_reason=True,
        ),
        Action(
            "delete",
            "Delete",
            "removed",
            _delete,
            QUEUE,
            "It will be deleted permanently. Neither its sender nor its recipients are notified.",
            "It is deleted.",
            dangerous=True,
        ),
    )
}
"""The actions by name, in the order of display."""

_CONFIRM = """<h1>{label}?</h1>
<p><span class="id">{id}</span> {title}</p>
<p class="quiet">{stands}</p>
{recipients}<form class="card" method="post" action="/message/{id}/{name}">
<input type="hidden" name="{field}" value="{proof}">
<p>{question}</p>
{reason}<p><button class="{kind}">{label}</button> <a class="button" href="/message/{id}">Cancel</a></p>
</form>
"""
_REASON = Markup(
    '<p><label for="reason">Why? The reason is shown with the message.</label></p>\n'
    '<p><input id="reason" name="reason" maxlength="500"></p>\n'
)


def routes(context: MonitorContext, door: Door, sessions: Sessions) -> tuple[Route, ...]:
    async def confirm(asked: Asked) -> Answer:
        message_id, action = _meant(asked)
        told = await asyncio.to_thread(
            message_story.tell, context.spool, message_id, context.outlook(context.spool, context.clock())
        )
        body = fill(
            _CONFIRM,
            label=action.label,
            id=message_id,
            title=told.title.removeprefix(f"{message_id} "),
            stands=told.verdict[0],
            recipients=_recipients(told.seen.entry.state) if told.seen and told.seen.entry else NOTHING,
            name=action.name,
            field=FIELD,
            proof=sessions.form(asked, asked.path),
            question=action.question,
            reason=_REASON if action.takes_reason else NOTHING,
            kind="danger" if action.dangerous else "primary",
        )
        return page(f"{action.label}?", body, has_form=True)

    async def do(asked: Asked) -> Answer:
        message_id, action = _meant(asked)
        given = fields(asked)
        sessions.check_form(asked, given)
        reason = printable(given.get("reason", "").strip(), 500)
        # Shielded, so that it completes even if the browser disconnects.
        work = asyncio.to_thread(_carry_out, context, action, message_id, reason)
        await asyncio.shield(asyncio.create_task(work))
        if action.starts_run:
            await start_run(context)
        return see_other(f"/message/{message_id}?done={action.name}")

    path = "/message/{id}/{action}"
    return (Route("GET", path, door.behind(confirm)), Route("POST", path, door.behind(do)))


async def start_run(context: MonitorContext) -> None:
    """Have a run of `mailer-send` begin; raises Refusal: it could not, and what was done stays done."""
    try:
        await context.runs.start()
    except OSError as error:
        text = f"done, but mailer-send could not be started: {error.strerror}; the next run will see it"
        raise Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, text) from error


def _recipients(state: State) -> Markup:
    """List the recipients that have not got the message; those that are still to be tried come first."""
    unsent = sorted(
        (standing for standing in state.standings if standing.status is not Status.SENT),
        key=lambda standing: standing.status.final,
    )
    still_open = sum(not standing.status.final for standing in unsent)
    counts = f"Still open: {still_open:,} of {words.count(len(state.standings), 'recipient')}."
    more = len(unsent) - _MAX_LISTED
    lines = [*map(story.outcome, unsent[:_MAX_LISTED]), *([f"and {more:,} more"] if more > 0 else [])]
    items = (fill("<li>{line}</li>\n", line=line) for line in lines)
    return fill("<p>{counts}</p>\n<ul>\n{items}</ul>\n", counts=counts, items=items)


def _meant(asked: Asked) -> tuple[str, Action]:
    message_id, action = asked.parts["id"], ACTIONS.get(asked.parts["action"])
    if not is_id(message_id):
        raise Refusal(HTTPStatus.BAD_REQUEST, "that is not a message id")
    if action is None:
        raise Refusal(HTTPStatus.NOT_FOUND, "there is nothing here")
    return message_id, action


def _carry_out(context: MonitorContext, action: Action, message_id: str, reason: str) -> None:
    """Carry out the action and record it in the ledger; raises Refusal if it was not carried out."""
    operator = Operator(context.spool, BY)
    for _ in range(_MAX_TRIES):
        spot = _find(context.spool, message_id)
        to = recipients_of(context.spool, spot)
        try:
            action.act(operator, spot, context.clock(), reason)
        except Gone:
            continue
        except Busy:
            raise Refusal(
                HTTPStatus.CONFLICT, "a runner is sending the message: try again in a moment"
            ) from None
        except (Refused, Unsafe, Corrupt) as error:
            raise Refusal(HTTPStatus.CONFLICT, str(error)) from error
        context.log.message(action.event, id=message_id, to=to, by=BY, reason=reason)
        return
    raise Refusal(HTTPStatus.CONFLICT, "the message keeps moving in the spool: try again")


def _find(spool: Spool, message_id: str) -> Spot:
    found = find(spool, message_id)
    if not found:
        raise Refusal(HTTPStatus.NOT_FOUND, "it is no longer in the queue")
    return found[0]
