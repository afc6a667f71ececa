"""The server's certificate: read again when its files change, kept when the new ones are no good."""

import ssl
from collections.abc import Callable
from pathlib import Path

_CHECK_EVERY = 1.0
"""Seconds between two looks at the files; whoever renews a certificate can wait as long."""

Stamp = tuple[tuple[int, int, int], ...]


class Certificate:
    """Gives the TLS context for each new session."""

    def __init__(
        self, certificate: Path, key: Path, *, now: Callable[[], float], on_event: Callable[[str, str], None]
    ) -> None:
        """Load both files.

        Args:
            certificate: PEM, the server's own first, then its intermediates.
            key: PEM, without a passphrase.
            now: monotonic seconds.
            on_event: told what happened at a change of the files, and why if it went wrong.

        Raises:
            OSError: a file cannot be read, or (ssl.SSLError) the two do not go together.
        """
        self._paths = (certificate, key)
        self._now = now
        self._on_event = on_event
        self._stamp = self._look()
        self._context = _context(certificate, key)
        self._checked = now()

    def context(self) -> ssl.SSLContext:
        """Return the context of the newest files that could be used."""
        if self._now() - self._checked >= _CHECK_EVERY:
            self.refresh()
        return self._context

    def refresh(self) -> None:
        """Look at the files now; never raises."""
        self._checked = self._now()
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return
            # Noted first: files that are no good are complained of once.
            self._stamp = stamp
            self._context = _context(*self._paths)
        except OSError as error:
            self._on_event("the new TLS certificate cannot be used; the old one stays", str(error))
        else:
            self._on_event("the TLS certificate was read again", "")

    def _look(self) -> Stamp:
        states = [path.stat() for path in self._paths]
        return tuple((state.st_mtime_ns, state.st_ino, state.st_size) for state in states)


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # RFC 8997: 1.0 and 1.1 are gone. Ciphers are OpenSSL's own choice, which the distribution maintains.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client could make us compute for ever with renegotiations.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.load_cert_chain(certificate, key, password=_no_passphrase)
    return context


def _no_passphrase() -> bytes:
    """Answer OpenSSL, which would ask the terminal that a service does not have."""
    raise ssl.SSLError("the private key has a passphrase; store it without one, readable by mailer only")
