"""Configuration of routing rules (`routes`); the first rule that matches counts."""

from typing import Annotated, Any

import msgspec

from mailer.config.key_types import Group, Name
from mailer.mail.lazy_pattern import compile_late

Names = Name | Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
"""One pattern, or a list of patterns of which at least one must match."""

_HEADER = compile_late(r"[!-9;-~]+")
"""RFC 5322 2.2: printable characters except the colon."""


class HeaderMatch(Group, frozen=True, kw_only=True):
    """A condition on a field of the header as accepted; any of several fields of that name may match.

    Values are unfolded, and the case of ASCII letters is ignored; encoded words (RFC 2047) are not decoded.
    """

    name: Name
    value: str | None = None
    """The whole value, without surrounding white space."""
    matches: Name | None = None
    """As `value`, with `*` for any text; `*` alone: the field exists."""

    @property
    def fault(self) -> str:
        """Why the condition is invalid; empty: it is valid."""
        if not _HEADER.fullmatch(self.name):
            return "name is not a possible name of a header field"
        if (self.value is None) == (self.matches is None):
            return 'needs either "value" or "matches"'
        return ""


class RouteRule(Group, frozen=True, kw_only=True):
    """A rule: conditions, which must all hold, and a destination. Without conditions it matches all mail."""

    sender: Names = ()
    """The envelope sender: an address, a domain, `.example.com` or `*.example.com` (all subdomains), `*`,
    or `<>`, the sender of notifications, which no other pattern matches."""
    recipient_domain: Names = ()
    """A domain, all subdomains of one, or `*`, written as above."""
    user: Names = ()
    """The login, exactly as it was used. Notifications have none."""
    header: HeaderMatch | None = None

    provider: str = ""
    """The name of a provider, or its host: see `Provider.label`."""
    direct: bool = False
    """Send to the recipient domain's mail exchangers, even if `directDelivery.enabled` is false."""
    local: bool = False
    """Deliver into the local Maildir."""
    hold: str = ""
    """Do not send; the operator releases or removes the mail. The text is the reason, for the operator."""
    fallback: bool = False
    """On failure, try the routes of mail that no rule matches; off: the mail waits for this destination."""

    @property
    def destinations(self) -> tuple[str, ...]:
        """The keys of the rule that set a destination; a valid rule has exactly one."""
        return tuple(key for key in ("provider", "direct", "local", "hold") if getattr(self, key))

    @property
    def conditions(self) -> dict[str, Any]:
        """The conditions, by key; single patterns are lists of one."""
        demands: dict[str, Any] = {
            field.encode_name: listed(value)
            for field in msgspec.structs.fields(self)
            if field.name in {"sender", "recipient_domain", "user"} and (value := getattr(self, field.name))
        }
        return demands | ({"header": self.header} if self.header else {})

    @property
    def written(self) -> dict[str, object]:
        """The conditions in the form of the file, so that an operator recognises the rule."""
        demands = self.conditions
        if self.header:
            demands["header"] = {
                key: value for key, value in msgspec.to_builtins(self.header).items() if value is not None
            }
        return demands


def listed(names: Names) -> tuple[str, ...]:
    """Return the patterns as a tuple, also if there is a single one."""
    return (names,) if isinstance(names, str) else names
