"""What to do when a name server did not answer; "ask it again" would not help."""

import re

_SERVERS = re.compile(r"name servers (?:did not answer in time|failed: [^()]*) ?\(([^()]+)\)")


def servers_in(words: str) -> str:
    """Return the name servers that, as a finding says, gave no usable answer; empty: they did."""
    found = _SERVERS.search(words)
    return found[1] if found else ""


def todo(words: object) -> str:
    """Say what to do about names that could not be looked up."""
    servers = servers_in(str(words)) or "the name server"
    return f"mend {servers}, or name another one in dns.nameservers (--resolver ADDRESS tries one)"
