"""An SMTP server on standard input and output (`-bs`) for when no receiver runs: each message becomes a drop.

Only the syntax of addresses and parameters is checked (`syntax`). Whether the sender and recipients are
allowed is decided when the drop is taken in. A refusal then applies to the whole message, and is reported to
the operator and not to this client.
"""

import os
import re
import socket

from mailer.sendmail import drop
from mailer.sendmail.failure import Failure
from mailer.sendmail.message import MOST, Message
from mailer.sendmail.relay import write
from mailer.sendmail.syntax import wrong_address, wrong_parameters, wrong_text

_PIECE = 64 * 1024
_MAX_LINE = 2048
"""Octets in a command line; the receiver's longest has 1,252."""
_MAX_RECIPIENTS = 1000
"""The receiver's default limit (`maxRecipients`)."""
_END = b"\r\n.\r\n"
_ARGUMENT = re.compile(
    r'(<(?:"(?:[^"\\]|\\.)*")?[^>]*>|(?:"(?:[^"\\]|\\.)*")?[^<>\s]+)((?: +[A-Za-z0-9-]+(?:=[^ =]+)?)*)'
)
"""An address, with or without angle brackets, and parameters; quotes may contain brackets and blanks."""
_PARAMETERS = {"MAIL": {"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"}, "RCPT": {"NOTIFY", "ORCPT"}}
"""FUTURERELEASE is not offered: a drop is taken in later, and HOLDFOR would count from then."""
_WRONG = {"MAIL": "5.1.7", "RCPT": "5.1.3"}
"""The enhanced status codes for a malformed address, the same as the receiver's."""
_EXTENSIONS = ("PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN")
_OK = "250 2.0.0 Ok"


class Session:
    """Serves one client, which may pipeline commands."""

    def __init__(self, source: int, sink: int, place: str) -> None:
        """Prepare; sends nothing yet.

        Args:
            source: the descriptor to read commands from.
            sink: the descriptor to write replies to.
            place: the path of the drop directory.
        """
        self._source = source
        self._sink = sink
        self._place = place
        self._host = socket.gethostname()
        self._gathered = bytearray()
        self._ended = False
        self._envelope: list[str] = []
        """The accepted MAIL and RCPT commands."""
        self._utf8 = False
        self._verbs = {
            "EHLO": self._ehlo,
            "HELO": self._helo,
            "MAIL": self._mail,
            "RCPT": self._rcpt,
            "DATA": self._data,
            "BDAT": self._bdat,
            "RSET": self._rset,
            "NOOP": self._noop,
            "VRFY": self._vrfy,
            "QUIT": self._quit,
        }

    def serve(self) -> None:
        """Serve until QUIT or the end of input; raises OSError if the client no longer reads."""
        self._say(f"220 {self._host} ESMTP mailer; no receiver runs, mail is left for the next one")
        while not self._ended and (line := self._line()) is not None:
            self._say(self._answer(line))

    def _answer(self, line: bytes) -> str:
        command = line.removesuffix(b"\r\n")
        if command == line or b"\r" in command or b"\0" in command:
            return "500 5.5.2 A command must be one line that ends with CR LF, without other CR, LF or NUL"
        if len(command) > _MAX_LINE:
            return "500 5.5.2 The command line is too long"
        verb, _, argument = os.fsdecode(command).partition(" ")
        answer = self._verbs.get(verb.upper())
        return answer(argument.strip(" \t")) if answer else "500 5.5.2 Unknown command"

    def _ehlo(self, _: str) -> str:
        self._begin_anew()
        lines = (self._host, *_EXTENSIONS)
        return "\r\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"])

    def _helo(self, _: str) -> str:
        self._begin_anew()
        return f"250 {self._host}"

    def _mail(self, argument: str) -> str:
        if self._envelope:
            return "503 5.5.1 A message is already begun; finish it with DATA or drop it with RSET"
        self._utf8 = "SMTPUTF8" in argument.upper().split(" ")[1:]
        return self._address("MAIL", "FROM:", argument) or "250 2.1.0 Sender ok"

    def _rcpt(self, argument: str) -> str:
        if not self._envelope:
            return "503 5.5.1 Say MAIL FROM first"
        if len(self._envelope) > _MAX_RECIPIENTS:
            return "452 4.5.3 Too many recipients; send this message, then another to the rest"
        return self._address("RCPT", "TO:", argument) or "250 2.1.5 Recipient ok, as far as this is known now"

    def _address(self, verb: str, word: str, argument: str) -> str:
        """Accept a command with an address; return an empty string, or the refusal."""
        found = _ARGUMENT.fullmatch(argument[len(word) :].strip(" "))
        if not argument.upper().startswith(word) or found is None:
            return f"501 5.5.4 The syntax is {verb} {word}<address>, then parameters"
        address, parameters = found[1], [each for each in found[2].split(" ") if each]
        refusal = self._malformed(verb, address, parameters)
        if not refusal and not (argument.isascii() or self._utf8):
            refusal = "553 5.6.7 An address beyond ASCII needs MAIL with SMTPUTF8"
        if not refusal:
            self._envelope.append(" ".join([f"{verb} {word}{address}", *parameters]))
        return refusal

    def _malformed(self, verb: str, address: str, parameters: list[str]) -> str:
        path = address[1:-1] if address.startswith("<") else address
        if (path or verb == "RCPT") and (wrong := wrong_address(path)):
            return f"501 {_WRONG[verb]} {wrong}"
        for each in parameters:
            if (name := each.partition("=")[0].upper()) not in _PARAMETERS[verb]:
                return f"555 5.5.4 {verb} parameter {name} is not known while no receiver runs"
        wrong = wrong_parameters(parameters)
        return f"501 5.5.4 {wrong}" if wrong else ""

    def _data(self, argument: str) -> str:
        refusal = ""
        if argument:
            refusal = "501 5.5.4 This command takes no argument"
        elif len(self._envelope) < 2:
            refusal = "503 5.5.1 Say MAIL FROM and RCPT TO first, and have one recipient accepted"
        if refusal:
            # Pipelined input may be a message, which must not be read as commands.
            self._ended = bool(self._gathered)
            return refusal
        self._say("354 End data with <CR><LF>.<CR><LF>")
        try:
            reply = self._keep(self._text())
        except EOFError:
            self._ended = True
            return "421 4.4.2 The message has no end; nothing of it is kept"
        self._begin_anew()
        return reply

    def _keep(self, text: bytes | None) -> str:
        """Write a message as a drop; return the reply."""
        if text is None:
            return f"552 5.3.4 The message is larger than {MOST} octets"
        if wrong := wrong_text(text):
            return wrong
        if not Message(text).has(b"date"):
            text = drop.dated().replace(b"\n", b"\r\n") + text
        try:
            name = drop.hand_over(self._place, self._envelope, text)
        except Failure as failure:
            return f"451 4.3.0 {failure}"
        return f"{_OK}: no receiver runs, the next one takes the message in from {self._place}/{name}"

    def _rset(self, _: str) -> str:
        self._begin_anew()
        return _OK

    def _noop(self, _: str) -> str:
        return _OK

    def _vrfy(self, _: str) -> str:
        return "252 2.1.5 Cannot verify the address here; send to it and see"

    def _bdat(self, _: str) -> str:
        # A message follows, which must not be read as commands.
        self._ended = True
        return "502 5.5.1 BDAT is not offered while no receiver runs; closing the connection"

    def _quit(self, _: str) -> str:
        self._ended = True
        return "221 2.0.0 Bye"

    def _begin_anew(self) -> None:
        self._envelope, self._utf8 = [], False

    def _line(self) -> bytes | None:
        """Return the next line with its line end; None: the input has ended. A long line is truncated."""
        while (end := self._gathered.find(b"\n") + 1) == 0:
            if len(self._gathered) > 4 * _MAX_LINE:
                del self._gathered[2 * _MAX_LINE : -1]  # keep the last octet, which may be a CR
            if not self._read():
                return None
        line = bytes(self._gathered[:end])
        del self._gathered[:end]
        return line

    def _text(self) -> bytes | None:
        """Read a message up to the final dot, and return it unstuffed; None: it is too large.

        Raises:
            EOFError: the input ended before the final dot.
        """
        # Begin with the line end of the DATA command, so that a dot at the very start begins a line.
        self._gathered[:0] = b"\r\n"
        searched, too_large = 0, False
        while (end := self._gathered.find(_END, searched)) < 0:
            too_large = too_large or len(self._gathered) > MOST
            if too_large:
                del self._gathered[: 1 - len(_END)]
            searched = max(0, len(self._gathered) - len(_END) + 1)
            if not self._read():
                raise EOFError
        text = bytes(self._gathered[: end + 2])
        del self._gathered[: end + len(_END)]
        return None if too_large else text.replace(b"\r\n.", b"\r\n")[2:]

    def _read(self) -> bool:
        piece = os.read(self._source, _PIECE)
        self._gathered += piece
        return bool(piece)

    def _say(self, reply: str) -> None:
        write(self._sink, os.fsencode(reply) + b"\r\n")
