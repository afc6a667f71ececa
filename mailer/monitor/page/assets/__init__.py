"""Serve the page's style sheet, script and icon, which are files of this package and read at import."""

from hashlib import sha256
from importlib.resources import files

from mailer.monitor.exchange import Answer, Asked, Route

_KINDS = {
    "style.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_BODIES = {name: files(__name__).joinpath(name).read_bytes() for name in _KINDS}
_URLS = {name: f"/assets/{name}?{sha256(body).hexdigest()[:12]}" for name, body in _BODIES.items()}
_CACHED = ("Cache-Control", "max-age=86400, immutable")
"""Browsers may cache the files, because the URL contains a hash of the content."""


def url(name: str) -> str:
    return _URLS[name]


def routes() -> tuple[Route, ...]:
    return tuple(_route(name) for name in _KINDS)


def _route(name: str) -> Route:
    async def answer(_: Asked) -> Answer:
        return Answer(_BODIES[name], _KINDS[name], headers=(_CACHED,))

    return Route("GET", f"/assets/{name}", answer)
