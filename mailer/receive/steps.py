"""A coroutine that goes on within the call that brings what it waits for.

A task is woken by way of the event loop's queue: a future, a handle and a turn of the loop for each command
of each client, most of which are answered at once. Here `data_received` itself runs the session on to where
it waits again.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from types import coroutine

_UNTIL_TOLD = object()


@coroutine
def suspended() -> Generator[object, None, None]:
    """Wait until somebody calls `go_on`."""
    yield _UNTIL_TOLD


class Steps:
    """Runs one coroutine to its end; nothing cancels it.

    It may wait for futures and for what is made of them, as in a task, and for `suspended`. What asks for the
    current task (`asyncio.timeout`) does not work in it.
    """

    def __init__(
        self, begin: Callable[[], Coroutine[object, None, None]], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Run nothing yet; the first `go_on` begins."""
        self._begin = begin
        self._loop = loop
        self._coroutine: Coroutine[object, None, None] | None = None
        self.ended: asyncio.Future[None] = loop.create_future()

    def go_on(self, _: object = None) -> None:
        """Run up to the next wait. Never call it from within."""
        if self._coroutine is None:
            self._coroutine = self._begin()
        try:
            awaited = self._coroutine.send(None)
        except StopIteration:
            self.ended.set_result(None)
        except BaseException:
            self.ended.set_result(None)
            raise
        else:
            if isinstance(awaited, asyncio.Future):
                # The sign between Future.__await__ and who runs it: this one has understood.
                awaited._asyncio_future_blocking = False  # noqa: SLF001 - asyncio's protocol for those beside Task
                awaited.add_done_callback(self.go_on)
            elif awaited is not _UNTIL_TOLD:
                self._loop.call_soon(
                    self.go_on
                )  # A bare yield, as of asyncio.sleep(0): in the loop's next turn.
