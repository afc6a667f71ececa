"""mutt, opening a Maildir to look and not to touch: `mutt -R -f MAILDIR`."""

from pathlib import Path

from testbed.terminal import Terminal
from testbed.tools import program
from testbed.waiting import until


class Mutt(Terminal):
    """A running mutt."""

    def __init__(self, maildir: Path, home: Path, *settings: str) -> None:
        """
        Args:
            maildir: what it opens.
            home: a directory for files of its own.
            settings: more lines of its configuration.
        """
        self._home = home
        # It would offer to make a `folder` that is not there.
        settings = (
            *settings,
            "set index_format='[%s]'",
            "set quit=yes",
            "unset wait_key",
            f"set folder='{home}'",
        )
        argv = [program("mutt"), "-n", "-F", "/dev/null", "-R", "-f", str(maildir)]
        argv += [argument for setting in settings for argument in ("-e", setting)]
        super().__init__(argv, env={"HOME": str(home)}, cwd=home)

    def await_subjects(self, *subjects: str) -> None:
        """Return when its index lists them; they hold no blanks, which a terminal may be spared."""
        self.await_text(*(f"[{subject}]" for subject in subjects))

    def read_all(self) -> bytes:
        """Every message as mutt reads it, one after the other: tagged, and piped to a file."""
        piped, complete = self._home / "piped", self._home / "complete"
        self.press(f"T~A\r;|cat >{piped}; touch {complete}\r")
        until(lambda: self.screen() and complete.exists(), "mutt to pipe the messages")
        return piped.read_bytes()

    def quit(self) -> int:
        """Leave it, and return its exit status."""
        self.press("q")
        return self.await_end()
