"""Read a certificate's expiry from a file; Python's `ssl` can do so only for a peer's certificate."""

from datetime import UTC, datetime

from cryptography import x509


def days_left(pem: bytes) -> int:
    """Return the whole days until the first certificate in a PEM file expires, negative after that.

    Raises:
        ValueError: the file has no certificate.
    """
    certificate = x509.load_pem_x509_certificate(pem)
    return (certificate.not_valid_after_utc - datetime.now(UTC)).days
