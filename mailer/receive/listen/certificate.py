"""The server's TLS certificate: reloaded when its files change; the old one is kept if they are unusable."""

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mailer.config.trust import Owners, open_trusted

_CHECK_EVERY = 1.0
"""Seconds between two checks of the files, and so the longest delay until a renewed certificate is used."""

Stamp = tuple[tuple[int, int, int], ...]


class Certificate:
    """Provides the TLS context for new sessions."""

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
            certificate: PEM, the server's own certificate first, then its intermediates.
            key: PEM, without a passphrase.
            now: monotonic seconds.
            on_event: called after a change of the files, with what happened, and the reason of a failure.
            owners: the trusted owners of the files; None: root and this process's user.

        Raises:
            Untrusted: another user could change a file, or read the key.
            OSError: a file cannot be read, or (ssl.SSLError) the key does not match the certificate.
        """
        self._paths = (certificate, key)
        self._now = now
        self._on_event = on_event
        self._owners = owners
        self._stamp = self._look()
        self._context = load_context(certificate, key, owners)
        self._checked = now()

    def context(self) -> ssl.SSLContext:
        """Return the context of the newest usable files."""
        if self._now() - self._checked >= _CHECK_EVERY:
            self.refresh()
        return self._context

    def refresh(self) -> None:
        """Check the files now, and reload them if they changed; never raises."""
        self._checked = self._now()
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return
            # Stored before loading, so that unusable files are reported once.
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
    """Return a server context for the two files; raises as `Certificate` does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # RFC 8997 deprecates TLS 1.0 and 1.1 for submission. The ciphers are OpenSSL's defaults, which the
    # distribution maintains.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # With renegotiation a client could keep the server computing without end.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    with _opened(certificate, owners) as chain, _opened(key, owners, secret=True) as private:
        context.load_cert_chain(chain, private, password=_no_passphrase)
    return context


@contextmanager
def _opened(path: Path, owners: Owners | None, *, secret: bool = False) -> Iterator[str]:
    """Open and check a file, and yield a path to its descriptor, because OpenSSL takes only paths."""
    found = open_trusted(path, owners=owners, secret=secret)
    try:
        yield f"/proc/self/fd/{found}"
    finally:
        os.close(found)


def _no_passphrase() -> bytes:
    """Raise an error in place of OpenSSL's prompt for a passphrase: a service has no terminal."""
    raise ssl.SSLError("the private key has a passphrase; store it without one, readable by mailer only")
