"""The status page: HTML rendered on the server, usable without JavaScript, without external resources."""

from mailer.monitor.context import MonitorContext
from mailer.monitor.exchange import Route
from mailer.monitor.page import actions, assets, content, events, listing, message, overview, replay, search
from mailer.monitor.page.login import Door
from mailer.monitor.page.session import Sessions


def routes(context: MonitorContext) -> tuple[Route, ...]:
    sessions = Sessions(context.token, context.clock)
    door = Door(sessions)
    return (
        *overview.routes(context, door),
        *listing.routes(context, door),
        *message.routes(context, door),
        *content.routes(context, door),
        *replay.routes(context, door, sessions),
        *actions.routes(context, door, sessions),
        *search.routes(context, door),
        *events.routes(context, door),
        *door.routes(),
        *assets.routes(),
    )
