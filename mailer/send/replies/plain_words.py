"""Normalize a reply's text to plain words, so that case, punctuation, addresses and ids do not matter."""

import re
import unicodedata

from mailer.mail.lazy_pattern import compile_late
from mailer.send.replies.enhanced import without_enhanced

LIMIT = 2000
"""The most characters of a reply that are read; the longest meaningful ones in the field have about 1,200."""

# Operators of blocklists: sometimes a reply says nothing but the URL of their look-up page.
_LISTS = (
    r"(?:\w+\.){0,3}(?:spamhaus\.(?:org|com)|spamcop\.net|sorbs\.net|barracudacentral\.org|uceprotect\.net|"
    r"ipcheck\.proofpoint\.com|mail-abuse\.com|abuseat\.org|senderscore\.org)|support\.proofpoint\.com/dnsbl|"
    r"sender\.office\.com|csi\.cloudmark\.com|www\.barracudanetworks\.com/reputation"
)
_LOOKUP = compile_late(rf"(?:https?:)?//(?:{_LISTS})[^\s<>\"]*", re.ASCII)
_URL = compile_late(r"(?:https?:/+|www\.)[^\s<>\"]*", re.ASCII)
_TAG = compile_late(r"</?(?:a|br|b|p)(?: [^<>]{0,200})?>", re.ASCII)
_PART = r"[^\s<>()\[\]\":;,=@]"
_ADDRESS = compile_late(rf"(?<!{_PART}){_PART}+@(?:(?!\.\.){_PART})+")
_IP = compile_late(
    r"(?<![\w.])(?:(?:\d{1,3}|x{1,3}|#)\.){3}(?:\d{1,3}|x{1,3}|#)(?![\w]|\.\d)|(?:[0-9a-f]{1,4}:){3,7}[0-9a-f:]+",
    re.ASCII,
)
_APOSTROPHES = str.maketrans("\u2019\u2018`\u00b4", "''''")
_SEPARATORS = compile_late(r"[^\w@<>']+|_")
_NUMBER = compile_late(r"(?<![^ ])[^ ]*\d[^ ]*")
_QUOTES = compile_late(r"(?<![^\W\d_])'|'(?![^\W\d_])")


def plain(text: str) -> str:
    """Return the words of a reply, in lower case, each with one blank before and after it.

    Accents are removed. `<url>`, `<list>` (the page of a blocklist), `@` (a mail address), `<ip>` and `#`
    (any other word with a digit) replace what they stand for; enhanced codes are left out.
    """
    text = unicodedata.normalize("NFKD", text[:LIMIT].translate(_APOSTROPHES)).casefold()
    text = "".join(c for c in text if not unicodedata.combining(c)) if not text.isascii() else text
    text = _URL.sub(" <url> ", _LOOKUP.sub(" <list> ", _TAG.sub(" ", text)))
    text = without_enhanced(_IP.sub(" <ip> ", _ADDRESS.sub(" @ ", text)))
    words = _NUMBER.sub("#", _QUOTES.sub(" ", _SEPARATORS.sub(" ", text)))
    words = re.sub(r"<(?!(?:url|list|ip)>)|(?<!<url)(?<!<list)(?<!<ip)>", " ", words)
    return f" {' '.join(words.split())} "
