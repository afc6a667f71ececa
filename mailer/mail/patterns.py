"""Sets of addresses as the operator writes them: `bob@example.com`, `example.com`, or `*` for all."""

from typing import Self

import msgspec

from mailer.mail.address import a_labels, check_address, unquoted


class AddressPatterns(msgspec.Struct, frozen=True):
    """A set of addresses, compared as `compared` has it."""

    everybody: bool
    members: frozenset[str]

    @classmethod
    def of(cls, patterns: tuple[str, ...]) -> Self:
        """Read patterns; `@example.com` means the same as `example.com`."""
        return cls("*" in patterns, frozenset(compared(pattern).removeprefix("@") for pattern in patterns))

    def match(self, address: str) -> bool:
        if self.everybody:
            return True
        plain = compared(address)
        return plain in self.members or plain.rpartition("@")[2] in self.members


def can_match(pattern: str) -> bool:
    """Tell whether a pattern is `*`, an address, `localhost`, or a domain that has a dot."""
    if "*" in pattern:  # `*@example.com` would be one mailbox of that name
        return pattern == "*"
    local, _, domain = pattern.rpartition("@")
    if not local and "." not in domain and domain.lower() != "localhost":
        return False
    try:
        check_address(f"{local or 'any'}@{domain}")
    except ValueError:
        return False
    return True


def folded(text: str) -> str:
    """Return a text with its ASCII letters in lower case, and no others."""
    # The lower() of bytes knows ASCII alone.
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def compared(address: str) -> str:
    """Return the one spelling of an address, or of a domain, that all its spellings are compared by.

    People write ASCII letters in either case. In a local part no others are folded: the lower case of KELVIN
    SIGN is `k`, and whose mailbox that is nobody knows. A domain is compared as DNS has it.
    """
    local, at, domain = address.rpartition("@")
    return f"{folded(unquoted(local))}{at}{a_labels(domain)}"
