"""The target's side of a handover: it stores what it is offered, and sends it once the source gave it up.

    file                          line         sent from here
    tmp/, under another name      (none)       no: a sweep deletes it
    hold/, failed/                `arriving`   no: the source may still keep it
    where its journal says        `arrived`    yes: the source has said that it never will

A file in `once/`, named by the handover, says that the message is durable here, and is written before the
source hears so. It answers for a message that has left this spool since.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.spool import idempotency, journal
from mailer.spool.changes import Change, Removal, Written, make_all_durable, make_durable
from mailer.spool.entry import Corrupt, Entry, check_message, read_entry
from mailer.spool.handover.parking import unpark
from mailer.spool.handover.wire import (
    ANSWERS,
    CHUNK,
    DATA,
    END,
    OFFER,
    RELEASE,
    Answer,
    Broken,
    Given,
    Offer,
    Pipe,
    Verdict,
)
from mailer.spool.ids import is_id, new_id
from mailer.spool.journal import Event, Kind
from mailer.spool.layout import ONCE, Place, Spool, Spot
from mailer.spool.lock import lock
from mailer.spool.locked import Busy, LockedMessage, Missed, Unsafe
from mailer.spool.scan import QUEUE, find
from mailer.spool.syscalls import begin_writing, read_at, rename_exclusive, write_all
from mailer.spool.transitions import Move, target
from mailer.spool.view.inspect import View

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
Arrived = Callable[[str, tuple[str, ...]], None]
_EVERYWHERE = (*QUEUE, Place.SENT)


class Draft:
    """A file that is being received: a `Change` that gives it its name in the queue."""

    def __init__(self, spool: Spool, offer: Offer, now: float) -> None:
        """Create the file in `tmp/`, locked; raises OSError."""
        self._spool = spool
        self._spot = Spot(Place.TMP, new_id(now))
        self.offer = offer
        self.trouble: OSError | None = None
        """The first error; the source is told when the batch ends."""
        self.is_undone = False
        self.size = 0
        self.fd = spool.create(self._spot, _FLAGS)
        if not lock(self.fd):
            self.discard()
            raise BlockingIOError("locked by a sweep")

    def write(self, data: bytes) -> None:
        """Append; an error is kept, and what follows is dropped."""
        self.size += len(data)
        if self.trouble is None:
            try:
                write_all(self.fd, data)
            except OSError as error:
                self.trouble = error

    def begin_sync(self) -> None:
        begin_writing(self.fd)

    def sync(self) -> None:
        os.fsync(self.fd)

    def move(self) -> None:
        place = target(Move.ARRIVE_FAILED if self.offer.failed else Move.ARRIVE, self._spot.place)
        assert place is not None
        spot = Spot(place, self.offer.id)
        # No program relies on the name in tmp/, so a plain rename is enough.
        rename_exclusive(self._spool.root, self._spot.path, spot.path)
        self._spot = spot

    @property
    def is_stored(self) -> bool:
        """Whether the file has its name in the queue."""
        return self._spot.place is not Place.TMP

    def directories(self) -> tuple[str, ...]:
        return (self._spot.directory,)

    def sources(self) -> tuple[str, ...]:
        return (Place.TMP.value,)

    def undo(self) -> None:
        """Remove the file durably; raises OSError if it may still be there."""
        os.unlink(self._spot.path, dir_fd=self._spool.root)
        self._spool.sync_directory(self._spot.directory)
        self.is_undone = True
        os.ftruncate(self.fd, 0)  # Its blocks are free for the others of the batch, though it is still open.

    def discard(self) -> None:
        """Remove the file, if that is possible, and close it."""
        with suppress(OSError):
            os.unlink(self._spot.path, dir_fd=self._spool.root)
        self.close()

    def close(self) -> None:
        os.close(self.fd)


def serve(spool: Spool, pipe: Pipe, place: str, clock: Clock, *, min_free: int, on_arrival: Arrived) -> None:
    """Take in what the source at the other end of a pipe hands over, until it ends.

    Args:
        spool: where to.
        pipe: the connection.
        place: the name of this spool, for the source's journals.
        clock: returns the current time.
        min_free: octets that are to stay free on the spool's filesystem.
        on_arrival: called with the id and the recipients of each message that is sent from here from now on.

    Raises:
        Broken: the source did not end properly; what it had not given up is not sent from here.
    """
    source = pipe.greet(place).place
    arrivals = Arrivals(spool, source, clock, on_arrival)
    batch: list[Draft | Answer] = []
    try:
        while (frame := pipe.next()) is not None:
            kind, content = frame
            last = batch[-1] if batch else None
            if kind == OFFER:
                batch.append(_open(spool, pipe.decode(content, Offer), clock(), min_free))
            elif kind == DATA:
                if isinstance(last, Draft):
                    last.write(content)
            elif kind == END:
                taken, batch = batch, []
                pipe.send(ANSWERS, arrivals.receive(taken))
            elif kind == RELEASE:
                pipe.send(ANSWERS, list(arrivals.release(pipe.decode(content, list[Given]))))
            else:
                raise Broken(f"it sent {kind!r}")
    finally:
        for one in batch:
            if isinstance(one, Draft):
                one.discard()


def _open(spool: Spool, offer: Offer, now: float, min_free: int) -> Draft | Answer:
    try:
        free = spool.free_space()
        if free.lacks_inodes or free.is_under(offer.size + min_free):
            return Answer(offer.id, Verdict.TROUBLE, "that spool's filesystem is too full (minFreeSpace)")
        return Draft(spool, offer, now)
    except OSError as error:
        return Answer(offer.id, Verdict.TROUBLE, error.strerror or str(error))


class Arrivals:
    """Stores batches of messages in a spool, and releases them."""

    def __init__(self, spool: Spool, source: str, clock: Clock, on_arrival: Arrived) -> None:
        """Prepare; arguments as for `serve`; source: the other spool, for the journal."""
        self._on_arrival = on_arrival
        self._spool = spool
        self._source = source
        self._clock = clock

    def receive(self, offers: list[Draft | Answer]) -> list[Answer]:
        """Make a batch durable and answer; the drafts are closed."""
        answers: dict[int, Answer] = {}
        landing: dict[int, Draft] = {}
        for at, one in enumerate(offers):
            if isinstance(one, Answer):
                answers[at] = one
            elif (known := self._judge(one)) is None:
                landing[at] = one
            else:
                one.discard()
                answers[at] = known
        drafts = list(landing.values())
        for at, error in zip(landing, make_all_durable(self._spool, drafts), strict=True):
            answers[at] = self._landed(landing[at], error)
        answers |= self._record([(at, offers[at]) for at in answers if answers[at].verdict is Verdict.HERE])
        for draft in drafts:
            draft.close()
        return [answers[at] for at in range(len(offers))]

    def _judge(self, draft: Draft) -> Answer | None:
        """Check a file; return the answer, or None if it is to be stored, for which it is complete then."""
        offer = draft.offer
        try:
            if draft.trouble:
                raise draft.trouble
            entry = self._check(draft)
            if idempotency.read(self._spool, idempotency.name_of_move(offer.move)).accepted:
                return Answer(offer.id, Verdict.HERE)
            if known := self._present(draft, entry):
                return known
            write_all(draft.fd, self._line(Kind.ARRIVING, offer.move, f"from {self._source}"))
        except Corrupt as corrupt:
            return Answer(offer.id, Verdict.REFUSED, str(corrupt))
        except OSError as error:
            return Answer(offer.id, Verdict.TROUBLE, error.strerror or str(error))
        return None

    @staticmethod
    def _check(draft: Draft) -> Entry:
        """Read a file; raises Corrupt or OSError if it is not what was offered."""
        offer = draft.offer
        if not is_id(offer.id) or not is_id(offer.move):
            raise Corrupt("it is offered without an id")
        if draft.size != offer.size:
            raise OSError(errno.EIO, "it did not arrive whole")
        entry = read_entry(draft.fd, offer.id, size=draft.size)
        check_message(draft.fd, entry)
        move = entry.state.move
        if move is None or (move.event, move.move) != (Kind.MOVING, offer.move):
            raise Corrupt("its journal does not say that it is being moved")
        return entry

    def _present(self, draft: Draft, entry: Entry) -> Answer | None:
        """Answer if a message with this id is in this spool; None if there is none, or none any more."""
        offer = draft.offer
        for spot in find(self._spool, offer.id, _EVERYWHERE):
            try:
                with View.open(self._spool, spot) as view:
                    state = view.entry().state
                    length = _beginning(draft.fd, entry, offer.move)
                    same = state.arrived_by == offer.move or (
                        state.move is None and _continues(view, draft.fd, length)
                    )
                if same:
                    return Answer(offer.id, Verdict.HERE)
                if state.move and self._took_back(draft, entry, state.move):
                    self._remove(spot)
                    continue
            except (Missed, FileNotFoundError):
                return Answer(offer.id, Verdict.TROUBLE, "a message with its id is being moved there")
            except Unsafe as error:
                raise Corrupt(str(error)) from error
            where = f"another message with its id is in {spot.directory}/ there"
            return Answer(offer.id, Verdict.REFUSED, f"{where}, {state.held}" if state.move else where)
        return None

    @staticmethod
    def _took_back(draft: Draft, entry: Entry, begun: Event) -> bool:
        """Return whether the source has ended the handover that left a parked copy here."""
        lines = read_at(draft.fd, draft.size, entry.offset + entry.length)
        return begun.event == Kind.ARRIVING and any(
            event.event == Kind.STAYED and event.move == begun.move for event in journal.decode(lines)
        )

    def _remove(self, spot: Spot) -> None:
        with LockedMessage.lock(self._spool, spot) as locked:
            make_durable(self._spool, Removal(locked))

    @staticmethod
    def _landed(draft: Draft, error: OSError | None) -> Answer:
        if error is None:
            return Answer(draft.offer.id, Verdict.HERE)
        verdict = Verdict.TROUBLE if draft.is_undone else Verdict.UNKNOWN
        return Answer(draft.offer.id, verdict, error.strerror or str(error))

    def _record(self, here: list[tuple[int, Draft | Answer]]) -> dict[int, Answer]:
        """Remember messages that are durable here, and their keys; return answers that change by errors."""
        changed: dict[int, Answer] = {}
        ids: dict[int, str] = {}
        now = self._clock()
        for at, draft in here:
            assert isinstance(draft, Draft)
            offer = draft.offer
            ids[at] = offer.id
            try:
                for key in offer.keys:
                    with suppress(idempotency.InUse):
                        idempotency.adopt(self._spool, key.name, offer.id, key.content, at=now)
                idempotency.adopt(self._spool, idempotency.name_of_move(offer.move), offer.id, "", at=now)
            except (OSError, idempotency.InUse) as error:
                changed[at] = self._unrecorded(draft, str(error))
        if len(changed) < len(here):
            try:
                self._spool.sync_directory(ONCE)
            except OSError as error:
                return {at: Answer(ids[at], Verdict.UNKNOWN, str(error)) for at, _ in here}
        return changed

    def _unrecorded(self, draft: Draft, why: str) -> Answer:
        """Take a message back out that cannot be recorded, so that a full disk keeps none between the spools.

        If the record may have been written, it stays: it would answer that the message is here.
        """
        offer = draft.offer
        verdict = Verdict.UNKNOWN
        with suppress(OSError):
            if (
                draft.is_stored
                and not idempotency.read(self._spool, idempotency.name_of_move(offer.move)).accepted
            ):
                draft.undo()
                verdict = Verdict.TROUBLE
        return Answer(offer.id, verdict, why)

    def release(self, given: list[Given]) -> Iterator[Answer]:
        """Let messages be sent from here that the source has given up."""
        with ExitStack() as locks:
            begun: dict[str, Change] = {}
            whom: dict[str, tuple[str, ...]] = {}
            answers: dict[str, Answer] = {}
            for one in given:
                try:
                    change, to = self._begin_release(one, locks)
                except (Missed, Unsafe, Corrupt, OSError) as error:
                    answers[one.id] = Answer(one.id, Verdict.TROUBLE, str(error))
                    continue
                if isinstance(change, Answer):
                    answers[one.id] = change
                else:
                    begun[one.id], whom[one.id] = change, to
            troubles = make_all_durable(self._spool, list(begun.values()))
            for name, trouble in zip(begun, troubles, strict=True):
                verdict = Verdict.TROUBLE if trouble else Verdict.HERE
                answers[name] = Answer(name, verdict, str(trouble) if trouble else "")
                if not trouble and whom[name]:
                    self._on_arrival(name, whom[name])
        yield from answers.values()

    def _begin_release(self, one: Given, locks: ExitStack) -> tuple[Change | Answer, tuple[str, ...]]:
        """Return the change that releases a message, or an answer; and its recipients, if it arrives now."""
        known = idempotency.read(self._spool, idempotency.name_of_move(one.move))
        for spot in find(self._spool, one.id, _EVERYWHERE) if is_id(one.id) else ():
            try:
                locked = locks.enter_context(LockedMessage.lock(self._spool, spot))
            except Busy:
                with View.open(self._spool, spot) as view:
                    state = view.entry().state
                if state.move is None and state.arrived_by == one.move:
                    return Answer(one.id, Verdict.HERE), ()  # It was released, and a runner has it.
                raise
            state = locked.read().state
            if state.move and (state.move.event, state.move.move) == (Kind.ARRIVING, one.move):
                event = Event(at=clock.rfc3339(self._clock()), event=Kind.ARRIVED, move=one.move)
                return unpark(locked, state, event, self._clock()), tuple(state.by_address)
            if state.move is None and state.arrived_by == one.move:
                return Written(locked), ()  # It was released, perhaps by a program that died then.
        if known.accepted:
            return Answer(one.id, Verdict.HERE), ()
        return Answer(one.id, Verdict.UNKNOWN, "that spool has never had it: is it the right one?"), ()

    def _line(self, kind: Kind, move: str, reason: str) -> bytes:
        return journal.encode(Event(at=clock.rfc3339(self._clock()), event=kind, move=move, reason=reason))


def _beginning(fd: int, entry: Entry, move: str) -> int:
    """Return the octets of an offered file before the line that began this handover."""
    start = entry.offset + entry.length
    lines = read_at(fd, entry.size - start, start)
    at = lines.find(f'"move":"{move}"'.encode())
    return start + lines.rfind(b"\n", 0, at) + 1


def _continues(view: View, fd: int, length: int) -> bool:
    """Return whether the file here begins with the first octets of the offered one."""
    at = 0
    while at < length:
        mine = read_at(view.fd, min(CHUNK, length - at), at)
        if not mine or mine != read_at(fd, len(mine), at):
            return False
        at += len(mine)
    return True
