"""Feed the service manager's watchdog, and report the program's status to it.

The service manager restarts a program that does not feed its watchdog. So feeding stops only for faults that a
restart may repair:

| fault | would a restart repair it? | the watchdog |
| --- | --- | --- |
| the event loop hangs | yes: it is a defect of this process | is not fed, because the loop feeds it |
| the committer thread, which makes mail durable, hangs, and the disk does not | yes, as above | is not fed |
| the spool was moved, replaced or unmounted; this process has no more descriptors or memory | yes: a new process opens the spool that is there now | is not fed |
| the disk is full, read-only, broken or forbidden | no: a new process finds the same disk, and clients that get 452 now would get no answer | is fed; the status says what is wrong |
| the disk does not answer | no: a process that waits for it cannot even be killed | is fed, with such a status, unless the loop itself waits for that disk |

A program that has not passed the self-test since its start feeds the watchdog whatever the result: the previous
restart did not help. So one fault costs one restart, never a loop of restarts.
"""  # noqa: E501 - a table

import asyncio
import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from mailer.cli.service.manager import ServiceManager
from mailer.maillog.events import MailLog
from mailer.spool.checks.self_test import queue_in_words, self_test
from mailer.spool.directory import Spool

_MENDABLE = frozenset({errno.EBADF, errno.EMFILE, errno.ENOENT, errno.ENOMEM, errno.ENOTCONN, errno.ESTALE})
"""Errors from the descriptors that this process holds open, or of resources that it has used up."""
_MAX_INTERVAL = 10.0
"""The most seconds between two self-tests, each of which updates the status."""
_TESTS_PER_TIMEOUT = 3
"""Self-tests within the watchdog's timeout, so that a late one does no harm."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one self-test."""

    trouble: OSError | None = None
    """The error from the disk, if there was one."""
    silent: bool = False
    """The disk has not answered in time."""
    stuck: bool = False
    """The disk has answered, but the worker thread, which waits for nothing else, has not."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a self-test."""

    feed: bool
    """Whether to feed the watchdog."""
    words: str = ""
    """What is wrong; empty if nothing is."""


def judge(found: Finding, *, passed: bool) -> Verdict:
    """Decide whether to feed the watchdog.

    Args:
        found: the result of this self-test.
        passed: whether an earlier self-test of this process has succeeded.
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
    """Runs the self-test every few seconds, and reports to the service manager."""

    def __init__(
        self,
        manager: ServiceManager,
        spool: Spool,
        log: MailLog,
        describe: Callable[[], str],
        worker: Callable[[], Future[None]] | None = None,
    ) -> None:
        """Prepare; no test is run yet.

        Args:
            manager: gets the watchdog messages and the status.
            spool: the open spool.
            log: gets a line when the self-test fails or succeeds again.
            describe: returns what the program is doing.
            worker: asks the thread that all mail depends on for an answer; None if there is none.
        """
        self._manager = manager
        self._spool = spool
        self._log = log
        self._describe = describe
        self._worker = worker
        self._every = min(
            _MAX_INTERVAL, (manager.watchdog or _MAX_INTERVAL * _TESTS_PER_TIMEOUT) / _TESTS_PER_TIMEOUT
        )
        self._looking: asyncio.Future[str] | None = None
        self._asked: Future[None] | None = None
        self._unanswered = 0
        self._passed = False
        self._words = ""

    def status(self) -> str:
        """Return what the program is doing, preceded by what is wrong, if anything is."""
        return f"{self._words}; {self._describe()}" if self._words else self._describe()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the service manager informed, from the running event loop, while the block runs."""
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
            except Exception as error:  # noqa: BLE001 - a defect in the test must not look like one in the program
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
        """Test the spool in a thread, because it may hang; while one test hangs, do not start a second."""
        looking = self._looking or _in_thread(partial(_examine, self._spool))
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
        """Return whether the worker has not answered for as many self-tests as fit the watchdog's timeout."""
        if self._worker is None:
            return False
        if self._asked is None or self._asked.done():
            self._asked, self._unanswered = self._worker(), 0
        else:
            self._unanswered += 1
        return self._unanswered >= _TESTS_PER_TIMEOUT


def _examine(spool: Spool) -> str:
    self_test(spool)
    return queue_in_words(spool)


def _in_thread(work: Callable[[], str]) -> asyncio.Future[str]:
    """Run a function in a daemon thread, which does not keep the program from ending."""
    future: Future[str] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - raised again where the future is awaited
            future.set_exception(error)

    threading.Thread(target=run, name="self-test", daemon=True).start()
    return asyncio.wrap_future(future)
