"""Find the enhanced status code (RFC 3463) in a reply, in any spelling.

RFC 2034 4 puts it first in the text, with the same class as the reply's code. Real servers also put it at the
end, write `(#5.7.1)`, `#5.3.4`, `[5.1.1]` or `5.7.1:`, and use a different class.
"""

import re

from mailer.mail.lazy_pattern import compile_late

# Must not match within an IPv4 address, a version or a longer number. Only classes 4 and 5 are refusals.
_CODE = compile_late(r"(?<![\w.#])#?([45]\.\d{1,3}\.\d{1,3})(?![\w]|\.\d)", re.ASCII)


def enhanced_of(text: str) -> str:
    """Return the first enhanced code in the text of a refusal, such as `5.7.1`, or the empty string."""
    found = _CODE.search(text)
    return found.group(1) if found else ""


def without_enhanced(text: str) -> str:
    """Return the text without its enhanced codes."""
    return _CODE.sub(" ", text)
