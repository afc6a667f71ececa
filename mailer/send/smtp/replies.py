"""Read SMTP replies (RFC 5321 4.2) from a stream cut anywhere, and bound what a peer can send."""

import re
from functools import lru_cache

from mailer.mail.reply import Reply
from mailer.send.replies.encoding import decode
from mailer.send.smtp.concealment import Concealment

MAX_LINE = 4096
"""The most octets of a line with its end. RFC 5321 4.5.3.1.5: 512; Postfix: 2048; some servers exceed 512."""
MAX_LINES = 100
"""The most lines of one reply. The longest EHLO replies in the field have about 30."""

# RFC 5321 4.2.1 defines first digits 2 to 5. The second digit is not checked: `571` is in use.
# NUL is never valid in a reply (RFC 5321 4.5.3.1.5); other controls are escaped where the text is shown.
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])([^\x00]*))?", re.DOTALL)


class BadReply(ValueError):
    """The peer sent something other than an SMTP reply; the rest of the stream cannot be trusted either."""


class ReplyReader:
    """Collects replies. It must not be used after `BadReply`: the stream has no defined continuation."""

    __slots__ = ("_code", "conceal", "lines", "unread")

    def __init__(self, conceal: Concealment | None = None) -> None:
        """Prepare; args: conceal: removes the login from the replies."""
        self.conceal = conceal
        self.unread = b""
        """What was received beyond the last reply that `next` returned."""
        self._code = 0
        self.lines: list[str] = []
        """The lines of a reply that has not ended."""

    def feed(self, data: bytes) -> None:
        """Add received data; `next` returns the replies that it completes."""
        self.unread += data

    def next(self, verbatim: int = 0) -> Reply | None:
        """Return the next complete reply, or None until more has arrived.

        A line may end in a bare LF; Postfix accepts that too.

        Args:
            verbatim: do not conceal anything in replies whose code begins with this digit, since a program
                parses them; 0: conceal in all.

        Raises:
            BadReply: not a reply, different codes on its lines, a NUL, or too long (`MAX_LINE`, `MAX_LINES`).
        """
        while self.unread:
            line, end, rest = self.unread.partition(b"\n")
            if len(line) >= MAX_LINE:
                raise BadReply(f"a reply line of more than {MAX_LINE} octets")
            if not end:
                return None
            self.unread = rest
            if self.conceal is None and not self.lines and (reply := _only_line(line)):
                return reply
            found = _LINE.fullmatch(line.removesuffix(b"\r"))
            if not found:
                line = self.conceal.octets(line) if self.conceal else line
                raise BadReply(f"not an SMTP reply: {_shown(line)}")
            code, mark, text = found.groups(b"")
            conceal = None if int(code[:1]) == verbatim else self.conceal
            reply = self._line(int(code), more=mark == b"-", text=conceal.octets(text) if conceal else text)
            if reply and conceal and len(reply.lines) > 1:
                reply = Reply(reply.code, conceal.lines(reply.lines))
            if reply:
                return reply
        return None

    def _line(self, code: int, *, more: bool, text: bytes) -> Reply | None:
        if self.lines and code != self._code:
            raise BadReply(f"a reply that begins with {self._code} and goes on with {code}")
        line = decode(text)
        if not more and not self.lines:
            return Reply(code, (line,))
        self._code = code
        self.lines.append(line)
        if len(self.lines) > MAX_LINES:
            raise BadReply(f"a reply of more than {MAX_LINES} lines")
        if more:
            return None
        reply = Reply(code, tuple(self.lines))
        self.lines = []
        return reply


@lru_cache(maxsize=64)
def _only_line(line: bytes) -> Reply | None:
    """Return the reply that a line is by itself; None if more lines follow, or it is not a reply.

    Cached, because a server answers nearly all MAIL, RCPT and DATA with the same three lines.
    """
    found = _LINE.fullmatch(line.removesuffix(b"\r"))
    if found is None or found[2] == b"-":
        return None
    return Reply(int(found[1]), (decode(found[3] or b""),))


def _shown(line: bytes) -> str:
    """Return the beginning of an invalid line, quoted."""
    return repr(line[:80].decode("latin-1"))
