"""Sets of addresses as the operator writes them: `bob@example.com`, `example.com`, or `*` for all."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class AddressPatterns:
    """A set of addresses; compared without case, because people write it as they like."""

    everybody: bool
    members: frozenset[str]

    @classmethod
    def of(cls, patterns: tuple[str, ...]) -> Self:
        """Read patterns; `@example.com` means the same as `example.com`."""
        return cls("*" in patterns, frozenset(pattern.lower().removeprefix("@") for pattern in patterns))

    def match(self, address: str) -> bool:
        if self.everybody:
            return True
        folded = address.lower()
        return folded in self.members or folded.rpartition("@")[2] in self.members
