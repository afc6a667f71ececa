"""The sign of life that a watchdog waits for, and the line of text that says what a program does.

A watchdog that is not fed restarts the program. So it is starved only by what a restart may mend:

| what is wrong | would a restart mend it | the watchdog |
| --- | --- | --- |
| the event loop hangs | yes: it is a defect of this process | starves: the loop feeds it |
| the thread that makes mail durable hangs, and the disk does not | yes, as above | starves |
| the spool was moved, replaced or unmounted; our descriptors or memory are used up | yes: a new process opens the spool that is there now | starves |
| the disk is full, read-only, broken or forbidden | no: a new process finds the same disk, and clients that get 452 now would get no answer | is fed; the status says what is wrong |
| the disk does not answer | no: a process that waits for it cannot even be killed | is fed, the same, unless the loop itself waits for that disk |

A program that has not passed the test since it was started feeds the watchdog whatever the test says: the
restart before it did not help. So one fault costs one restart, never a loop of them.
"""  # noqa: E501 - a table

import asyncio
import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from mailer.cli.service_manager import ServiceManager
from mailer.maillog.events import MailLog
from mailer.spool.checks.self_test import queue_in_words, self_test
from mailer.spool.layout import Spool

_MENDABLE = frozenset({errno.EBADF, errno.EMFILE, errno.ENOENT, errno.ENOMEM, errno.ENOTCONN, errno.ESTALE})
"""Errors of what this process holds open, or has used up."""
_STATUS_EVERY = 10.0
"""Seconds."""
_LOOKS = 3
"""In the time that the watchdog waits: one that comes late costs nothing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look has found."""

    trouble: OSError | None = None
    """What the disk said to the test."""
    silent: bool = False
    """It has not answered."""
    stuck: bool = False
    """It has, and our own thread that waits for nothing else has not."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows."""

    feed: bool
    words: str = ""
    """What is wrong; empty: nothing."""


def judge(found: Finding, *, passed: bool) -> Verdict:
    """Say whether the watchdog is fed.

    Args:
        found: by this look.
        passed: an earlier one of this process has found nothing wrong.
    """
    if found.silent:
        return Verdict(feed=True, words="the spool's disk does not answer")
    if found.trouble is not None:
        why = found.trouble.strerror or str(found.trouble)
        mendable = found.trouble.errno in _MENDABLE
        return Verdict(feed=not (mendable and passed), words=f"the spool takes no mail: {why}")
    if found.stuck:
        return Verdict(feed=not passed, words="the thread that makes mail durable does not answer")
    return Verdict(feed=True)


class Vitals:
    """Looks at the spool every few seconds, and tells the service manager."""

    def __init__(
        self,
        manager: ServiceManager,
        spool: Spool,
        log: MailLog,
        describe: Callable[[], str],
        worker: Callable[[], Future[None]] | None = None,
    ) -> None:
        """Look at nothing yet.

        Args:
            manager: gets the signs of life.
            spool: open.
            log: where a test that fails is reported.
            describe: says what the program does.
            worker: asks a thread that no mail can do without for an answer; None: there is none.
        """
        self._manager = manager
        self._spool = spool
        self._log = log
        self._describe = describe
        self._worker = worker
        self._every = min(_STATUS_EVERY, (manager.watchdog or _STATUS_EVERY * _LOOKS) / _LOOKS)
        self._looking: asyncio.Future[str] | None = None
        self._asked: Future[None] | None = None
        self._unanswered = 0
        self._passed = False
        self._words = ""

    def status(self) -> str:
        """Say what the program does, and what is wrong."""
        return f"{self._words}; {self._describe()}" if self._words else self._describe()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the manager informed, from the running event loop, for as long as the block runs."""
        task = asyncio.get_running_loop().create_task(self._keep()) if self._manager.listens else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()

    async def _keep(self) -> None:
        while True:
            try:
                await self._look_once()
            except Exception as error:  # noqa: BLE001 - a defect of the test must not look like one of the program
                self._log.error("the self-test cannot be made", error=repr(error))
                self._manager.alive()
            await asyncio.sleep(self._every)

    async def _look_once(self) -> None:
        found, queue = await self._look()
        verdict = judge(found, passed=self._passed)
        self._passed |= not verdict.words
        if verdict.words != self._words:
            if verdict.words:
                self._log.warning("the self-test failed", error=verdict.words, restart=not verdict.feed)
            else:
                self._log.notice("the self-test succeeds again")
            self._words = verdict.words
        status = f"{self.status()}; queue: {queue}" if queue else self.status()
        if self._manager.watchdog and verdict.feed:
            self._manager.alive(status=status)
        else:
            self._manager.status(status)

    async def _look(self) -> tuple[Finding, str]:
        """Try the spool, in a thread: it may hang. One that hangs is not joined by a second."""
        looking = self._looking or _aside(partial(_examine, self._spool))
        done, self._looking = (await asyncio.wait({looking}, timeout=self._every))[0], looking
        if not done:
            return Finding(silent=True), ""
        self._looking = None
        try:
            queue = looking.result()
        except OSError as error:
            return Finding(trouble=error), ""
        return Finding(stuck=self._worker_is_stuck()), queue

    def _worker_is_stuck(self) -> bool:
        """Tell whether the worker has answered nothing since the look before the last one."""
        if self._worker is None:
            return False
        if self._asked is None or self._asked.done():
            self._asked, self._unanswered = self._worker(), 0
        else:
            self._unanswered += 1
        return self._unanswered >= _LOOKS


def _examine(spool: Spool) -> str:
    self_test(spool)
    return queue_in_words(spool)


def _aside(work: Callable[[], str]) -> asyncio.Future[str]:
    """Run it in a thread of its own, which a program that ends does not wait for."""
    future: Future[str] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            future.set_exception(error)

    threading.Thread(target=run, name="self-test", daemon=True).start()
    return asyncio.wrap_future(future)
