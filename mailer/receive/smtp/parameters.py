"""Parses the parameters of MAIL and RCPT (RFC 5321 4.1.2): those that EHLO offers, and AUTH."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from mailer.mail import clock
from mailer.mail.address import UTF8_NON_ASCII, check_address

_PARAMETER = re.compile(rf"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~{UTF8_NON_ASCII}]+))?")
_HOLD_FOR = re.compile(r"[1-9][0-9]{0,8}")
_HOLD_UNTIL = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_HEX = re.compile(r"\+([0-9A-F]{2})")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]+")

MAX_ENVID = 100
MAX_ORCPT = 500
"""Characters in ENVID and in ORCPT (RFC 3461 4.4 and 4.2)."""


class ParameterError(ValueError):
    """A parameter was refused; carries the code and text of the reply."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.enhanced = "5.5.4"
        self.text = text


class MailParameters(msgspec.Struct, frozen=True):
    """The parameters of a MAIL command; fields are named as in the envelope, except `hold_*`."""

    auth: str = ""
    """Checked, and not used."""
    size: int = 0
    body: str = ""
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    hold_for: int = 0
    """Seconds to hold the message (HOLDFOR of RFC 4865); 0: not given."""
    hold_until: float = 0.0
    """When to release it, in seconds since the epoch (HOLDUNTIL of RFC 4865); 0: not given."""


class RcptParameters(msgspec.Struct, frozen=True):
    """The parameters of a RCPT command; fields are named as in the recipient."""

    notify: str = ""
    orcpt: str = ""


_NO_MAIL_PARAMETERS, _NO_RCPT_PARAMETERS = MailParameters(), RcptParameters()


# An application repeats its parameters, unless it announces the size of each message.
@lru_cache(maxsize=256)
def mail_parameters(text: str) -> MailParameters:
    """Parse the parameters of MAIL.

    Raises:
        ParameterError: 501 for bad syntax, 555 for an unknown parameter.
    """
    if not text:
        return _NO_MAIL_PARAMETERS
    given = _split(text)
    parameters = MailParameters(**_take(given, _MAIL))
    if parameters.hold_for and parameters.hold_until:
        raise ParameterError(501, "HOLDFOR and HOLDUNTIL exclude each other (RFC 4865 4)")
    if given:
        raise _unknown(given, "MAIL")
    return parameters


def rcpt_parameters(text: str) -> RcptParameters:
    """Parse the parameters of RCPT.

    Raises:
        ParameterError: 501 for bad syntax, 555 for an unknown parameter.
    """
    if not text:
        return _NO_RCPT_PARAMETERS
    given = _split(text)
    parameters = RcptParameters(**_take(given, _RCPT))
    if given:
        raise _unknown(given, "RCPT")
    return parameters


def _split(text: str) -> dict[str, str]:
    """Split `KEY=value KEY`; return keys in upper case, with an empty string for a missing value."""
    given: dict[str, str] = {}
    for word in text.split(" "):
        if not word:
            continue
        found = _PARAMETER.fullmatch(word)
        if found is None:
            raise ParameterError(501, "Bad parameter syntax; expected KEYWORD or KEYWORD=value")
        keyword = found[1].upper()
        if keyword in given:
            raise ParameterError(501, f"{keyword} is given twice")
        given[keyword] = found[2] or ""
    return given


def _take(given: dict[str, str], parsers: "_Parsers") -> dict[str, Any]:
    """Parse the known ones of the given parameters, and take them out.

    Returns:
        Their values by the names of fields.
    """
    return {field: parse(given.pop(key)) for key, (field, parse) in parsers.items() if key in given}


def _unknown(given: dict[str, str], verb: str) -> ParameterError:
    keyword = next(iter(given))
    return ParameterError(555, f"{verb} parameter {keyword[:40]} is not known here; EHLO lists what is")


def _smtputf8(value: str) -> bool:
    if value:
        raise ParameterError(501, "SMTPUTF8 takes no value")
    return True


def _size(value: str) -> int:
    # RFC 1870 6: 1*20DIGIT; isdigit() alone would accept superscripts, and int() signs and underscores.
    if not (value.isdigit() and value.isascii() and len(value) <= 20):
        raise ParameterError(501, "SIZE must be a number of octets, at most 20 digits")
    return int(value)


def _one_of(keyword: str, choices: tuple[str, ...]) -> Callable[[str], str]:
    def parse(value: str) -> str:
        chosen = value.upper()
        if chosen not in choices:
            raise ParameterError(501, f"{keyword} must be {' or '.join(choices)}")
        return chosen

    return parse


def _envid(value: str) -> str:
    if not value or len(value) > MAX_ENVID or _xtext(value) is None:
        raise ParameterError(
            501, f"ENVID must be xtext of printable characters, at most {MAX_ENVID} (RFC 3461 4)"
        )
    return value


def _hold_for(value: str) -> int:
    if not _HOLD_FOR.fullmatch(value):
        raise ParameterError(501, "HOLDFOR must be seconds, 1 to 999999999 (RFC 4865 4)")
    return int(value)


def _hold_until(value: str) -> float:
    try:
        if _HOLD_UNTIL.fullmatch(value):
            named, later = clock.without_leap_second(value)
            return clock.seconds(named) + later
    except ValueError:
        pass  # the form is right and the time is not, such as a thirteenth month
    raise ParameterError(501, "HOLDUNTIL must be a time such as 2027-01-31T08:00:00Z (RFC 4865 4, RFC 3339)")


def _notify(value: str) -> str:
    value = value.upper()
    kinds = value.split(",")
    if value != "NEVER" and (
        len(set(kinds)) != len(kinds) or not {"SUCCESS", "FAILURE", "DELAY"}.issuperset(kinds)
    ):
        raise ParameterError(501, "NOTIFY must be NEVER or a list of SUCCESS, FAILURE, DELAY")
    return value


def _orcpt(value: str) -> str:
    kind, _, address = value.partition(";")
    # RFC 6533 3: a utf-8 address may stand unencoded; everything else is xtext.
    text = address.encode("ascii", "ignore").decode() if kind.lower() == "utf-8" else address
    if not (
        _ADDRESS_TYPE.fullmatch(kind) and address and len(value) <= MAX_ORCPT and _xtext(text) is not None
    ):
        raise ParameterError(501, "ORCPT must be type;address, the address in xtext (RFC 3461 4.2)")
    return value


def _auth(value: str) -> str:
    """Check the address; a submission server trusts its own AUTH, and not this parameter (RFC 4954 5)."""
    try:
        address = _xtext(value)
        if address != "<>":
            check_address(address or "")
    except ValueError:
        raise ParameterError(501, "AUTH must be <> or an address in xtext (RFC 4954 5)") from None
    return address or ""


def _xtext(value: str) -> str | None:
    """Decode xtext (RFC 3461 4); None if it is not xtext or encodes anything but printable ASCII."""
    if not _XTEXT.fullmatch(value):
        return None
    text = _HEX.sub(lambda found: chr(int(found.group(1), 16)), value)
    return text if text.isascii() and text.isprintable() else None


_Parsers = Mapping[str, tuple[str, Callable[[str], object]]]
"""The parameters of a command in the order in which they are checked: the field that each is for, and its
parser, which raises ParameterError."""

_MAIL: _Parsers = {
    "SMTPUTF8": ("smtputf8", _smtputf8),
    "AUTH": ("auth", _auth),
    "SIZE": ("size", _size),
    "BODY": ("body", _one_of("BODY", ("7BIT", "8BITMIME"))),
    "RET": ("ret", _one_of("RET", ("FULL", "HDRS"))),
    "ENVID": ("envid", _envid),
    "HOLDFOR": ("hold_for", _hold_for),
    "HOLDUNTIL": ("hold_until", _hold_until),
}
_RCPT: _Parsers = {"NOTIFY": ("notify", _notify), "ORCPT": ("orcpt", _orcpt)}
