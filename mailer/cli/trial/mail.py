"""The mail that `mailer test` sends."""

import socket
from email.utils import formatdate, make_msgid


def text(sender: str, to: str, now: float) -> bytes:
    """Return the message, kept short and plain, because spam filters judge it too."""
    host = socket.gethostname()
    lines = [
        f"From: <{sender}>",
        f"To: <{to}>",
        f"Subject: Test mail from mailer on {host}",
        f"Date: {formatdate(now)}",
        f"Message-ID: {make_msgid(domain=sender.rpartition('@')[2])}",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
        f"This is a test, sent with `mailer test` on {host}.",
        "You can read it, so mail from there arrives. There is nothing to do.",
        "",
    ]
    return "\r\n".join(lines).encode()
