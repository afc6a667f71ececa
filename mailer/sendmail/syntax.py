"""Checks the syntax of a message that is to become a drop, while its caller can still get an error.

If a receiver runs, it does these checks. This module repeats its rules for `submitSocket` (`mail/address.py`,
`receive/smtp/parameters.py`), because this program does not import them. It may accept what they refuse,
since they check a drop when it is taken in. It must never refuse what they accept;
tests/sendmail/test_sendmail_syntax.py compares the two.
"""

import os
import re
from collections.abc import Callable, Iterable

_NO_TEXT = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
_ATEXT = rf'[^ "(),.:;<>@\[\\\]{_NO_TEXT}]'
_DOT_STRING = re.compile(rf"\.*{_ATEXT}(?:{_ATEXT}|\.)*")
_QUOTED_STRING = re.compile(rf'"(?:[^"\\{_NO_TEXT}]|\\[ -~])*"')
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_OTHER_LABEL = re.compile(rf'[^ "(),:;<>@\[\\\]{_NO_TEXT}]+')
_LITERAL = re.compile(r"\[[A-Za-z0-9.:]+\]")
_NO_NAME = re.compile(r'[!%"=]')
_MAX_LOCAL_PART, _MAX_DOMAIN, _MAX_ADDRESS = 64, 255, 254
"""Octets (RFC 5321 4.5.3.1); the last is without the angle brackets."""

_XTEXT = r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})"
_PARAMETERS: dict[str, tuple[re.Pattern[str], str]] = {
    "SIZE": (re.compile("[0-9]{1,20}"), "a number of octets"),
    "BODY": (re.compile("7BIT|8BITMIME", re.IGNORECASE), "7BIT or 8BITMIME"),
    "RET": (re.compile("FULL|HDRS", re.IGNORECASE), "FULL or HDRS"),
    "ENVID": (re.compile(rf"(?=.{{1,100}}$){_XTEXT}+"), "xtext, at most 100 characters (RFC 3461 4)"),
    "AUTH": (re.compile(f"<>|{_XTEXT}+"), "<> or an address in xtext (RFC 4954 5)"),
    "ORCPT": (
        re.compile(r"(?=.{1,500}$)[A-Za-z0-9-]+;[^ =]+"),
        "type;address, the address in xtext (RFC 3461 4.2)",
    ),
}
_KINDS = {"SUCCESS", "FAILURE", "DELAY"}


def wrong_address(address: str) -> str:
    """Return what is wrong with an address, or with a name without a domain; empty: nothing.

    Args:
        address: without brackets, decoded by `os.fsdecode`.
    """
    try:
        address = os.fsencode(address).decode()
    except UnicodeError:
        return "the address is not UTF-8"
    found = (_QUOTED_STRING if address.startswith('"') else _DOT_STRING).match(address)
    if found is None:
        return "the local part is empty, or has a character that must be quoted"
    local_part, rest = found.group(), address[found.end() :].removesuffix(".")
    if len(local_part.encode()) > _MAX_LOCAL_PART or len((local_part + rest).encode()) > _MAX_ADDRESS:
        return f"the address is longer than {_MAX_ADDRESS} octets, or its local part than {_MAX_LOCAL_PART}"
    if not rest:
        return "the address has no domain; write it as name@domain" if _NO_NAME.search(address) else ""
    if rest[0] != "@":
        return "the local part has a character that must be quoted"
    return _wrong_domain(rest[1:])


def _wrong_domain(domain: str) -> str:
    if not domain:
        return "the domain after @ is missing"
    if len(domain.encode()) > _MAX_DOMAIN:
        return f"the domain is longer than {_MAX_DOMAIN} octets"
    if domain.startswith("["):
        return "" if _LITERAL.fullmatch(domain) else "the address literal is neither [IPv4] nor [IPv6:...]"
    # Only the receiver checks non-ASCII labels against IDNA, whose tables are large.
    patterns = ((label, _LABEL if label.isascii() else _OTHER_LABEL) for label in domain.split("."))
    if all(pattern.fullmatch(label) for label, pattern in patterns):
        return ""
    return "the domain has an empty, overlong or malformed label"


def wrong_parameters(given: Iterable[str]) -> str:
    """Return what is wrong with the known ones among parameters of MAIL or RCPT; empty: nothing."""
    seen = set[str]()
    for each in given:
        name, equals, value = each.partition("=")
        name = name.upper()
        if name in seen:
            return f"{name} is given twice"
        seen.add(name)
        if wrong := _CHECKS.get(name, _wrong_value)(name, equals + value):
            return wrong
    return ""


def _wrong_value(name: str, value: str) -> str:
    if name not in _PARAMETERS:
        return ""
    pattern, words = _PARAMETERS[name]
    return "" if pattern.fullmatch(value.removeprefix("=")) else f"{name} must be {words}"


def _wrong_smtputf8(_: str, value: str) -> str:
    return "SMTPUTF8 takes no value" if value else ""


def _wrong_notify(_: str, value: str) -> str:
    value = value.removeprefix("=").upper()
    kinds = value.split(",")
    if value == "NEVER" or (len(set(kinds)) == len(kinds) and _KINDS.issuperset(kinds)):
        return ""
    return "NOTIFY must be NEVER or a list of SUCCESS, FAILURE, DELAY"


_CHECKS: dict[str, Callable[[str, str], str]] = {"SMTPUTF8": _wrong_smtputf8, "NOTIFY": _wrong_notify}


def wrong_text(text: bytes) -> str:
    """Return the refusal of a message that no receiver would accept; empty: one might accept it."""
    if b"\0" in text:
        return "554 5.6.0 The message has a NUL character; encode binary parts in base64"
    if not text.count(b"\r\n") == text.count(b"\n") == text.count(b"\r"):
        return "550 5.5.2 The message has a bare CR or LF; every line must end with CR LF"
    return ""
