"""The status page: HTML rendered on the server, usable without JavaScript, without external resources."""

from mailer.monitor.exchange import Route
from mailer.monitor.page import actions, assets, content, events, listing, message, overview, replay, search
from mailer.monitor.page.login import Door
from mailer.monitor.page.session import Sessions
from mailer.monitor.service import Service


def routes(service: Service) -> tuple[Route, ...]:
    sessions = Sessions(service.token, service.clock)
    door = Door(sessions)
    return (
        *overview.routes(service, door),
        *listing.routes(service, door),
        *message.routes(service, door),
        *content.routes(service, door),
        *replay.routes(service, door, sessions),
        *actions.routes(service, door, sessions),
        *search.routes(service, door),
        *events.routes(service, door),
        *door.routes(),
        *assets.routes(),
    )
