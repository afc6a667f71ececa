"""Match a recipient against the rules of `routes`: plain values in, the position of a rule out."""

from collections.abc import Callable, Sequence
from functools import partial

from mailer.config.routing import HeaderMatch, RouteRule, listed
from mailer.mail import header
from mailer.mail.address import a_labels
from mailer.mail.patterns import compared, folded

_Test = Callable[[str], bool]


class Mail:
    """What rules look at in addition to the recipient."""

    def __init__(
        self, sender: str, user: str, read_header: Callable[[], bytes | None], *, released: bool = False
    ) -> None:
        """Take the values.

        Args:
            sender: the reverse-path; empty for the null sender.
            user: the login; empty if there was none.
            read_header: called once at most, and only if a rule needs it; returns None if the header is too
                large.
            released: whether the operator released the message, so that no rule holds it again.
        """
        self.sender = sender
        self.user = user
        self.released = released
        self._read_header = read_header
        self._header: bytes | None = None
        self._is_read = False

    @property
    def header(self) -> bytes | None:
        if not self._is_read:
            self._header, self._is_read = self._read_header(), True
        return self._header


class Rules:
    """The rules of `routes`, prepared for matching."""

    def __init__(self, rules: Sequence[RouteRule]) -> None:
        self._rules = [_Rule(rule) for rule in rules]

    def __len__(self) -> int:
        return len(self._rules)

    def first(self, mail: Mail, address: str) -> int:
        """Return the position of the first rule that matches; the number of rules if none does.

        Args:
            mail: the message.
            address: a recipient. One without a domain (`postmaster`) matches no `recipientDomain`.
        """
        domain = a_labels(address.rpartition("@")[2]) if "@" in address else ""
        for at, rule in enumerate(self._rules):
            if rule.matches(mail, domain):
                return at
        return len(self._rules)


class _Rule:
    def __init__(self, rule: RouteRule) -> None:
        self._holds = bool(rule.hold)
        self._senders = [_sender_test(pattern) for pattern in listed(rule.sender)]
        self._domains = [_domain_test(pattern) for pattern in listed(rule.recipient_domain)]
        self._users = frozenset(listed(rule.user))
        self._header = rule.header

    def matches(self, mail: Mail, domain: str) -> bool:
        """Tell whether all conditions hold; the header is checked last, because it must be read first."""
        if self._holds and mail.released:
            return False
        if self._domains and not (domain and any(test(domain) for test in self._domains)):
            return False
        if self._senders and not any(test(mail.sender) for test in self._senders):
            return False
        if self._users and mail.user not in self._users:
            return False
        if self._header is None:
            return True
        # A header that is too large may have the field, so the mail must not pass a rule that holds mail.
        return self._holds if mail.header is None else _has_field(mail.header, self._header)


def _sender_test(pattern: str) -> _Test:
    if pattern == "<>":
        return lambda sender: not sender
    if "@" in pattern.removeprefix("@"):
        wanted = compared(pattern)
        return lambda sender: compared(sender) == wanted
    of_domain = _domain_test(pattern.removeprefix("@"))
    return lambda sender: bool(sender) and of_domain(a_labels(sender.rpartition("@")[2]))


def _domain_test(pattern: str) -> _Test:
    """Return a test of a domain in A-labels."""
    if pattern == "*":
        return lambda _: True
    if pattern.startswith(("*.", ".")):
        ending = "." + a_labels(pattern.removeprefix("*").removeprefix("."))
        return lambda domain: domain.endswith(ending)
    wanted = a_labels(pattern)
    return lambda domain: domain == wanted


def _has_field(head: bytes, wanted: HeaderMatch) -> bool:
    if wanted.value is not None:
        return folded(wanted.value.strip()) in _values(head, wanted.name)
    assert wanted.matches is not None
    fits = partial(_glob, folded(wanted.matches.strip()).split("*"))
    return any(map(fits, _values(head, wanted.name)))


def _values(head: bytes, name: str) -> list[str]:
    found = header.values(head, name.lower().encode())
    return [folded(value.replace(b"\r\n", b"").decode("utf-8", "replace").strip()) for value in found]


def _glob(parts: Sequence[str], text: str) -> bool:
    """Match the parts between stars, each in time linear in the text."""
    if len(parts) == 1:
        return text == parts[0]
    first, *middle, last = parts
    if not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return at <= end
