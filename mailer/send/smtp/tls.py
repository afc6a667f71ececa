"""TLS to a next hop: contexts, and descriptions of sessions and failures.

asyncio imports `ssl` in any case. Loading the system's certificates is what costs time (*measured: 35 ms*),
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
    """Return the client's context: TLS 1.2 or later (RFC 8996), the system's CAs (or `$SSL_CERT_FILE`).

    Args:
        verify: false accepts any certificate, for opportunistic TLS (RFC 7435: some protection rather than
            none) and for `insecureSkipVerify`.
    """
    made = ssl.create_default_context()
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def describe(connection: ssl.SSLObject | None, *, verified: bool) -> str:
    """Describe a session for the journal: `TLSv1.3 TLS_AES_256_GCM_SHA384 verified`; empty without TLS.

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
    """Return when a certificate expires, in seconds since the epoch; None if it was not verified."""
    end = certificate.get("notAfter")
    return float(ssl.cert_time_to_seconds(end)) if isinstance(end, str) else None


def failure(error: OSError | ValueError) -> tuple[str, bool]:
    """Return why a handshake failed, without OpenSSL's file names and lines, and whether it is temporary."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return printable(f"certificate verify failed: {error.verify_message}"), False
    if isinstance(error, ssl.SSLError):
        return f"TLS handshake failed: {(error.reason or str(error)).replace('_', ' ').lower()}", True
    if isinstance(error, TimeoutError):
        return os.strerror(errno.ETIMEDOUT), True
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno else "connection closed by the server", True
    return printable(f"no certificate can name this host: {error}"), False
