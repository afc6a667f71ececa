"""Sanitise the HTML of a mail: keep an allow-list of elements, and nearly no attributes.

The first defence is the policy of the frame that shows the result: under it nothing runs, is loaded, is
posted or navigates. Sanitising keeps the mail readable under that policy, and is the second defence, for a
browser that does not support it.
"""

from base64 import b64encode
from hashlib import sha256
from html import escape
from html.parser import HTMLParser

from mailer.mail.reply import printable

_STYLE = (
    "body{margin:.6rem;font:15px/1.5 system-ui,sans-serif;color:#1e2227;background:#fff}"
    "body{overflow-wrap:anywhere}"
    "a{color:#17558f;text-decoration:underline}td,th{padding:.1rem .4rem;vertical-align:top;text-align:left}"
    "blockquote{border-left:3px solid #dfdcd4;margin:.4rem 0;padding-left:.8rem}pre{white-space:pre-wrap}"
    ".image{color:#5b626b}"
)
_DIGEST = b64encode(sha256(_STYLE.encode()).digest()).decode()

POLICY = (
    f"sandbox; default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
"""Gives the document a separate origin, and allows no scripts, forms or loading, and no style except ours."""

_KEPT = frozenset(
    "a abbr address article aside b bdi big blockquote br caption center cite code col colgroup dd del "  # noqa: SIM905
    "dfn div dl dt em figcaption figure footer h1 h2 h3 h4 h5 h6 header hr i ins kbd li main mark nav ol p "
    "pre q s samp section small span strike strong sub sup table tbody td tfoot th thead time tr tt u ul var "
    "wbr".split()
)
_VOID = frozenset({"br", "col", "hr", "wbr"})
_SILENT = frozenset({"script", "style"})
"""Elements whose content is not text, and is left out."""
_NUMBERS = frozenset({"colspan", "rowspan"})
_DIRECTIONS = frozenset({"ltr", "rtl", "auto"})
_DEEPEST = 100
"""Levels of nested elements; browsers stop at 512."""
_MOST = 20_000
"""The most elements that are kept; newsletters made of tables have some thousands."""
_LONGEST_ADDRESS = 500
"""Characters of a link's address that are shown."""
_REORDERING = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd")
"""Characters that override, embed or isolate a direction, by which an address can be shown reversed. The
element `bdo` does the same, and is not kept."""


def sanitised(html: str) -> bytes:
    """Return a harmless UTF-8 document with the text and layout of an HTML part, which may be malformed."""
    cleaner = _Cleaner()
    cleaner.feed(html.replace("\0", "\ufffd"))
    cleaner.close()
    document = (
        '<!doctype html>\n<html><head><meta charset="utf-8"><title>HTML part</title>'
        f"<style>{_STYLE}</style></head><body>\n{cleaner.result()}\n</body></html>\n"
    )
    return document.encode("utf-8", "replace")


class _Cleaner(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._out: list[str] = []
        self._open: list[str] = []
        self._silent = ""
        """The open element whose content is being left out; empty if there is none."""
        self._count = 0

    def result(self) -> str:
        return "".join(self._out) + "".join(f"</{tag}>" for tag in reversed(self._open))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent = tag
        elif tag == "img":
            said = next((value for name, value in attrs if name == "alt" and value), "")
            self._out.append(f'<span class="image">[image{": " if said else ""}{_text(said)}]</span>')
        elif tag in _KEPT and self._count < _MOST:
            self._begin(tag, attrs)

    def _begin(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            if len(self._open) == _DEEPEST:
                return
            self._open.append(tag)
        self._count += 1
        self._out.append(f"<{tag}{_attributes(tag, attrs)}>")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # In HTML `<div/>` means the same as `<div>`.
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag == self._silent:
            self._silent = ""
        elif tag in self._open:
            while self._open:
                last = self._open.pop()
                self._out.append(f"</{last}>")
                if last == tag:
                    return

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._out.append(_text(data))


def _attributes(tag: str, attrs: list[tuple[str, str | None]]) -> str:
    """Return the kept attributes: spans of cells, the direction, and a link's address as its title."""
    kept: dict[str, str] = {}
    for name, value in attrs:
        given = (value or "").strip()
        if name in _NUMBERS and given.isascii() and given.isdecimal() and len(given) < 4:
            kept[name] = given
        elif name == "dir" and given.lower() in _DIRECTIONS:
            kept[name] = given.lower()
        elif tag == "a" and name == "href":
            kept["title"] = printable(given, _LONGEST_ADDRESS)
    return "".join(f' {name}="{_text(value)}"' for name, value in kept.items())


def _text(data: str) -> str:
    """Escape a text, and replace control characters and those that change its direction by U+FFFD."""
    data = data.translate(_REORDERING)
    if not data.isprintable():
        data = "".join(
            c if c.isprintable() or c in "\t\r\n\u00a0\u200c\u200d" or c > "\u00ff" else "\ufffd"
            for c in data
        )
    return escape(data)
