"""Finds the enhanced status code (RFC 3463) in a reply, in whatever spelling.

RFC 2034 4 puts it first in the text, with the class of the reply's code. In the field it also stands at the
end, as `(#5.7.1)`, `#5.3.4`, `[5.1.1]` or `5.7.1:`, and its class differs.
"""

import re

from mailer.mail.lazy_pattern import compile_late

# Not a part of an IPv4 address, a version or a longer number; 4 and 5 only: others are not refusals.
_CODE = compile_late(r"(?<![\w.#])#?([45]\.\d{1,3}\.\d{1,3})(?![\w]|\.\d)", re.ASCII)


def enhanced_of(text: str) -> str:
    """Return the first enhanced code in the text of a refusal, such as `5.7.1`, or the empty string."""
    found = _CODE.search(text)
    return found.group(1) if found else ""


def without_enhanced(text: str) -> str:
    """Return the text without its enhanced codes."""
    return _CODE.sub(" ", text)
