"""Parse SPF records (RFC 7208 4.6, 5, 7.1) without look-ups.

A record is parsed as a whole before any of it is evaluated, because an error anywhere invalidates it (4.6).
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote

from mailer.mail.reply import printable


class Result(StrEnum):
    """The result of evaluating a policy for an address (2.6)."""

    PASS = "pass"  # noqa: S105 - RFC 7208's word, no password
    FAIL = "fail"
    SOFTFAIL = "softfail"
    NEUTRAL = "neutral"
    NONE = "none"
    """No SPF policy was found."""
    TEMPERROR = "temperror"
    """DNS did not answer."""
    PERMERROR = "permerror"
    """The policy is invalid, and none of it applies."""


class Unusable(ValueError):
    """The policy is invalid (permerror); the text says why."""


def policies(records: Sequence[str]) -> list[str]:
    """Return the SPF policies among a name's TXT records (4.5)."""
    return [record for record in records if record.lower().split(" ")[0] == "v=spf1"]


_QUALIFIERS = {"+": Result.PASS, "-": Result.FAIL, "~": Result.SOFTFAIL, "?": Result.NEUTRAL}
_DIRECTIVE = re.compile(
    r"([+~?-]?)(all|include|a|mx|ptr|ip4|ip6|exists)(?![A-Za-z0-9_.-])(.*)", re.IGNORECASE
)
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)")
_CIDR = re.compile(r"(?:/(0|[1-9]\d?))?(?://(0|[1-9]\d{0,2}))?\Z", re.ASCII)
_MACRO = re.compile(r"%\{([slodiphcrtv])(\d{0,3})(r?)([.+,/_=-]*)\}|%([%_-])", re.IGNORECASE)
_LITERALS = {"%": "%", "_": " ", "-": "%20"}
_TOP_LABEL = re.compile(r"(?!\d+\Z)[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Directive:
    """A mechanism with its qualifier and its arguments."""

    text: str
    result: Result
    mechanism: str
    target: str
    """The domain-spec, macros unexpanded; for `ip4` and `ip6` the network."""
    four: int = 32
    six: int = 128


@dataclass(frozen=True, slots=True)
class SpfRecord:
    """A parsed record."""

    directives: tuple[Directive, ...]
    redirect: str
    """The domain-spec of `redirect=`, macros unexpanded; empty: there is none."""


def parse(record: str) -> SpfRecord:
    """Parse a record that begins with `v=spf1`; raises Unusable."""
    directives: list[Directive] = []
    modifiers: dict[str, str] = {}
    for term in filter(None, record.split(" ")[1:]):
        if found := _DIRECTIVE.fullmatch(term):
            directives.append(_directive(term, *found.groups()))
        elif found := _MODIFIER.fullmatch(term):
            name, value = found[1].lower(), found[2]
            if name in {"redirect", "exp"}:
                if name in modifiers:
                    raise Unusable(f"{name}= occurs twice")
                _check_domain_spec(term, value)
            _check_macros(term, value)
            modifiers[name] = value
        else:
            raise Unusable(f'"{printable(term, 100)}" is not a term of SPF')
    return SpfRecord(tuple(directives), modifiers.get("redirect", ""))


def _directive(term: str, qualifier: str, name: str, rest: str) -> Directive:
    mechanism, result = name.lower(), _QUALIFIERS[qualifier or "+"]
    wrong = Unusable(f'"{printable(term, 100)}" is malformed')
    if mechanism == "all":
        if rest:
            raise wrong
        return Directive(term, result, mechanism, "")
    if mechanism in {"ip4", "ip6"}:
        return Directive(term, result, mechanism, _network(mechanism, rest, wrong))
    four, six = 32, 128
    if mechanism in {"a", "mx"} and (cidr := _CIDR.search(rest)):
        rest = rest[: cidr.start()]
        four, six = int(cidr[1] or 32), int(cidr[2] or 128)
        if four > 32 or six > 128:
            raise wrong
    if rest and (not rest.startswith(":") or len(rest) == 1):
        raise wrong
    target = rest[1:]
    if not target and mechanism in {"include", "exists"}:
        raise wrong
    if target:
        _check_domain_spec(term, target)
    return Directive(term, result, mechanism, target, four, six)


def _network(mechanism: str, rest: str, wrong: Unusable) -> str:
    text = rest[1:]
    _, slash, length = text.partition("/")
    if not rest.startswith(":") or (slash and not re.fullmatch(r"0|[1-9]\d{0,2}", length, re.ASCII)):
        raise wrong
    kind = ipaddress.IPv4Network if mechanism == "ip4" else ipaddress.IPv6Network
    try:
        return str(kind(text, strict=False))
    except ValueError:
        raise wrong from None


def _check_domain_spec(term: str, spec: str) -> None:
    """Raise Unusable unless a domain-spec ends in a macro or in a valid top-level label (7.1)."""
    _check_macros(term, spec)
    if not re.search(r"%\{[^}]*\}\Z", spec):
        stem, dot, top = spec.removesuffix(".").rpartition(".")
        if not dot or not stem or not _TOP_LABEL.fullmatch(top):
            raise Unusable(f'"{printable(term, 100)}" does not name a domain')


def _check_macros(term: str, text: str) -> None:
    left = _MACRO.sub("", text)
    if "%" in left or any(not "!" <= character <= "~" for character in left):
        raise Unusable(f'"{printable(term, 100)}" has an unknown macro or an invalid character')
    for macro in _MACRO.finditer(text):
        if (macro[1] or "").lower() in {"c", "r", "t"}:
            raise Unusable(f'"{printable(term, 100)}" has a macro that only explanations may have')
        if macro[2] and not int(macro[2]):
            raise Unusable(f'"{printable(term, 100)}" keeps none of the labels of a macro')


@dataclass(frozen=True, slots=True)
class Macros:
    """Expands macros (7.2) in the evaluation for one message."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    sender_domain: str
    helo: str

    def expand(self, spec: str, domain: str) -> str:
        """Return a domain-spec with its macros expanded; too long a name is shortened from the left (7.3)."""
        name = _MACRO.sub(lambda macro: self._value(macro, domain), spec).removesuffix(".")
        while len(name) > 253 and "." in name:
            name = name.partition(".")[2]
        return name

    def _value(self, macro: re.Match[str], domain: str) -> str:
        letter, keep, turn, delimiters, literal = macro.groups()
        if literal:
            return _LITERALS[literal]
        four = self.address.version == 4
        values = {
            "s": f"postmaster@{self.sender_domain}",
            "l": "postmaster",
            "o": self.sender_domain,
            "d": domain,
            "i": str(self.address) if four else ".".join(self.address.exploded.replace(":", "")),
            "p": "unknown",  # 7.3: its value if no name was validated
            "v": "in-addr" if four else "ip6",
            "h": self.helo or "unknown",
        }
        parts = re.split(f"[{re.escape(delimiters or '.')}]", values[letter.lower()])
        if turn:
            parts.reverse()
        if keep:
            parts = parts[-int(keep) :]
        text = ".".join(parts)
        return quote(text, safe="") if letter.isupper() else text
