"""A message file that the product did not write: octets by the documented format."""

from hashlib import sha256

HOME = "/home"
"""A directory outside of the spool."""
TOKEN = "forged"
NAMES = tuple(f"01KAQZ00000000000000000{n:03}" for n in range(9))
"""Ids of such files."""


def message(name: str) -> bytes:
    """Return a file that is whole."""
    content = f"Subject: hello\r\nX-Token: {TOKEN}{name[-1]}\r\n\r\nNobody has submitted this.\r\n".encode()
    block = (
        f"Spool-Format: 1\r\nSpool-Id: {name}\r\nSpool-Received: 2026-11-22T21:45:01.123456Z\r\n"
        "Spool-User: app\r\nSpool-Peer: 127.0.0.1\r\nSpool-Options: \r\nSpool-Sender: <app@example.com>\r\n"
        f"Spool-Recipient: <r1@example.net>\r\nSpool-Length: {len(content):010}\r\n"
    ).encode()
    accepted = (
        f'{{"at":"2026-11-22T21:45:01.123456Z","event":"accepted","sha256":"{sha256(content).hexdigest()}",'
        f'"envelope":"{sha256(block).hexdigest()}"}}\r\n'
    ).encode()
    return block + content + accepted
