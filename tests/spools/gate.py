"""A change that keeps a committer busy."""

import threading


class Gate:
    """A change that keeps the committer busy until it is opened, so that the next ones gather."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered = threading.Event()

    def sync(self) -> None:
        self.entered.set()
        assert self.opened.wait(60)

    def move(self) -> None: ...

    def begin_sync(self) -> None: ...

    def directories(self) -> tuple[str, ...]:
        return ("state",)

    def sources(self) -> tuple[str, ...]:
        return ()

    def undo(self) -> None: ...
