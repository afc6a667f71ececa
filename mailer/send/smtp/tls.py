"""TLS to a next hop: contexts, and certificate trouble in words.

asyncio imports `ssl` in any case; what costs time is loading the system's certificates (*measured: 35 ms*),
so a context is made when the first session needs it, and then shared.
"""

import errno
import os
import ssl
from collections.abc import Mapping
from functools import cache

from mailer.mail.reply import printable


@cache
def context(*, verify: bool) -> ssl.SSLContext:
    """The client's context: TLS 1.2 or later (RFC 8996), the system's certificates (or `$SSL_CERT_FILE`).

    Args:
        verify: false takes any certificate: opportunistic TLS (RFC 7435: some protection rather than none)
            and `insecureSkipVerify`.
    """
    made = ssl.create_default_context()
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def describe(connection: ssl.SSLObject | None, *, verified: bool) -> str:
    """What the journal says of a session: `TLSv1.3 TLS_AES_256_GCM_SHA384 verified`; empty without TLS.

    Args:
        connection: after the handshake.
        verified: whether the certificate was checked; one that fails the check ends the handshake.
    """
    if connection is None:
        return ""
    cipher = connection.cipher()
    words = (connection.version(), cipher[0] if cipher else "", "verified" if verified else "not verified")
    return " ".join(word for word in words if word)


def end_of(certificate: Mapping[str, object]) -> float | None:
    """When a certificate expires, in seconds since the epoch; None for one that was not verified."""
    end = certificate.get("notAfter")
    return float(ssl.cert_time_to_seconds(end)) if isinstance(end, str) else None


def failure(error: OSError | ValueError) -> tuple[str, bool]:
    """What went wrong in a handshake, without OpenSSL's file names and lines, and whether it may pass."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return printable(f"certificate verify failed: {error.verify_message}"), False
    if isinstance(error, ssl.SSLError):
        return f"TLS handshake failed: {(error.reason or str(error)).replace('_', ' ').lower()}", True
    if isinstance(error, TimeoutError):
        return os.strerror(errno.ETIMEDOUT), True
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno else "connection closed by the server", True
    return printable(f"no certificate can name this host: {error}"), False
