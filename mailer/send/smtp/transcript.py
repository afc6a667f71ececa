"""A session's transcript for the operator, without passwords and without message text."""

from collections.abc import Callable

from mailer.mail.reply import printable
from mailer.send.replies.encoding import decode
from mailer.send.smtp.concealment import MASK, Concealment, masked

Say = Callable[[str], None]
"""Called with one line, without its line end."""

_MAX_SHOWN = 2000
"""The most characters of a line that are shown."""
_MAX_INCOMPLETE = 64 * 1024
"""The most octets of an incomplete line that are kept. More than `smtp.replies` accepts, so that truncation
never cuts off the beginning of a password and makes it unrecognizable."""
_CHALLENGE = b"334"


class Transcript:
    """The transcript of one connection."""

    def __init__(self, say: Say, conceal: Concealment | None, *, challenges: bool = True) -> None:
        """Prepare an empty transcript.

        Args:
            say: called with each line.
            conceal: hides the login wherever the server quotes it.
            challenges: whether to show the challenges of AUTH. That of CRAM-MD5 and its answer are enough to
                try passwords.
        """
        self._say = say
        self._conceal = conceal
        self._challenges = challenges
        self._unended = b""
        self._reply: list[bytes] = []
        self._octets = 0
        self._whole = False
        self._skipping: bytes | None = None
        """While a reply is skipped: its last line so far; empty before the first, of which a part may be
        missing; None: no reply is skipped."""

    def note(self, text: str) -> None:
        """Add a remark that neither side sent, such as that the connection is encrypted now."""
        self._say(f"   {printable(text)}")

    def sent(self, commands: bytes, *, secret: bool) -> None:
        """Show commands; those of an AUTH exchange are masked except for the verb and the mechanism."""
        self.end_message()
        self._skipping = None
        for line in commands.decode("utf-8", "backslashreplace").splitlines():
            shown = masked(line) if secret else line
            self._say(f"C: {printable(shown, _MAX_SHOWN)}")

    def sent_message(self, octets: int, *, whole: bool) -> None:
        """Count octets of the message; one line shows their sum when the server replies.

        Args:
            octets: how many were sent.
            whole: whether they end the message.
        """
        self._octets += octets
        self._whole = whole

    def end_message(self) -> None:
        """Show the octets that were counted."""
        octets, self._octets = self._octets, 0
        if octets:
            what = "the message and its dot" if self._whole else "a part of the message, without its end"
            self._say(f"C: ({what}, {octets} octets)")

    def skip_reply(self) -> None:
        """Skip the rest of a reply, the beginning of which is not known."""
        self._skipping = b""

    def received(self, data: bytes) -> None:
        """Show the server's replies, each as a whole: a quoted password may be split across two lines."""
        self.end_message()
        *lines, self._unended = (self._unended + data).split(b"\n")
        self._unended = self._unended[-_MAX_INCOMPLETE:]
        for line in lines:
            if self._skipping is not None:
                self._skip(line)
                continue
            self._reply.append(line.removesuffix(b"\r"))
            if line[3:4] != b"-":
                self._show_reply()

    def end(self) -> None:
        """Show an incomplete reply at the end of the session; only its size if it may quote a password."""
        self.end_message()
        octets = sum(map(len, self._reply)) + len(self._unended)
        if octets and (self._conceal or self._skipping is not None):
            self._say(f"S: (an incomplete reply, {octets} octets)")
        elif octets:
            self._reply += [self._unended] * bool(self._unended)
            self._show_reply()

    def _skip(self, line: bytes) -> None:
        first, self._skipping = not self._skipping, line or b"\n"
        if not first and line[3:4] != b"-":
            self._skipping = None

    def _show_reply(self) -> None:
        lines, self._reply = self._reply, []
        if not self._challenges and lines[0].startswith(_CHALLENGE):
            lines = [b"334 " + MASK.encode()]
        elif self._conceal:
            lines = _concealed(lines, self._conceal)
        for line in lines:
            self._say(f"S: {printable(decode(line), _MAX_SHOWN)}")


def _concealed(lines: list[bytes], conceal: Concealment) -> list[bytes]:
    """Return the lines of a reply without the login, also where a line end splits it in two."""
    lines = [conceal.octets(line) for line in lines]
    if len(lines) == 1:
        return lines
    texts = [line[4:] for line in lines]
    for joined in (b"".join(texts), b" ".join(texts), b"".join(lines), b" ".join(lines)):
        if joined != (hidden := conceal.octets(joined)):
            return [hidden if hidden[:3].isdigit() else lines[0][:4] + hidden]
    return lines
