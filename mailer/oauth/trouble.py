"""The exception for a missing access token; its text has phrases of `mail/login_causes` and no secrets."""

from collections.abc import Iterable

from mailer.mail.login_causes import NO_TOKEN
from mailer.mail.masking import masked
from mailer.mail.reply import printable

_MAX_TEXT = 400
"""The most characters of a server's error."""


class TokenTrouble(Exception):
    """No access token can be obtained now; the text is one line for operators."""

    def __init__(self, text: str, *, temporary: bool = False, local: bool = False) -> None:
        """Keep the cause, and what callers need for their decision.

        Args:
            text: the cause.
            temporary: false if it lasts until an operator intervenes.
            local: the cause is on this host, such as a full disk.
        """
        super().__init__(text)
        self.text = text
        self.temporary = temporary
        self.local = local


def from_server(host: str, why: str, *, temporary: bool = False) -> TokenTrouble:
    """Return the exception for a failure of the token server or of the connection to it."""
    return TokenTrouble(f"{NO_TOKEN} from {printable(host, 255)}: {why}", temporary=temporary)


def ours(why: str, *, temporary: bool = False, local: bool = False) -> TokenTrouble:
    """Return the exception for a failure on our side, without a request to the server."""
    return TokenTrouble(f"{NO_TOKEN}: {why}", temporary=temporary, local=local)


def described(error: str, description: str, secrets: Iterable[str]) -> str:
    """Return a server's error in one line, with any secrets that it quotes masked.

    Only the first line of the description is used: Microsoft's go on with trace ids.
    """
    first = description.strip().splitlines()[0] if description.strip() else ""
    text = f"{error}: {first}" if first and first != error else error
    return printable(masked(text, secrets), _MAX_TEXT)
