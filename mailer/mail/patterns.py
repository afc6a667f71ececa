"""Match addresses against an operator's patterns: `bob@example.com`, `example.com`, or `*` for all."""

from functools import lru_cache
from typing import Self

import msgspec

from mailer.mail.address import a_labels, check_address, unquoted


class AddressPatterns(msgspec.Struct, frozen=True):
    """A set of addresses and domains in the form that `compared` returns."""

    everybody: bool
    members: frozenset[str]

    @classmethod
    def of(cls, patterns: tuple[str, ...]) -> Self:
        """Parse patterns; `@example.com` means the same as `example.com`."""
        return cls("*" in patterns, frozenset(compared(pattern).removeprefix("@") for pattern in patterns))

    def match(self, address: str) -> bool:
        if self.everybody:
            return True
        plain = compared(address)
        return plain in self.members or plain.rpartition("@")[2] in self.members


def can_match(pattern: str) -> bool:
    """Return whether a pattern is `*`, an address, `localhost`, or a domain with a dot."""
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
    """Return a text with its ASCII letters, and no others, in lower case."""
    # bytes.lower() changes ASCII letters only.
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def compared(address: str) -> str:
    """Return the canonical form of an address or a domain, for comparison.

    In a local part only ASCII letters are folded: the lower case of KELVIN SIGN is `k`, which may be another
    mailbox. A domain is converted to its DNS form.
    """
    local, at, domain = address.rpartition("@")
    return f"{folded(unquoted(local))}{at}{a_labels(domain)}"


@lru_cache(maxsize=16)
def spellings(text: str) -> tuple[str, ...]:
    """Return the forms in which addresses that contain a text may be written, case-folded.

    The second form, of a text beyond ASCII, has its domain as DNS has it. Most libraries submit that one, and
    people search for the other.
    """
    local, at, domain = text.rpartition("@")
    in_dns = text if text.isascii() else f"{local}{at}{a_labels(domain)}"
    return tuple(dict.fromkeys((text.casefold(), in_dns.casefold())))


def is_part_of(text: str, address: str) -> bool:
    """Return whether an address contains a text, in any of its `spellings`."""
    folded_address = address.casefold()
    return any(form in folded_address for form in spellings(text))
