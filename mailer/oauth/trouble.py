"""The exception for a missing access token: why, in words of `mail/login_causes`, without any secret."""

from collections.abc import Iterable

from mailer.mail.login_causes import NO_TOKEN
from mailer.mail.masking import masked
from mailer.mail.reply import printable

_LONGEST = 400
"""Characters of a description; Microsoft's go on with trace ids after the first line."""


class TokenTrouble(Exception):
    """No token can be had now; the text is for operators, in one line."""

    def __init__(self, text: str, *, temporary: bool = False, local: bool = False) -> None:
        """Keep what the caller decides by.

        Args:
            text: why.
            temporary: false if only people can mend it.
            local: it is this host's own trouble, such as a full disk.
        """
        super().__init__(text)
        self.text = text
        self.temporary = temporary
        self.local = local


def from_server(host: str, why: str, *, temporary: bool = False) -> TokenTrouble:
    """Make the trouble that a token server, or the way to it, is the reason of."""
    return TokenTrouble(f"{NO_TOKEN} from {printable(host, 255)}: {why}", temporary=temporary)


def ours(why: str, *, temporary: bool = False, local: bool = False) -> TokenTrouble:
    """Make the trouble that is found before a server is asked."""
    return TokenTrouble(f"{NO_TOKEN}: {why}", temporary=temporary, local=local)


def described(error: str, description: str, secrets: Iterable[str]) -> str:
    """Return a server's error in one line, without the secrets that it may quote."""
    first = description.strip().splitlines()[0] if description.strip() else ""
    text = f"{error}: {first}" if first and first != error else error
    return printable(masked(text, secrets), _LONGEST)
