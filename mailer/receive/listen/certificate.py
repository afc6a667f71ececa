"""The server's certificate: read again when its files change, kept when the new ones are no good."""

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mailer.config.trust import Owners, open_trusted

_CHECK_EVERY = 1.0
"""Seconds between two looks at the files; whoever renews a certificate can wait as long."""

Stamp = tuple[tuple[int, int, int], ...]


class Certificate:
    """Gives the TLS context for each new session."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        *,
        now: Callable[[], float],
        on_event: Callable[[str, str], None],
        owners: Owners | None = None,
    ) -> None:
        """Load both files.

        Args:
            certificate: PEM, the server's own first, then its intermediates.
            key: PEM, without a passphrase.
            now: monotonic seconds.
            on_event: told what happened at a change of the files, and why if it went wrong.
            owners: whose files are used; None: root's and ours.

        Raises:
            Untrusted: another user could change a file, or read the key.
            OSError: a file cannot be read, or (ssl.SSLError) the two do not go together.
        """
        self._paths = (certificate, key)
        self._now = now
        self._on_event = on_event
        self._owners = owners
        self._stamp = self._look()
        self._context = load_context(certificate, key, owners)
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
            self._context = load_context(*self._paths, self._owners)
        except OSError as error:
            self._on_event("the new TLS certificate cannot be used; the old one stays", str(error))
        else:
            self._on_event("the TLS certificate was read again", "")

    def _look(self) -> Stamp:
        states = [path.stat() for path in self._paths]
        return tuple((state.st_mtime_ns, state.st_ino, state.st_size) for state in states)


def load_context(certificate: Path, key: Path, owners: Owners | None) -> ssl.SSLContext:
    """Make a server's context of the two files; raises as `Certificate` does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # RFC 8997: 1.0 and 1.1 are gone. Ciphers are OpenSSL's own choice, which the distribution maintains.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client could make us compute for ever with renegotiations.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    with _opened(certificate, owners) as chain, _opened(key, owners, secret=True) as private:
        context.load_cert_chain(chain, private, password=_no_passphrase)
    return context


@contextmanager
def _opened(path: Path, owners: Owners | None, *, secret: bool = False) -> Iterator[str]:
    """Name a file that has been opened and checked: OpenSSL only takes names."""
    found = open_trusted(path, owners=owners, secret=secret)
    try:
        yield f"/proc/self/fd/{found}"
    finally:
        os.close(found)


def _no_passphrase() -> bytes:
    """Answer OpenSSL, which would ask the terminal that a service does not have."""
    raise ssl.SSLError("the private key has a passphrase; store it without one, readable by mailer only")
