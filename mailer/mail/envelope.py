"""The envelope (RFC 5321 2.3.1): sender, recipients and their parameters, separate from the header."""

import msgspec


class Recipient(msgspec.Struct, frozen=True):
    """One forward-path, byte-exact as the client gave it, without its angle brackets."""

    address: str
    notify: str = ""
    """NOTIFY of RFC 3461 4.1, upper case (`NEVER`, or a list such as `SUCCESS,DELAY`); empty: not given."""
    orcpt: str = ""
    """ORCPT of RFC 3461 4.2, still xtext-encoded (`rfc822;bob@example.net`); empty: not given."""

    def wants(self, kind: str) -> bool:
        """Return whether the sender wants a DSN of this kind: `SUCCESS`, `FAILURE` or `DELAY`.

        Without NOTIFY the sender gets DSNs for failures and delays (RFC 3461 4.1).
        """
        return kind in (self.notify.split(",") if self.notify else ("FAILURE", "DELAY"))


class Envelope(msgspec.Struct, frozen=True):
    """The sender, recipients and options of one transaction."""

    sender: str
    """The reverse-path without brackets; the empty string is the null sender `<>`."""
    recipients: tuple[Recipient, ...]
    body: str = ""
    """BODY of RFC 6152: `7BIT`, `8BITMIME`, or empty when not given."""
    smtputf8: bool = False
    ret: str = ""
    """RET of RFC 3461 4.3: `FULL`, `HDRS` or empty."""
    envid: str = ""
    """ENVID of RFC 3461 4.4, still xtext-encoded; empty: not given."""
