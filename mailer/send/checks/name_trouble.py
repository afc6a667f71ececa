"""Advice for when a name server did not answer, since "try again" would not help."""

import re

_SERVERS = re.compile(r"name servers (?:did not answer in time|failed: [^()]*) ?\(([^()]+)\)")


def servers_in(words: str) -> str:
    """Return the name servers that gave no usable answer according to a finding's text; empty: none."""
    found = _SERVERS.search(words)
    return found[1] if found else ""


def todo(words: object) -> str:
    """Return what to do about names that could not be looked up."""
    servers = servers_in(str(words)) or "the name server"
    return f"repair {servers}, or set another one in dns.nameservers (--resolver ADDRESS tries one)"
