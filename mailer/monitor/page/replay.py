"""`/message/ID/replay`: a form that sends a message again, to another address."""

import os
import re
from http import HTTPStatus

from mailer.monitor.context import MonitorContext
from mailer.monitor.exchange import Answer, Asked, Refusal, Route
from mailer.monitor.page.actions import BY
from mailer.monitor.page.html import fill
from mailer.monitor.page.layout import page, see_other
from mailer.monitor.page.login import Door
from mailer.monitor.page.session import FIELD, Sessions, fields
from mailer.monitor.replays import HIDDEN, Order
from mailer.spool.ids import is_id

_BETWEEN = re.compile(r"[\s,]+")
_KEY = "key"
"""The name of a hidden field that is random in each form, so that a form submitted twice queues one copy."""
_FORM = """<h1>Send to another address</h1>
<p><a class="id" href="/message/{id}">{id}</a></p>
<form class="card" method="post" action="/message/{id}/replay">
<input type="hidden" name="{field}" value="{proof}">
<input type="hidden" name="{key}" value="{random}">
<p>A copy with its own id will be queued, with Resent- fields on top. The message itself does not change.</p>
<p><label for="to">Addresses, separated by commas or spaces</label></p>
<p><input id="to" name="to" maxlength="4000" required autocomplete="off" spellcheck="false"></p>
<p><label for="sender">Sender of the copy, which is notified of failures. Empty: {reports}</label></p>
<p><input id="sender" name="sender" maxlength="320" autocomplete="off" spellcheck="false"></p>
<p><label><input class="tick" type="checkbox" name="really" value="yes">
Also to its own recipients, who may get it twice</label></p>
<p><button class="primary">Send again</button> <a class="button" href="/message/{id}">Cancel</a></p>
</form>
"""


def routes(context: MonitorContext, door: Door, sessions: Sessions) -> tuple[Route, ...]:
    async def ask(asked: Asked) -> Answer:
        message_id = _allowed(context, asked)
        proof = sessions.form(asked, asked.path)
        body = fill(
            _FORM,
            id=message_id,
            field=FIELD,
            proof=proof,
            key=_KEY,
            random=os.urandom(16).hex(),
            reports=context.config.bounce_address or "no notifications",
        )
        return page("Send to another address", body, has_form=True)

    async def do(asked: Asked) -> Answer:
        message_id, given = _allowed(context, asked), fields(asked)
        sessions.check_form(asked, given)
        to = [each for each in _BETWEEN.split(given.get("to", "")) if each]
        sender, key = given.get("sender", "").strip() or None, given.get(_KEY, "")
        order = Order(message_id, to, bool(given.get("really")), sender, key)
        new = await context.replays.replay(order, by=BY)
        try:
            await context.runs.start()
        except OSError:
            # The copy is queued, so an error would make the operator send it again.
            return see_other(f"/message/{new}?done=replay-waits")
        return see_other(f"/message/{new}?done=replay")

    path = "/message/{id}/replay"
    return (Route("GET", path, door.behind(ask)), Route("POST", path, door.behind(do)))


def _allowed(context: MonitorContext, asked: Asked) -> str:
    if not is_id(asked.parts["id"]):
        raise Refusal(HTTPStatus.BAD_REQUEST, "that is not a message id")
    if not context.config.show_content:
        raise Refusal(HTTPStatus.FORBIDDEN, HIDDEN)
    return asked.parts["id"]
