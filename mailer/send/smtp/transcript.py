"""A session's transcript for the operator, without passwords and without message text."""

from collections.abc import Callable

from mailer.mail.reply import printable
from mailer.send.smtp.concealment import MASK, Concealment

Say = Callable[[str], None]
"""Called with one line, without its line end."""

_MAX_SHOWN = 2000
"""The most characters of a line that are shown."""
_MAX_INCOMPLETE = 64 * 1024
"""The most octets of an incomplete line that are kept. More than `smtp.replies` accepts, so that truncation
never cuts off the beginning of a password and makes it unrecognizable."""


class Transcript:
    """The transcript of one connection."""

    def __init__(self, say: Say, conceal: Concealment | None) -> None:
        """Prepare an empty transcript.

        Args:
            say: called with each line.
            conceal: hides the login wherever the server quotes it.
        """
        self._say = say
        self._conceal = conceal
        self._unended = b""
        self._reply: list[str] = []
        self._octets = 0

    def note(self, text: str) -> None:
        """Add a remark that neither side sent, such as that the connection is encrypted now."""
        self._say(f"   {printable(text)}")

    def sent(self, commands: bytes, *, secret: bool) -> None:
        """Show commands; those of an AUTH exchange are masked except for the verb and the mechanism."""
        self._end_of_message()
        for line in commands.decode("utf-8", "replace").splitlines():
            shown = line
            if secret:
                words = line.split(" ")
                shown = " ".join([*words[:2], *[MASK] * (len(words) > 2)]) if words[0] == "AUTH" else MASK
            self._say(f"C: {printable(shown, _MAX_SHOWN)}")

    def sent_message(self, octets: int) -> None:
        """Count octets of the message; one line shows their sum when the server replies."""
        self._octets += octets

    def received(self, data: bytes) -> None:
        """Show the server's replies, each as a whole: a quoted password may be split across two lines."""
        self._end_of_message()
        *lines, self._unended = (self._unended + data).split(b"\n")
        self._unended = self._unended[-_MAX_INCOMPLETE:]
        for line in lines:
            self._reply.append(line.decode("utf-8", "replace").rstrip("\r"))
            if line[3:4] != b"-":
                self._show_reply()

    def _show_reply(self) -> None:
        lines, self._reply = tuple(self._reply), []
        for line in self._conceal.lines(lines) if self._conceal else lines:
            self._say(f"S: {printable(line, _MAX_SHOWN)}")

    def _end_of_message(self) -> None:
        octets, self._octets = self._octets, 0
        if octets:
            self._say(f"C: (the message and its dot, {octets} octets)")
