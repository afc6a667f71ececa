"""The hand-over: SMTP with the receiver, which says for each mail whether it has it."""

import os
import socket

from mailer.sendmail.failure import Failure, Unreachable

_PATIENCE = 300.0
"""Seconds for a reply; the receiver's own limit for a silent client."""
_MOST = 64 * 1024
"""Octets of one reply; the receiver's longest has under 1 KB."""
_BURST = 100
"""Recipients before their replies are read: more, and both sides could wait for each other's buffers."""

Reply = tuple[int, str]


class Receiver:
    """One session with a receiver, greeted."""

    def __init__(self, connection: socket.socket) -> None:
        """Read the banner and introduce ourselves.

        Raises:
            Failure: we may not submit here.
            Unreachable: there is no receiver at the other end.
        """
        connection.settimeout(_PATIENCE)
        self._connection = connection
        self._gathered = b""
        self._check(self._reply(), os.EX_NOPERM)
        self._check(self.ask("EHLO localhost"), os.EX_PROTOCOL)

    def ask(self, command: str) -> Reply:
        """Send one command, and return its reply."""
        self._send(os.fsencode(command) + b"\r\n")
        return self._reply()

    def envelope(self, sender: str, recipients: list[str], parameters: list[str], notify: str) -> list[Reply]:
        """Say from whom and to whom; return a reply for each recipient.

        Raises:
            Failure: the sender is not taken.
        """
        mail, *each_to = commands(sender, recipients, parameters, notify)
        self._check(self.ask(mail), os.EX_DATAERR)
        replies: list[Reply] = []
        for at in range(0, len(each_to), _BURST):
            some = each_to[at : at + _BURST]
            self._send(b"".join(os.fsencode(f"{each}\r\n") for each in some))
            replies += [self._reply() for _ in some]
        return replies

    def message(self, wire: bytes) -> str:
        """Send the message, and return what the receiver says once it has it.

        Raises:
            Unreachable: the connection ended before any of the message was sent: it may be sent again.
            Failure: it does not take it; or nobody knows, because the session ended after that.
        """
        self._check(self.ask("DATA"), os.EX_DATAERR, positive=3)
        try:
            self._send(wire)
            reply = self._reply()
            self._check(reply, os.EX_DATAERR)
        except Unreachable as error:
            # Not to be tried again by us, also after a 421: that would be a second mail.
            words = f"{error}, after it was given the message: it may have it, or not"
            raise Failure(os.EX_TEMPFAIL, words) from error
        return reply[1]

    def _send(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return  # its last reply says why
        except OSError as error:
            raise Unreachable(os.EX_TEMPFAIL, f"the receiver does not read: {error.strerror}") from error

    def _reply(self) -> Reply:
        lines: list[str] = []
        while not lines or lines[-1][3:4] == "-":
            lines.append(self._line())
        code = lines[0][:3]
        if not (code.isascii() and code.isdigit()):
            raise Failure(os.EX_PROTOCOL, f"this is not a mail server: {lines[0][:100]!a}")
        return int(code), "\n".join(line[4:] for line in lines)

    def _line(self) -> str:
        while b"\n" not in self._gathered:
            try:
                piece = self._connection.recv(8192)
            except OSError as error:
                why = error.strerror or "nothing came for too long"
                raise Unreachable(os.EX_TEMPFAIL, f"the receiver is gone: {why}") from error
            if not piece or len(self._gathered) > _MOST:
                raise Unreachable(os.EX_TEMPFAIL, "the receiver has closed the connection")
            self._gathered += piece
        line, _, self._gathered = self._gathered.partition(b"\n")
        return line.rstrip(b"\r").decode("utf-8", "replace")

    def _check(self, reply: Reply, code: int, *, positive: int = 2) -> None:
        check(reply, code, positive=positive)


def commands(sender: str, recipients: list[str], parameters: list[str], notify: str) -> list[str]:
    """Return the commands of an envelope: MAIL, and RCPT for each recipient."""
    beyond_ascii = not all(address.isascii() for address in (sender, *recipients))
    words = [f"MAIL FROM:<{sender}>", *parameters, *(["SMTPUTF8"] if beyond_ascii else [])]
    suffix = f" NOTIFY={notify}" if notify else ""
    return [" ".join(words), *(f"RCPT TO:<{each}>{suffix}" for each in recipients)]


def check(reply: Reply, code: int, *, positive: int = 2) -> None:
    """Pass a reply of this class.

    Raises:
        Failure: any other; with `code` for a refusal for good, or EX_NOPERM where it is about who we are.
    """
    number, text = reply
    if number // 100 == positive:
        return
    if number == 421:
        raise Unreachable(os.EX_TEMPFAIL, f"the receiver says: 421 {text}")
    if number // 100 != 5:
        code = os.EX_TEMPFAIL
    elif text.startswith("5.7."):
        code = os.EX_NOPERM
    raise Failure(code, f"the receiver says: {number} {text}")
