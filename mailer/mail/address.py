"""Parse SMTP paths (RFC 5321 4.1.2, RFC 6531 for UTF-8): the `<address>` arguments of MAIL and RCPT.

An address is data: it is validated and then kept byte for byte. There is no case folding, no rewriting of
source routes or of `%`, and no RFC 2047 decoding. All parsing is linear in the text, whose length the session
has already bounded.

`Lenient` parsing also accepts what real clients send as long as it has one reading only: a path without
brackets, a name without a domain, a domain with a trailing dot, dots anywhere in the local part.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

import msgspec

from mailer.mail.lazy_pattern import compile_late

EVERY_NAME = "*"
"""The key in `aliases` that stands for every name not listed there."""
MAX_LOCAL_PART = 64
"""Octets; RFC 5321 4.5.3.1.1."""
MAX_DOMAIN = 255
"""Octets; RFC 5321 4.5.3.1.2."""
MAX_PATH = 256
"""Octets, angle brackets included; RFC 5321 4.5.3.1.3."""

# Non-ASCII is UTF8-non-ascii of RFC 6531 3.3, minus the C1 controls and the Unicode line separators: no real
# name contains them, and terminals and log readers act on them.
UTF8_NON_ASCII = "\u00a0-\u2027\u202a-\ud7ff\ue000-\U0010ffff"
# Atoms are matched by a negated set: `re` expands the ranges of a positive set up to U+FFFF, which took 13 ms
# at each start.
_NO_TEXT = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_ATEXT = rf'[^ "(),.:;<>@\[\\\]{_NO_TEXT}]'
# Each alternative starts with a character that no other alternative accepts, so matching never backtracks.
_DOT_STRING = compile_late(rf"{_ATEXT}+(?:\.{_ATEXT}+)*")
# Mobile operators assigned mailboxes such as `a..b.@docomo.ne.jp`, which RFC 5321 requires to be quoted.
_ODD_DOT_STRING = compile_late(rf"\.*{_ATEXT}(?:{_ATEXT}|\.)*")
# Characters of a bare name that must not be completed with a domain: some servers relay `a%b@...` and
# `b!a@...` to b, and `SIZE=9` is a parameter whose address was forgotten.
_NO_NAME = compile_late(r'[!%"=]')
_QUOTED_STRING = compile_late(rf'"(?:[^"\\{_NO_TEXT}]|\\[ -~])*"')
# RFC 1123 does not allow underscores, but some real hosts have them in their names.
_LABEL = compile_late(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?")

# The fast path for nearly every real path: ASCII, a dot-string, a domain without `xn--`, lengths well within
# the limits. Everything that it accepts, unless two dots stand side by side, the full rules below accept as
# well; the rest is left to them.
_COMMON = compile_late(
    r"<((?!\.)[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}+(?<!\.)"
    r"@(?:(?![Xx][Nn]--)[A-Za-z0-9_][A-Za-z0-9_-]{0,62}+(?<!-)(?:\.(?!>)|(?=>)))+)>"
)


class AddressError(ValueError):
    """A path was refused; carries the SMTP reply to send."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.enhanced = enhanced
        self.text = text


class Path(msgspec.Struct, frozen=True):
    """One parsed path and the parameters after it."""

    address: str
    """Byte-exact, without brackets; empty for the null reverse-path."""
    parameters: str
    """The text after the path, without the space that separates them."""


class Lenient(msgspec.Struct, frozen=True):
    """Options of lenient parsing, which accepts paths that RFC 5321 does not."""

    origin_domain: str
    """The domain appended to a name that has none."""
    aliases: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Lower-case bare name -> the full address that gets its mail; `*` stands for all other names."""

    def address_of(self, name: str) -> str:
        alias = self.aliases.get(name.lower()) or self.aliases.get(EVERY_NAME)
        return alias or f"{name}@{self.origin_domain}"


def reverse_path(text: str, lenient: Lenient | None = None) -> Path:
    """Parse what follows `MAIL FROM:`.

    Args:
        text: decoded from UTF-8 with `surrogateescape`, so that invalid UTF-8 is detected.
        lenient: see `Lenient`; None: only what RFC 5321 allows.

    Raises:
        AddressError: 501 5.1.7.
    """
    return _path(text, "5.1.7", frozenset({""}), lenient)


def forward_path(text: str, lenient: Lenient | None = None) -> Path:
    """Parse what follows `RCPT TO:`; only `postmaster` may stand without a domain (RFC 5321 4.5.1).

    Args:
        text: decoded from UTF-8 with `surrogateescape`, so that invalid UTF-8 is detected.
        lenient: see `Lenient`; it completes `postmaster` with a domain, like every other name.

    Raises:
        AddressError: 501 5.1.3.
    """
    return _path(text, "5.1.3", frozenset() if lenient else frozenset({"postmaster"}), lenient)


def check_address(address: str) -> None:
    """Validate one mailbox, given without brackets.

    Raises:
        ValueError: the address is invalid; the text says why.
    """
    _check(address, _DOT_STRING)


def _check(address: str, dot_string: re.Pattern[str]) -> None:
    local_part = _local_part(address, dot_string)
    if _octets(local_part) > MAX_LOCAL_PART:
        raise ValueError(f"the local part is longer than {MAX_LOCAL_PART} octets")
    rest = address[len(local_part) :]
    if not rest:
        raise ValueError("the address has no domain; write it as name@domain")
    if rest[0] != "@":
        raise ValueError("the local part has a character that must be quoted")
    _check_domain(rest[1:])


def _path(text: str, enhanced: str, bare_names: frozenset[str], lenient: Lenient | None) -> Path:
    if common := _common_path(text):
        return common
    try:
        # Real clients put a space after the colon; RFC 5321 3.3 permits servers to accept it.
        text = text.lstrip(" ")
        address, parameters = _unwrap(text) if lenient is None or "<" in text else _without_brackets(text)
        if address.lower() in bare_names:
            pass
        elif lenient is None:
            check_address(address)
        else:
            address = _completed(address, lenient)
    except ValueError as error:
        raise AddressError(501, enhanced, str(error)) from None
    return Path(address, parameters)


# An application names the same sender, and often the same recipients, again and again.
@lru_cache(maxsize=256)
def _common_path(text: str) -> Path | None:
    found = _COMMON.match(text)
    if found is None or found.end() > MAX_PATH or ".." in found[1]:
        return None
    parameters = text[found.end() :]
    return None if parameters and parameters[0] != " " else Path(found[1], parameters.strip(" "))


def _unwrap(text: str) -> tuple[str, str]:
    if not text.startswith("<"):
        raise ValueError("the address must stand in angle brackets: <name@domain>")
    if text.startswith("<@") and ":" in text.partition(">")[0]:
        raise ValueError("source routes are obsolete (RFC 5321 appendix C); give the plain address")
    quoted = _QUOTED_STRING.match(text, 1)
    end = text.find(">", quoted.end() if quoted else 1)
    if end < 0:
        raise ValueError("the closing angle bracket is missing")
    if _octets(text[: end + 1]) > MAX_PATH:
        raise ValueError(f"the path is longer than {MAX_PATH} octets")
    parameters = text[end + 1 :]
    if parameters and not parameters.startswith(" "):
        raise ValueError("only a space and parameters may follow the closing angle bracket")
    return text[1:end], parameters.strip(" ")


def _without_brackets(text: str) -> tuple[str, str]:
    quoted = _QUOTED_STRING.match(text)
    end = text.find(" ", quoted.end() if quoted else 0)
    if not text:
        raise ValueError("the address is missing")
    return (text, "") if end < 0 else (text[:end], text[end:].strip(" "))


def _completed(address: str, lenient: Lenient) -> str:
    """Return the address with a domain and without a trailing dot."""
    if _local_part(address, _ODD_DOT_STRING) == address and not _NO_NAME.search(address):
        address = lenient.address_of(address)
    elif address.endswith(".") and not address.endswith("@."):
        address = address[:-1]
    _check(address, _ODD_DOT_STRING)
    if _octets(address) > MAX_PATH - len("<>"):
        raise ValueError(f"the path is longer than {MAX_PATH} octets")
    return address


def _octets(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("the address is not UTF-8") from None


def _local_part(address: str, dot_string: re.Pattern[str]) -> str:
    found = (_QUOTED_STRING if address.startswith('"') else dot_string).match(address)
    if found is None:
        raise ValueError("the local part is empty, or has a character that must be quoted")
    return found.group()


def unquoted(local_part: str) -> str:
    """Return a local part without unnecessary quotes and backslashes (RFC 5321 4.1.2)."""
    if not _QUOTED_STRING.fullmatch(local_part):
        return local_part
    name = re.sub(r"\\(.)", r"\1", local_part[1:-1])
    if _DOT_STRING.fullmatch(name):
        return name
    return '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'


def a_labels(domain: str) -> str:
    """Return a domain in its DNS form: lower case, A-labels (RFC 5890), no trailing dot.

    A domain that IDNA cannot encode, such as one with an underscore and an umlaut, is only lower-cased.
    """
    domain = domain.removesuffix(".")
    if domain.isascii():
        return domain.lower()
    import idna  # noqa: PLC0415 - as in `_check_international`

    try:
        return idna.encode(domain, uts46=True).decode()
    except UnicodeError:
        return domain.lower()


def _check_domain(domain: str) -> None:
    if not domain:
        raise ValueError("the domain after @ is missing")
    if _octets(domain) > MAX_DOMAIN:
        raise ValueError(f"the domain is longer than {MAX_DOMAIN} octets")
    if domain.startswith("["):
        _check_literal(domain)
        return
    for label in domain.split("."):
        if label.isascii() and label[:4].lower() != "xn--":
            if len(label) > 63 or not _LABEL.fullmatch(label):
                raise ValueError("the domain has an empty, overlong or malformed label")
        else:
            _check_international(label)


def _check_literal(domain: str) -> None:
    from ipaddress import IPv4Address, IPv6Address  # noqa: PLC0415 - rarely needed, and cron starts us every minute

    inside = domain[1:-1] if domain.endswith("]") else ""
    try:
        if inside[:5].lower() == "ipv6:":
            # A zone (`%eth0`) is meaningful on one host only, and RFC 5321 4.1.3 does not allow it.
            IPv6Address(inside[5:].replace("%", " "))
        else:
            IPv4Address(inside)
    except ValueError:
        raise ValueError("the address literal is neither [IPv4] nor [IPv6:...]") from None


def _check_international(label: str) -> None:
    import idna  # noqa: PLC0415 - loading its tables takes a fifth of our start-up, and few messages need them

    try:
        # UTS 46 folds case first, as browsers do. It also maps the full stops of other scripts to ".", which
        # is rejected below.
        encoded = idna.encode(label, uts46=True)
    except UnicodeError:
        encoded = b"."
    if b"." in encoded:
        raise ValueError("the domain has a label that IDNA 2008 does not allow")
