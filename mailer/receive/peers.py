"""Who is this host itself."""


def is_loopback(peer: str) -> bool:
    """Tell whether an address, as the kernel writes it, is loopback; IPv4 in IPv6 clothes counts."""
    return peer == "::1" or peer.removeprefix("::ffff:").startswith("127.")
