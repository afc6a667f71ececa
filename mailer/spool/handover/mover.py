"""The source's driver of a handover: batches of messages, each taken through all steps before the next one.

Every step is durable before the next one begins:

1. The source writes `moving` and parks the message.
2. The target stores it, parked (`arriving`), and answers.
3. The source writes `moved`: from here on the message is the target's. If the answer was that the target does
   not have it, the source writes `stayed` instead.
4. The target writes `arrived`, and may send it.
5. The source deletes its file.

A message that is left between two steps is sent by neither side. `resume` continues with it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from enum import StrEnum
from itertools import chain

import msgspec

from mailer.mail.clock import Clock
from mailer.mail.reply import printable
from mailer.spool.changes import Change, make_all_durable
from mailer.spool.directory import Spool
from mailer.spool.entry import Corrupt
from mailer.spool.handover.leaving import Between, Leaving, NotMovable
from mailer.spool.handover.wire import (
    ANSWERS,
    DATA,
    END,
    OFFER,
    RELEASE,
    Answer,
    Broken,
    Given,
    Greeting,
    Pipe,
    Verdict,
)
from mailer.spool.layout import Spot
from mailer.spool.locked_message import Busy, Gone, Unsafe

_MOST = 50
"""Messages of a batch, each of which is an open file."""
_LONGEST_REASON = 500
_LARGEST = 32 * 2**20
"""Octets after which a batch ends."""


class Result(StrEnum):
    """What became of one message."""

    DONE = "done"
    BUSY = "busy"
    """A runner has claimed it."""
    REFUSED = "refused"
    """It cannot be moved, and is where it was."""
    GONE = "gone"
    FAILED = "failed"
    """For the moment it cannot be moved, and is where it was."""
    WAITING = "waiting"
    """It is parked, and neither side sends it until the handover is resumed."""


class Outcome(msgspec.Struct, frozen=True):
    """The result for one message."""

    spot: Spot
    result: Result
    reason: str = ""
    to: tuple[str, ...] = ()
    """Its recipients, if they are known."""


class Mover:
    """Hands messages of one spool over to the spool at the other end of a pipe."""

    def __init__(self, spool: Spool, pipe: Pipe, by: str, clock: Clock, where: Greeting) -> None:
        """Prepare.

        Args:
            spool: where from.
            pipe: the connection, after the greetings.
            by: the operator.
            clock: returns the current time.
            where: the other spool.
        """
        self._spool = spool
        self._pipe = pipe
        self._by = by
        self._clock = clock
        self._where = where
        self._also: set[str] = set()
        """Further names of the locked messages, which a power cut or a kill may leave for a while."""

    def move(self, spots: Iterable[Spot], *, resumes: bool = False) -> Iterator[Outcome]:
        """Hand messages over, and yield the result for each.

        Args:
            spots: the messages.
            resumes: whether the handover of these messages has begun before.

        Raises:
            Broken: the connection is lost; the outcome of every message that was offered has been yielded.
        """
        spots = iter(spots)
        for first in spots:
            with ExitStack() as locks:
                taken, others = self._take(chain((first,), spots), locks, resumes=resumes)
                yield from others
                yield from self._batch(taken)

    def _take(
        self, spots: Iterator[Spot], locks: ExitStack, *, resumes: bool
    ) -> tuple[list[Leaving], list[Outcome]]:
        """Lock the messages of a batch, until `locks` ends."""
        taken: list[Leaving] = []
        others: list[Outcome] = []
        size = 0
        for spot in spots:
            if spot.path in self._also:
                continue
            try:
                leaving = Leaving.lock(self._spool, spot, self._where, resumes=resumes)
            except Gone:
                others.append(Outcome(spot, Result.GONE, "it was moved or removed"))
            except Busy:
                others.append(Outcome(spot, Result.BUSY, "a runner has claimed it"))
            except Between as error:
                others.append(Outcome(spot, Result.WAITING, str(error)))
            except (NotMovable, Unsafe, Corrupt) as error:
                others.append(Outcome(spot, Result.REFUSED, str(error)))
            except OSError as error:
                others.append(Outcome(spot, Result.FAILED, error.strerror or str(error)))
            else:
                locks.callback(leaving.release)
                taken.append(leaving)
                self._also.update(leaving.locked.also)
                size += leaving.locked.size
            if len(taken) + len(others) >= _MOST or size >= _LARGEST:
                break
        return taken, others

    def _batch(self, taken: list[Leaving]) -> Iterator[Outcome]:
        begun, failed = self._durably(taken, self._begin)
        yield from failed
        given = [each for each in begun if each.is_given_up]
        parked = [each for each in begun if not each.is_given_up]
        answers, broken = self._offer(parked)
        yield from self._left(parked, answers)
        stored = [each for each in parked if _verdict(answers, each) is Verdict.HERE]
        newly, failed = self._durably(stored, self._give_up)
        yield from failed
        given += newly
        answers, broken = self._release(given, broken)
        for each in given:
            if _verdict(answers, each) is not Verdict.HERE:
                yield _outcome(each, Result.WAITING, _reason(answers, each))
        released = [each for each in given if _verdict(answers, each) is Verdict.HERE]
        removed, failed = self._durably(released, Leaving.remove)
        yield from failed
        yield from (_outcome(each, Result.DONE) for each in removed)
        if broken is not None:
            raise broken

    def _begin(self, each: Leaving) -> Change:
        return each.begin(self._by, self._clock())

    def _give_up(self, each: Leaving) -> Change:
        return each.give_up(self._clock())

    def _offer(self, parked: list[Leaving]) -> tuple[dict[str, Answer], Broken | None]:
        """Offer messages; return the answers, and the end of the connection, if it ended."""
        answers: dict[str, Answer] = {}
        if not parked:
            return answers, None
        try:
            for each in parked:
                self._send(each)
        except Broken as broken:
            # Without END the target stores nothing of this batch; but it may have messages of earlier offers.
            verdicts = {each.id: Verdict.UNKNOWN if each.resumes else Verdict.TROUBLE for each in parked}
            return {name: Answer(name, verdicts[name], str(broken)) for name in verdicts}, broken
        try:
            self._pipe.send(END)
            return self._answers(), None
        except Broken as broken:
            return {each.id: Answer(each.id, Verdict.UNKNOWN, str(broken)) for each in parked}, broken

    def _send(self, each: Leaving) -> None:
        try:
            self._pipe.send(OFFER, each.offer())
            for piece in each.pieces():
                self._pipe.send(DATA, piece)
        except Broken:
            raise
        except OSError:
            return  # It cannot be read: the target answers that it is incomplete or unknown.

    def _release(
        self, given: list[Leaving], broken: Broken | None
    ) -> tuple[dict[str, Answer], Broken | None]:
        """Tell the target that these messages are its own now; return as `_offer` does."""
        try:
            if broken is None and given:
                self._pipe.send(RELEASE, [Given(each.id, each.move) for each in given])
                return self._answers(), None
        except Broken as error:
            broken = error
        return {each.id: Answer(each.id, Verdict.UNKNOWN, str(broken)) for each in given}, broken

    def _answers(self) -> dict[str, Answer]:
        answers = self._pipe.decode(self._pipe.receive(ANSWERS), list[Answer])
        return {
            answer.id: msgspec.structs.replace(answer, reason=printable(answer.reason, _LONGEST_REASON))
            for answer in answers
        }

    def _left(self, parked: list[Leaving], answers: dict[str, Answer]) -> Iterator[Outcome]:
        """Yield the results for the messages that the target does not have, or may not have."""
        for each in parked:
            if _verdict(answers, each) in {Verdict.UNKNOWN, None}:
                yield _outcome(each, Result.WAITING, _reason(answers, each))

        def stay(each: Leaving) -> Change:
            return each.stay(_reason(answers, each), self._clock())

        back, failed = self._durably([each for each in parked if _verdict(answers, each) in _ABSENT], stay)
        yield from failed
        for each in back:
            yield _outcome(each, _ABSENT[answers[each.id].verdict], _reason(answers, each))

    def _durably(
        self, some: list[Leaving], step: Callable[[Leaving], Change]
    ) -> tuple[list[Leaving], list[Outcome]]:
        """Take a step with each message, durably together; return those that took it, and what failed."""
        begun: list[tuple[Leaving, Change]] = []
        failed: list[Outcome] = []
        for each in some:
            try:
                begun.append((each, step(each)))
            except OSError as error:
                failed.append(_failure(each, error))
        troubles = make_all_durable(self._spool, [change for _, change in begun])
        done: list[Leaving] = []
        for (each, _), trouble in zip(begun, troubles, strict=True):
            if trouble:
                failed.append(_failure(each, trouble))
            else:
                done.append(each)
        return done, failed


_ABSENT = {Verdict.REFUSED: Result.REFUSED, Verdict.TROUBLE: Result.FAILED}
"""The answers by which the target does not have the message, each with the result for the operator."""


def _failure(each: Leaving, error: OSError) -> Outcome:
    waits = each.is_parked()
    return _outcome(each, Result.WAITING if waits else Result.FAILED, error.strerror or str(error))


def _verdict(answers: dict[str, Answer], each: Leaving) -> Verdict | None:
    answer = answers.get(each.id)
    return answer.verdict if answer else None


def _reason(answers: dict[str, Answer], each: Leaving) -> str:
    answer = answers.get(each.id)
    return answer.reason if answer else ""


def _outcome(each: Leaving, result: Result, reason: str = "") -> Outcome:
    return Outcome(each.spot, result, reason, tuple(each.entry.state.by_address))
