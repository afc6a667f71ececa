"""A session's transcript for the operator: without passwords and without message text."""

from collections.abc import Callable

from mailer.mail.reply import printable
from mailer.send.smtp.concealment import MASK, Concealment

Say = Callable[[str], None]
"""Takes one line, without its line end."""

_LONGEST_LINE = 2000
"""Octets of a reply line that is shown."""
_LONGEST_UNENDED = 64 * 1024
"""Octets of one that is kept: more than `smtp.replies` takes, so that no password loses its beginning."""


class Transcript:
    """One connection's."""

    def __init__(self, say: Say, conceal: Concealment | None) -> None:
        """Begin.

        Args:
            say: takes each line.
            conceal: the login that must not be seen, whoever quotes it.
        """
        self._say = say
        self._conceal = conceal
        self._unended = b""
        self._reply: list[str] = []
        self._octets = 0

    def note(self, text: str) -> None:
        """Say what is neither side's words: that they are connected, or encrypted."""
        self._say(f"   {printable(text)}")

    def sent(self, commands: bytes, *, secret: bool) -> None:
        """Show commands; of those of an AUTH exchange the verb and the mechanism alone."""
        self._end_of_message()
        for line in commands.decode("utf-8", "replace").splitlines():
            shown = line
            if secret:
                words = line.split(" ")
                shown = " ".join([*words[:2], *[MASK] * (len(words) > 2)]) if words[0] == "AUTH" else MASK
            self._say(f"C: {printable(shown, _LONGEST_LINE)}")

    def sent_message(self, octets: int) -> None:
        """Count octets of the message; one line has them all, when the server answers."""
        self._octets += octets

    def received(self, data: bytes) -> None:
        """Show what the server says, a whole reply at a time: it may quote the password over two lines."""
        self._end_of_message()
        *lines, self._unended = (self._unended + data).split(b"\n")
        self._unended = self._unended[-_LONGEST_UNENDED:]
        for line in lines:
            self._reply.append(line.decode("utf-8", "replace").rstrip("\r"))
            if line[3:4] != b"-":
                self._show_reply()

    def _show_reply(self) -> None:
        lines, self._reply = tuple(self._reply), []
        for line in self._conceal.lines(lines) if self._conceal else lines:
            self._say(f"S: {printable(line, _LONGEST_LINE)}")

    def _end_of_message(self) -> None:
        octets, self._octets = self._octets, 0
        if octets:
            self._say(f"C: (the message and its dot, {octets} octets)")
