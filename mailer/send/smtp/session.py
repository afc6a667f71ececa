"""What the pool expects of a session, whatever protocol it speaks."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome
from mailer.send.smtp.client import Commit, Following, Message
from mailer.send.smtp.hop import Hop

if TYPE_CHECKING:
    from mailer.send.smtp.conversation import Conversation


class Session(Protocol):
    """A session with an SMTP server (`smtp.client`) or with an HTTP interface (`http.session`)."""

    worn: bool
    took_behind: bool | None

    @property
    def underway(self) -> bool: ...

    @property
    def used_up(self) -> bool: ...

    @property
    def label(self) -> str: ...

    @property
    def tls(self) -> str: ...

    @property
    def alive(self) -> bool: ...

    async def transact(
        self,
        message: Message,
        recipients: Sequence[Recipient],
        on_commit: Commit,
        following: Following | None = None,
    ) -> list[Outcome]: ...

    def conversation(self) -> "Conversation": ...

    async def close(self) -> None: ...

    def abort(self) -> None: ...


Opener = Callable[[Hop], Awaitable[Session]]

OnFailure = Callable[["Conversation", Sequence[tuple[str, str]], str], None]
"""Called when a session has failed a message or could not be opened, with what was said, the phases and texts
of the failures, and the message's id, if the session was open."""
