"""The frame around every page, and how pages are answered."""

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
"""Nothing from elsewhere, and nothing inline: markup that got in against all care would still do nothing."""

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
    """Answer with a page.

    Args:
        title: for the browser's tab.
        body: what is between header and footer.
        status: of HTTP.
        query: what was searched for.
        has_form: it posts to us. Under the policy `no-referrer` a browser would say that the request
            comes from nowhere (`Origin: null`), which the guard refuses.
        headers: more of them.
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
    """Answer with a heading and a sentence."""
    body = fill(
        '<h1>{title}</h1>\n<p>{text}</p>\n<p><a href="/">Back to the overview</a></p>\n',
        title=title,
        text=text,
    )
    return page(title, body, status=status)


def see_other(path: str, *headers: tuple[str, str]) -> Answer:
    """Send the browser on; `path` is one of ours."""
    return Answer(b"", HTML, HTTPStatus.SEE_OTHER, (("Location", path), *headers))
