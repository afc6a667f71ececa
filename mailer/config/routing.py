"""The part of the model that says which mail goes which way: `routes`, the first rule that matches counts."""

from typing import Annotated, Any

import msgspec

from mailer.config.kinds import Group, Name
from mailer.mail.lazy_pattern import compile_late

Names = Name | Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
"""One pattern, or a list of which one must match."""

_HEADER = compile_late(r"[!-9;-~]+")
"""RFC 5322 2.2: printable characters but the colon."""


class HeaderMatch(Group, frozen=True, kw_only=True):
    """A field of the header as it was accepted; any of several fields of that name may match.

    Folding is undone, the case of ASCII letters ignored; encoded words (RFC 2047) are not decoded.
    """

    name: Name
    value: str | None = None
    """The whole value, less the white space around it."""
    matches: Name | None = None
    """As `value`, with `*` for any text; `*` alone: the field is there."""

    @property
    def fault(self) -> str:
        """Why it cannot be used; empty: it can."""
        if not _HEADER.fullmatch(self.name):
            return "name is no name of a header field"
        if (self.value is None) == (self.matches is None):
            return 'needs either "value" or "matches"'
        return ""


class RouteRule(Group, frozen=True, kw_only=True):
    """One rule: conditions, which must all hold, and where such mail goes. Without a condition: all mail."""

    sender: Names = ()
    """The envelope sender: an address, a domain, `.example.com` or `*.example.com` (all domains below), `*`,
    or `<>`, which notifications come from and which no other pattern matches."""
    recipient_domain: Names = ()
    """A domain, all domains below one, or `*`, as above."""
    user: Names = ()
    """The login, exactly as it was used. Notifications have none."""
    header: HeaderMatch | None = None

    provider: str = ""
    """The name of a provider, or its host: see `Provider.label`."""
    direct: bool = False
    """To the recipient's own exchangers, also while `directDelivery.enabled` is false."""
    local: bool = False
    """Into the local Maildir."""
    hold: str = ""
    """Not sent; the operator releases or removes it. The text is the reason, for the operator."""
    fallback: bool = False
    """Trouble sends it on to the routes of mail that no rule matches; off: it waits for this one."""

    @property
    def destinations(self) -> tuple[str, ...]:
        """The keys that say where mail goes; a rule that can be used has one."""
        return tuple(key for key in ("provider", "direct", "local", "hold") if getattr(self, key))

    @property
    def conditions(self) -> dict[str, Any]:
        """What it demands, by key, lists in one order."""
        demands: dict[str, Any] = {
            field.encode_name: listed(value)
            for field in msgspec.structs.fields(self)
            if field.name in {"sender", "recipient_domain", "user"} and (value := getattr(self, field.name))
        }
        return demands | ({"header": self.header} if self.header else {})

    @property
    def written(self) -> dict[str, object]:
        """The conditions, written so that an operator recognises the rule."""
        demands = self.conditions
        if self.header:
            demands["header"] = {
                key: value for key, value in msgspec.to_builtins(self.header).items() if value is not None
            }
        return demands


def listed(names: Names) -> tuple[str, ...]:
    """Return one pattern as a list of one."""
    return (names,) if isinstance(names, str) else names
