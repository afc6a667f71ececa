"""The errors of a submission: a text for the caller, and an exit code of sysexits.h."""


class Failure(Exception):
    """The mail was not accepted, and is not queued, unless the text says that this is unknown."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Unreachable(Failure):
    """The receiver cannot accept the message now, and has no part of it."""


class Down(Unreachable):
    """The socket refuses connections or does not exist: the receiver is down, or was never set up."""
