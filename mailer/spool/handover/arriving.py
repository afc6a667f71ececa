"""The target's side of a handover: it stores the offered messages, and sends each once the source gave it up.

    file                          line         sent from here
    tmp/, under another name      (none)       no: a sweep deletes it
    hold/, failed/                `arriving`   no: the source may still keep it
    where its journal says        `arrived`    yes: the source has said that it never will

It answers that it has a message only if it finds the message's file, which it then makes durable, or, after
the file has left, the record of its arrival in `once/`. It answers that it does not have a message only after
it has looked for both.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

from mailer.mail import clock
from mailer.mail.clock import Clock
from mailer.spool import idempotency, journal
from mailer.spool.changes import Change, Removal, Written, make_all_durable, make_durable
from mailer.spool.directory import Spool
from mailer.spool.entry import Corrupt, Entry, check_message, read_entry
from mailer.spool.handover.draft import Draft
from mailer.spool.handover.parking import RESTING, unpark
from mailer.spool.handover.wire import (
    ANSWERS,
    CHUNK,
    DATA,
    END,
    MOST,
    OFFER,
    RELEASE,
    Answer,
    Broken,
    Given,
    Greeting,
    Offer,
    Pipe,
    Verdict,
)
from mailer.spool.ids import is_id
from mailer.spool.journal import Event, Kind
from mailer.spool.key_file import InUse, name_of_move
from mailer.spool.layout import ONCE, Place, Spot
from mailer.spool.locked_message import Busy, LockedMessage, Missed, Unsafe
from mailer.spool.message_state import State
from mailer.spool.scan import QUEUE, find
from mailer.spool.syscalls import read_at, write_all
from mailer.spool.view.inspect import View

Arrived = Callable[[str, tuple[str, ...]], None]
_EVERYWHERE = (*QUEUE, Place.SENT)


def serve(
    spool: Spool, pipe: Pipe, here: Greeting, clock: Clock, *, min_free: int, on_arrival: Arrived
) -> None:
    """Receive the messages that the source at the other end of a pipe hands over, until the source ends.

    Args:
        spool: receives the messages.
        pipe: the connection.
        here: names this spool, for the source's journals.
        clock: returns the current time.
        min_free: octets to leave free on the spool's filesystem.
        on_arrival: called with the id and the recipients of each message that this spool sends from now on.

    Raises:
        Broken: the source did not end properly; messages that it had not given up are not sent from here.
    """
    source = pipe.greet(here).place
    arrivals = Arrivals(spool, source, clock, on_arrival)
    batch: list[Draft | Answer] = []
    try:
        while (frame := pipe.next()) is not None:
            kind, content = frame
            last = batch[-1] if batch else None
            if kind == OFFER and len(batch) < MOST:
                batch.append(arrivals.open(pipe.decode(content, Offer), min_free))
            elif kind == DATA:
                if isinstance(last, Draft):
                    last.write(content)
            elif kind == END:
                taken, batch = batch, []
                pipe.send(ANSWERS, arrivals.receive(taken))
            elif kind == RELEASE:
                given = pipe.decode(content, list[Given])
                if len(given) > MOST:
                    raise Broken(f"it released {len(given)} messages at once")
                pipe.send(ANSWERS, list(arrivals.release(given)))
            else:
                raise Broken(f"it sent {kind!r} after {len(batch)} messages")
    finally:
        for one in batch:
            if isinstance(one, Draft):
                one.discard()


class Arrivals:
    """Stores batches of messages in a spool, and releases them."""

    def __init__(self, spool: Spool, source: str, clock: Clock, on_arrival: Arrived) -> None:
        """Prepare; arguments as for `serve`; source: the other spool, for the journal."""
        self._on_arrival = on_arrival
        self._spool = spool
        self._source = source
        self._clock = clock

    def open(self, offer: Offer, min_free: int) -> Draft | Answer:
        """Answer an offer; if the answer depends on the file, return a draft to receive it into."""
        try:
            if not is_id(offer.id) or not is_id(offer.move):
                return Answer(offer.id, Verdict.REFUSED, "it is offered without an id")
            if known := self._known(offer):
                return known
            free = self._spool.free_space()
            if free.lacks_inodes or free.is_under(offer.size + min_free):
                return Answer(offer.id, Verdict.TROUBLE, "that spool's filesystem is too full (minFreeSpace)")
            return Draft(self._spool, offer, self._clock())
        except OSError as error:
            return Answer(offer.id, Verdict.TROUBLE, error.strerror or str(error))

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
        for (at, draft), error in zip(landing.items(), make_all_durable(self._spool, drafts), strict=True):
            answers[at] = self._landed(draft, error)
        answers |= self._remember({at: landing[at] for at in landing if answers[at].verdict is Verdict.HERE})
        for draft in drafts:
            draft.close()
        return [answers[at] for at in range(len(offers))]

    def _known(self, offer: Offer, draft: Draft | None = None, entry: Entry | None = None) -> Answer | None:
        """Answer if a message with this id is in this spool, or if this handover has brought it here before.

        Args:
            offer: the message.
            draft: its file, if that has been received; otherwise only this handover's message is recognized.
            entry: what was read of this file.
        """
        try:
            for spot in find(self._spool, offer.id, _EVERYWHERE):
                with LockedMessage.lock(self._spool, spot) as locked:
                    if answer := self._known_by(locked, offer, draft, entry):
                        return answer
            # Looked up last: the record is written before the file leaves.
            return self._here(offer) if idempotency.has_arrived(self._spool, offer.move) else None
        except (Corrupt, Unsafe) as error:
            # It may be the message of this handover.
            return Answer(offer.id, Verdict.UNKNOWN, f"its file there: {error}")
        except Missed:
            return Answer(offer.id, Verdict.UNKNOWN, "another program is at work on it there")
        except OSError as error:
            return Answer(offer.id, Verdict.UNKNOWN, error.strerror or str(error))

    def _known_by(
        self, locked: LockedMessage, offer: Offer, draft: Draft | None, entry: Entry | None
    ) -> Answer | None:
        """Answer from a file with the message's id; None if it decides nothing or was removed."""
        mine, spot = locked.read(), locked.spot
        state = mine.state
        if spot.place is Place.CORRUPT:
            raise Corrupt(_DAMAGED)
        arrives = state.arrived_by == offer.move
        if (
            arrives
            or idempotency.has_arrived(self._spool, offer.move)
            or (draft and entry and _continues(locked, state, draft, entry))
        ):
            locked.check(mine)
            os.fsync(locked.fd)
            self._sync_name(spot)
            if not arrives:
                idempotency.confirm_arrival(locked, offer.move)  # Its journal does not have this handover.
            return self._here(offer)
        if draft is None or entry is None:
            return None
        if not _is_superseded(state, draft, entry):
            where = f"another message with its id is in {spot.directory}/ there"
            return Answer(offer.id, Verdict.REFUSED, f"{where}, {state.held}" if state.move else where)
        assert state.move
        make_durable(self._spool, Removal(locked))
        return None

    def _sync_name(self, spot: Spot) -> None:
        for name in dict.fromkeys((spot.place.value, spot.directory)):
            self._spool.sync_directory(name)

    def _here(self, offer: Offer) -> Answer:
        self._adopt_keys(offer)
        if offer.keys:
            self._spool.sync_directory(ONCE)
        return Answer(offer.id, Verdict.HERE)

    def _adopt_keys(self, offer: Offer) -> None:
        """Remember a message that is durable here under its idempotency keys; raises OSError."""
        for key in offer.keys:
            with suppress(InUse):
                idempotency.adopt(self._spool, key.name, offer.id, key.content, at=self._clock())

    def _judge(self, draft: Draft) -> Answer | None:
        """Check a received file; return the answer, or None if it is complete and is to be stored."""
        offer = draft.offer
        try:
            if draft.trouble:
                raise draft.trouble
            entry = self._check(draft)
            if known := self._known(offer, draft, entry):
                return known
            at = clock.rfc3339(self._clock())
            arriving = Event(at=at, event=Kind.ARRIVING, move=offer.move, reason=f"from {self._source}")
            write_all(draft.fd, b"\n" * entry.torn + journal.encode(arriving))
        except Corrupt as corrupt:
            return Answer(offer.id, Verdict.REFUSED, str(corrupt))
        except OSError as error:
            return Answer(offer.id, Verdict.TROUBLE, error.strerror or str(error))
        return None

    @staticmethod
    def _check(draft: Draft) -> Entry:
        """Read a received file; raises Corrupt or OSError if it differs from the offer."""
        offer = draft.offer
        if draft.size != offer.size:
            raise OSError(errno.EIO, "it did not arrive whole")
        entry = read_entry(draft.fd, offer.id, size=draft.size)
        check_message(draft.fd, entry)
        move = entry.state.move
        if move is None or (move.event, move.move) != (Kind.MOVING, offer.move):
            raise Corrupt("its journal does not say that it is being moved")
        return entry

    @staticmethod
    def _landed(draft: Draft, error: OSError | None) -> Answer:
        if error is None:
            return Answer(draft.offer.id, Verdict.HERE)
        absent = draft.is_undone and error.errno != errno.EEXIST
        verdict = Verdict.TROUBLE if absent else Verdict.UNKNOWN
        return Answer(draft.offer.id, verdict, error.strerror or str(error))

    def _remember(self, here: dict[int, Draft]) -> dict[int, Answer]:
        """Remember the keys of messages that are durable here; return the answers that errors change."""
        changed: dict[int, Answer] = {}
        keyed = {at: draft for at, draft in here.items() if draft.offer.keys}
        for at, draft in here.items():
            offer = draft.offer
            try:
                idempotency.expect_arrival(self._spool, offer.move, offer.id, at=self._clock())
                self._adopt_keys(offer)
            except OSError as error:
                changed[at] = self._taken_back(draft, str(error))
        if keyed.keys() - changed.keys():
            try:
                self._spool.sync_directory(ONCE)
            except OSError as error:
                unknown = keyed.keys() - changed.keys()
                changed |= {at: Answer(here[at].offer.id, Verdict.UNKNOWN, str(error)) for at in unknown}
        return changed

    @staticmethod
    def _taken_back(draft: Draft, why: str) -> Answer:
        """Remove a message whose records do not fit on a full disk, so that it stays with the source."""
        verdict = Verdict.UNKNOWN
        with suppress(OSError):
            draft.undo()
            verdict = Verdict.TROUBLE
        return Answer(draft.offer.id, verdict, why)

    def release(self, given: list[Given]) -> Iterator[Answer]:
        """Release messages that the source has given up: they are sent from here from now on."""
        with ExitStack() as locks:
            begun: dict[str, Change] = {}
            whom: dict[str, tuple[str, ...]] = {}
            answers: dict[str, Answer] = {}
            for one in given:
                try:
                    change, to = self._begin_release(one, locks)
                except (Missed, Unsafe, OSError) as error:
                    answers[one.id] = Answer(one.id, Verdict.TROUBLE, str(error))
                    continue
                except Corrupt as error:
                    answers[one.id] = Answer(one.id, Verdict.TROUBLE, f"its file there: {error}")
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
        """Return the change that releases a message, or an answer; and the recipients if it is released."""
        for spot in find(self._spool, one.id, _EVERYWHERE) if is_id(one.id) else ():
            try:
                locked = locks.enter_context(LockedMessage.lock(self._spool, spot))
            except Busy:
                with View.open(self._spool, spot) as view:
                    if not self._was_released(view.entry().state, one):
                        raise
                    os.fsync(view.fd)
                return Answer(one.id, Verdict.HERE), ()  # It was released, and a runner has it.
            entry = locked.read()
            state = entry.state
            if spot.place is Place.CORRUPT:
                # It may have been claimed before it was damaged, so its record alone proves nothing.
                idempotency.forget(self._spool, name_of_move(one.move))
                self._spool.sync_directory(ONCE)
                raise Corrupt(_DAMAGED)
            if spot.place is not Place.SENT:
                locked.check(entry)
            if self._was_released(state, one):
                return Written(locked), ()  # The program that wrote it may have died before it was durable.
            if state.move is None or (state.move.event, state.move.move) != (Kind.ARRIVING, one.move):
                raise Corrupt("another message with its id is there")
            if spot.place not in RESTING:
                # The name that an earlier release gave it must last as long as the line.
                self._sync_name(spot)
            event = Event(at=clock.rfc3339(self._clock()), event=Kind.ARRIVED, move=one.move)
            return unpark(locked, state, event, self._clock()), tuple(state.by_address)
        if idempotency.has_arrived(self._spool, one.move):
            return Answer(one.id, Verdict.HERE), ()  # It was released, and has left this spool.
        return Answer(one.id, Verdict.UNKNOWN, _NEVER_HERE), ()

    def _was_released(self, state: State, one: Given) -> bool:
        """Return whether a message in this spool belongs to it; False while the handover is under way."""
        if state.move and state.move.move == one.move:
            return False
        return state.arrived_by == one.move or idempotency.has_arrived(self._spool, one.move)


_DAMAGED = "it is damaged, and in corrupt/"
_NEVER_HERE = (
    "that spool does not have it, and does not remember it: if it was sent there, "
    "`mailer spool rm` removes it here; if not, `mailer spool move --take` has it sent from here"
)


def _is_superseded(state: State, draft: Draft, entry: Entry) -> bool:
    """Return whether a copy that is parked here will never be released: its handover ended without effect.

    The source has begun another one since, and releases only that one.
    """
    lines = journal.decode(read_at(draft.fd, draft.size, entry.offset + entry.length))
    return (
        state.move is not None
        and state.move.event == Kind.ARRIVING
        and any(event.event == Kind.MOVING and event.move == state.move.move for event in lines)
    )


def _continues(locked: LockedMessage, state: State, draft: Draft, entry: Entry) -> bool:
    """Return whether a file here is the offered message: it begins as that did before this handover."""
    if state.move:
        return False
    start = entry.offset + entry.length
    lines = read_at(draft.fd, entry.size - start, start)
    began = lines.find(f'"move":"{draft.offer.move}"'.encode())
    length = start + lines.rfind(b"\n", 0, began) + 1
    at = 0
    while at < length:
        mine = read_at(locked.fd, min(CHUNK, length - at), at)
        if not mine or mine != read_at(draft.fd, len(mine), at):
            return False
        at += len(mine)
    return True
