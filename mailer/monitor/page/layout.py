"""The frame of every page, and functions that build answers with a page."""

from http import HTTPStatus

from mailer import __version__
from mailer.monitor.exchange import Answer
from mailer.monitor.page import assets
from mailer.monitor.page.html import Markup, fill

HTML = "text/html; charset=utf-8"

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Forbids external and inline resources, so that injected markup, should there be any, would be harmless."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} · mailer</title>
<link rel="stylesheet" href="{style}">
<link rel="icon" href="{icon}" type="image/svg+xml">
<script src="{script}" defer></script>
</head>
<body>
<a class="skip" href="#content">To the content</a>
<header class="top">
<a class="brand" href="/">mailer</a>
<form class="search" action="/search" role="search">
<label class="unseen" for="q">Search by address or message id</label>
<input id="q" name="q" type="search" value="{query}" placeholder="address or message id" autocomplete="off"
spellcheck="false" autocapitalize="none"><button>Search</button>
</form>
<span id="pulse" class="pulse" hidden>live</span>
</header>
<main id="content">
{body}</main>
<footer>
<p>mailer {version} · all times are UTC</p>
</footer>
</body>
</html>
"""


def page(
    title: str,
    body: Markup,
    *,
    status: int = HTTPStatus.OK,
    query: str = "",
    has_form: bool = False,
    headers: tuple[tuple[str, str], ...] = (),
) -> Answer:
    """Build an answer with a page.

    Args:
        title: the title in the browser's tab.
        body: the content between header and footer.
        status: the HTTP status.
        query: the text of the search field.
        has_form: whether the page has a form that posts. Under the policy `no-referrer` a browser would send
            `Origin: null` with it, which the guard refuses.
        headers: more header fields.
    """
    text = fill(
        _PAGE,
        title=title,
        style=assets.url("style.css"),
        script=assets.url("page.js"),
        icon=assets.url("icon.svg"),
        query=query,
        body=body,
        version=__version__,
    )
    policy = ("Referrer-Policy", "same-origin" if has_form else "no-referrer")
    fields = (("Content-Security-Policy", POLICY), policy, *headers)
    return Answer(text.encode("utf-8", "replace"), HTML, status, fields)


def message_page(status: HTTPStatus, title: str, text: str) -> Answer:
    """Build an answer with a heading and a sentence."""
    body = fill(
        '<h1>{title}</h1>\n<p>{text}</p>\n<p><a href="/">Back to the overview</a></p>\n',
        title=title,
        text=text,
    )
    return page(title, body, status=status)


def see_other(path: str, *headers: tuple[str, str]) -> Answer:
    """Redirect the browser to a path of this server."""
    return Answer(b"", HTML, HTTPStatus.SEE_OTHER, (("Location", path), *headers))
