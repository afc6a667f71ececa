"""Who is this host itself."""

UNIX = "unix"
"""The peer's name on a Unix socket, which has no address."""


def is_local(peer: str) -> bool:
    """Tell whether a peer is on this host: a Unix socket, or loopback as the kernel writes it.

    IPv4 in IPv6 clothes counts.
    """
    return peer in {UNIX, "::1"} or peer.removeprefix("::ffff:").startswith("127.")
