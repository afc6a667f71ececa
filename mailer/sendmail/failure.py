"""How a hand-over fails: a sentence for the caller, and an exit code of sysexits.h."""


class Failure(Exception):
    """The mail was not taken; nothing of it is queued."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Unreachable(Failure):
    """The receiver does not take the message now, and has nothing of it."""


class Down(Unreachable):
    """Nobody answers at the socket: the receiver is down, or was never set up."""
