"""Parse the extensions that an EHLO reply offers, and build MAIL and RCPT commands that use them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mailer.mail.envelope import Envelope, Recipient
from mailer.mail.reply import Reply


@dataclass(frozen=True, slots=True)
class Limits:
    """A server's limits (RFC 9422 4); 0: not announced."""

    transactions: int = 0
    """MAILMAX: transactions in one session."""
    recipients: int = 0
    """RCPTMAX: recipients in one transaction."""
    domains: int = 0
    """RCPTDOMAINMAX: recipient domains in one transaction."""

    @classmethod
    def of(cls, parameters: Sequence[str]) -> "Limits":
        """Parse the parameters of LIMITS; ignore unknown names, and values other than positive numbers."""
        said = dict(parameter.partition("=")[::2] for parameter in parameters)
        read = {name: int(value) for name, value in said.items() if _LIMIT.fullmatch(value)}
        return cls(read.get("MAILMAX", 0), read.get("RCPTMAX", 0), read.get("RCPTDOMAINMAX", 0))

    def take(self, addresses: Sequence[str]) -> list[bool]:
        """Tell for each recipient whether it fits into one transaction; earlier recipients are preferred."""
        taken: list[bool] = []
        domains: set[str] = set()
        for address in addresses:
            domain = address.rpartition("@")[2].lower()
            fits = not self.domains or domain in domains or len(domains) < self.domains
            if self.recipients and sum(taken) >= self.recipients:
                fits = False
            if fits:
                domains.add(domain)
            taken.append(fits)
        return taken


NO_LIMITS = Limits()
_LIMIT = re.compile(r"[1-9][0-9]{0,5}", re.ASCII)  # RFC 9422 4: six digits at most


@dataclass(frozen=True, slots=True)
class Extensions:
    """Service extensions of one session (RFC 5321 2.2); the default is for servers that only know HELO."""

    pipelining: bool = False  # RFC 2920
    eightbitmime: bool = False  # RFC 6152
    smtputf8: bool = False  # RFC 6531
    dsn: bool = False  # RFC 3461
    starttls: bool = False  # RFC 3207
    sizes: bool = False
    """SIZE was offered (RFC 1870), with or without a limit."""
    size_limit: int = 0
    """The limit in octets; 0: none, or not announced."""
    auth: tuple[str, ...] = ()
    """Mechanisms, upper case, in the server's order."""
    limits: Limits = NO_LIMITS

    @classmethod
    def of(cls, reply: Reply) -> "Extensions":
        """Parse an EHLO reply: a greeting, then lines with keywords in any case (RFC 5321 4.1.1.1)."""
        offered: dict[str, list[str]] = {}
        for line in reply.lines[1:]:
            # Some servers still offer "AUTH=PLAIN LOGIN", for clients of 1998.
            keyword, *parameters = line.upper().replace("AUTH=", "AUTH ", 1).split() or [""]
            offered.setdefault(keyword, []).extend(parameters)
        limit = "".join(offered.get("SIZE", [])[:1])
        return cls(
            pipelining="PIPELINING" in offered,
            eightbitmime="8BITMIME" in offered,
            smtputf8="SMTPUTF8" in offered,
            dsn="DSN" in offered,
            starttls="STARTTLS" in offered,
            sizes="SIZE" in offered,
            size_limit=int(limit) if limit.isascii() and limit.isdigit() and len(limit) <= 20 else 0,
            auth=tuple(dict.fromkeys(offered.get("AUTH", []))),
            limits=Limits.of(offered["LIMITS"]) if "LIMITS" in offered else NO_LIMITS,
        )


def mail_command(envelope: Envelope, size: int, offered: Extensions, *, utf8: bool) -> bytes:
    """Return `MAIL FROM` with the parameters that the server supports, and without others (RFC 5321 2.2.1).

    For a server without 8BITMIME, BODY=8BITMIME is left out and the 8-bit message is sent unchanged.
    Converting it would break its signatures and our promise that the bytes sent are the bytes accepted. Exim,
    qmail and OpenSMTPD do the same; servers that really strip the eighth bit are gone from the field.

    Args:
        envelope: the message's envelope; its recipients are not used.
        size: octets of the message.
        offered: the extensions of this session.
        utf8: whether the transaction needs SMTPUTF8, which the caller knows to be offered.
    """
    command = f"MAIL FROM:<{envelope.sender}>"
    if offered.sizes:
        command += f" SIZE={size}"
    if offered.eightbitmime and envelope.body == "8BITMIME":
        command += " BODY=8BITMIME"
    if utf8:
        command += " SMTPUTF8"
    if offered.dsn:
        command += f" RET={envelope.ret}" * bool(envelope.ret) + f" ENVID={envelope.envid}" * bool(
            envelope.envid
        )
    return command.encode()


def rcpt_command(recipient: Recipient, offered: Extensions) -> bytes:
    command = f"RCPT TO:<{recipient.address}>"
    if offered.dsn:
        if recipient.notify:
            command += f" NOTIFY={recipient.notify}"
        # RFC 6533 3: an address beyond ASCII stands unencoded only where the server offers SMTPUTF8.
        if recipient.orcpt and (offered.smtputf8 or recipient.orcpt.isascii()):
            command += f" ORCPT={recipient.orcpt}"
    return command.encode()
