"""The SMTP client that submits a message to the receiver."""

import os
import socket

from mailer.sendmail.failure import Failure, Unreachable

_PATIENCE = 300.0
"""Seconds to wait for a reply; the receiver waits as long for a command."""
_MAX_REPLY = 64 * 1024
"""Octets of one reply; the receiver's longest is under 1 KB."""
_BURST = 100
"""RCPT commands sent before their replies are read. With more, both sides could block on full buffers."""

Reply = tuple[int, str]


class Receiver:
    """The client side of one session with a receiver."""

    def __init__(self, connection: socket.socket) -> None:
        """Read the greeting and say EHLO.

        Raises:
            Failure: this user may not submit here.
            Unreachable: the receiver does not answer, or is stopping.
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
        """Send MAIL and RCPT; return the reply to each recipient.

        Raises:
            Failure: the sender was refused.
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
        """Send the message, and return the text of the receiver's positive reply.

        Raises:
            Unreachable: the connection ended before any of the message was sent, so it may be sent again.
            Failure: the receiver refused it; or the session ended later, and it is unknown whether the
                receiver has it.
        """
        self._check(self.ask("DATA"), os.EX_DATAERR, positive=3)
        try:
            self._send(wire)
            reply = self._reply()
            self._check(reply, os.EX_DATAERR)
        except Unreachable as error:
            # Not Unreachable, not even after a 421: another attempt might send the mail twice.
            words = f"{error}, after it was given the message: it may have it, or not"
            raise Failure(os.EX_TEMPFAIL, words) from error
        return reply[1]

    def _send(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return  # the receiver's last reply, which is read next, says why
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
                why = error.strerror or f"no reply for {_PATIENCE:.0f} seconds"
                raise Unreachable(os.EX_TEMPFAIL, f"the receiver is gone: {why}") from error
            if not piece or len(self._gathered) > _MAX_REPLY:
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
    """Return if a reply has the expected first digit.

    Raises:
        Unreachable: for a 421.
        Failure: for any other reply, with EX_TEMPFAIL for a temporary refusal, EX_NOPERM if the permanent
            refusal is about this user (5.7.x), else `code`.
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
