"""Log in and out, and wrap the handler of every page that requires a login."""

import asyncio
from http import HTTPStatus
from urllib.parse import quote, urlencode

from mailer.monitor.exchange import Answer, Asked, Handler, Refusal, Route
from mailer.monitor.message_story import Moving, NoStory
from mailer.monitor.page.html import NOTHING, Markup, fill
from mailer.monitor.page.layout import message_page, page, see_other
from mailer.monitor.page.session import FIELD, Sessions, fields

_LOGIN = """<h1>Log in</h1>
{complaint}<form class="card" method="post" action="/login">
<input type="hidden" name="{field}" value="{proof}"><input type="hidden" name="next" value="{next}">
<p><label for="token">The <code>adminToken</code> of the configuration, or what
<code>mailer monitor --link</code> prints</label></p>
<p><input id="token" name="token" type="password" autocomplete="current-password" required autofocus></p>
<p><button class="primary">Log in</button></p>
</form>
<p class="quiet">Programs send <code>Authorization: Bearer TOKEN</code> instead.</p>
"""
_LOGOUT = """<h1>Log out?</h1>
<form class="card" method="post" action="/logout">
<input type="hidden" name="{field}" value="{proof}">
<p><button class="primary">Log out</button> <a class="button" href="/">Cancel</a></p>
</form>
"""
_WRONG_TOKEN_DELAY = 0.5
"""Seconds by which the answer to a wrong token is delayed."""


class Door:
    """Admits clients with a session or the token, and shows others the login page."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/login", self._ask),
            Route("POST", "/login", self._log_in),
            Route("GET", "/logout", self.behind(self._ask_to_leave)),
            Route("POST", "/logout", self.behind(self._log_out)),
        )

    def behind(self, handler: Handler) -> Handler:
        """Wrap a handler so that it requires a login and answers refusals with a page."""

        async def answer(asked: Asked) -> Answer:
            if not self._sessions.holds(asked):
                return self._turn_away(asked)
            return await told_as_page(handler, asked)

        return answer

    @staticmethod
    def _turn_away(asked: Asked) -> Answer:
        if asked.method == "POST":
            return message_page(HTTPStatus.UNAUTHORIZED, "Log in", "The session has ended: log in again.")
        query = urlencode(asked.query)
        target = quote(asked.path) + (f"?{query}" if query else "")
        return see_other("/login" if target == "/" else f"/login?{urlencode({'next': target})}")

    async def _ask(self, asked: Asked) -> Answer:
        if self._sessions.holds(asked):
            return see_other("/")
        if presented := asked.query.get("token", ""):
            # From the link that `mailer monitor --link` prints.
            return await self._let_in(asked, presented, asked.query.get("next", ""))
        return self._login(asked, asked.query.get("next", ""), NOTHING)

    async def _log_in(self, asked: Asked) -> Answer:
        return await told_as_page(self._try_token, asked)

    async def _try_token(self, asked: Asked) -> Answer:
        given = fields(asked)
        self._sessions.check_form(asked, given)
        return await self._let_in(asked, given.get("token", "").strip(), given.get("next", ""))

    async def _let_in(self, asked: Asked, presented: str, target: str) -> Answer:
        if not self._sessions.matches(presented):
            await asyncio.sleep(_WRONG_TOKEN_DELAY)
            complaint = Markup('<p class="notice failing" role="alert">That is not the token.</p>\n')
            return self._login(asked, target, complaint, HTTPStatus.UNAUTHORIZED)
        return see_other(_ours(target), self._sessions.begin())

    def _login(
        self, asked: Asked, target: str, complaint: Markup, status: HTTPStatus = HTTPStatus.OK
    ) -> Answer:
        proof = self._sessions.form(asked, "/login")
        body = fill(_LOGIN, complaint=complaint, field=FIELD, proof=proof, next=target)
        return page("Log in", body, status=status, has_form=True)

    async def _ask_to_leave(self, asked: Asked) -> Answer:
        proof = self._sessions.form(asked, "/logout")
        return page("Log out", fill(_LOGOUT, field=FIELD, proof=proof), has_form=True)

    async def _log_out(self, asked: Asked) -> Answer:
        self._sessions.check_form(asked, fields(asked))
        return see_other("/login", self._sessions.end())


async def told_as_page(handler: Handler, asked: Asked) -> Answer:
    """Call a handler, and turn a refusal or an error into a page."""
    try:
        return await handler(asked)
    except Refusal as refusal:
        return message_page(refusal.status, refusal.status.phrase, f"{refusal}.")
    except NoStory as unknown:
        status = HTTPStatus.SERVICE_UNAVAILABLE if isinstance(unknown, Moving) else HTTPStatus.NOT_FOUND
        return message_page(status, status.phrase, f"{unknown}.")
    except OSError as error:
        text = f"The spool cannot be read or written: {error.strerror or error}."
        return message_page(HTTPStatus.SERVICE_UNAVAILABLE, "Not now", text)


def _ours(target: str) -> str:
    """Return the target if it is a path of this server, else `/` (prevents open redirects)."""
    path = target.startswith("/") and not target.startswith("//") and target.isascii()
    return target if path and target.isprintable() and "\\" not in target else "/"
