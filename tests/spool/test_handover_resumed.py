"""A move that was interrupted is resumed; no answer relies on what a power cut or an operator may undo."""

import errno
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from spools.crash import dying_at
from spools.handing_over import Cut, hand_over, pipes, run_both, take_in, wrong_at_the_end
from spools.states import Queue
from spools.walk import Found, walk

from mailer.spool.directory import Spool
from mailer.spool.handover.draft import Draft
from mailer.spool.handover.leaving import Leaving, NotMovable
from mailer.spool.handover.mover import Outcome, Result
from mailer.spool.handover.wire import (
    END,
    GREETING,
    MOST,
    OFFER,
    Answer,
    Broken,
    Greeting,
    Offer,
    Pipe,
    Verdict,
)
from mailer.spool.ids import new_id
from mailer.spool.layout import Place, Spot
from mailer.spool.run.operate import Operator, Refused

_HEAD = 5
_FIRST_LINE = len(b"mailer-move 1\n")
GREETED = _FIRST_LINE + _HEAD + len(msgspec.json.encode(Greeting("target:/spool", "0" * 32)))
"""Octets that bring the target's greeting back."""
ANSWERED = GREETED + _HEAD + len(msgspec.json.encode([Answer(new_id(0.0), Verdict.HERE)]))
"""Octets that bring back its answer to one offer, too."""
OFFERED = _FIRST_LINE + _HEAD + len(msgspec.json.encode(Greeting("source:/spool", ""))) + 1000
"""Octets that bring an offer there, and not all of a large message."""


class Between:
    """A spool with one large message, and two others."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.source, self.target, self.other = (directory / name for name in ("source", "target", "other"))
        self.queue = Queue(self.source)
        for spool in (self.target, self.other):
            Spool.open(spool, create=True).close()
        self.id = self.queue.new(
            "sent@example.net", body=b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n" * 200_000
        )
        self.sent: Counter[str] = Counter()

    def begin(self, **cut: int) -> Outcome:
        return self.resume(resumes=False, **cut)

    def resume(
        self, to: Path | None = None, *, resumes: bool = True, min_free: int = 0, **cut: int
    ) -> Outcome:
        """Hand the message over by a connection that may end early."""
        connection = Cut(**cut)
        thread = take_in(to or self.target, connection.target, min_free=min_free)
        [outcome] = hand_over(self.source, connection.source, resumes=resumes)
        thread.join()
        connection.join()
        return outcome

    def die(self, side: str, rename: int, *, after: int = 0, place: str = "new") -> None:
        """Begin, and let one side die before one of its renames, or so many calls after that.

        Args:
            side: `source` or `target`.
            rename: 0 for the first.
            after: calls.
            place: where the source has the message.
        """
        rehearsal = Between(self.source.parent / "rehearsal")
        for each in (rehearsal, self):
            if place == "retry":
                each.queue.defer(each.id, "451 4.3.0 later", "sent@example.net", seconds=-60)
            elif place == "cur":
                each.queue.abandon(each.id)
        calls = self._dying(rehearsal, side, None)
        renames = [at for at, name in enumerate(calls) if name in {"renameat2", "link"}]
        self._dying(self, side, renames[rename] + after)

    @staticmethod
    def _dying(between: "Between", side: str, die_at: int | None) -> list[str]:
        ends = pipes()
        with dying_at(die_at) as boundary:
            boundary.thread = -1  # Nobody yet.

            def began() -> None:
                boundary.thread = threading.get_ident()

            thread = take_in(between.target, ends, began if side == "target" else lambda: None)
            hand_over(between.source, ends, resumes=False, dies=boundary if side == "source" else None)
            thread.join()
        return boundary.calls

    def here(self) -> Found:
        return walk(self.source)[self.id]

    def there(self) -> Found:
        return walk(self.target)[self.id]

    def check_that_it_is_sent_once(self) -> None:
        for other in (self.target, self.other):
            run_both(self.source, other, self.sent)
        assert wrong_at_the_end(self.source, self.target, {self.id}, self.sent) == []
        assert self.sent == Counter([self.id])


@pytest.fixture
def between(tmp_path: Path) -> Between:
    return Between(tmp_path)


class Record:
    """What is synced in a directory, and what is said over the pipes, in order; some syncs may fail."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.did: list[str] = []
        self.failing: set[str] = set()
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._syncing(root, getattr(os, name)))
        monkeypatch.setattr(os, "write", self._writing(os.write))

    def _syncing(self, root: Path, real: object) -> object:
        def sync(fd: int) -> None:
            path = Path(f"/proc/self/fd/{fd}").readlink()
            if path.is_relative_to(root):
                self.did.append(str(path.relative_to(root)))
                if self.did[-1] in self.failing:
                    raise OSError(errno.EIO, "Input/output error")
            real(fd)  # type: ignore[operator]

        return sync

    def _writing(self, real: object) -> object:
        def write(fd: int, data: bytes) -> int:
            if b'"verdict":"here"' in bytes(data):
                self.did.append("HERE")
            if bytes(data[:1]) == b"R":
                self.did.append("RELEASE")
            return real(fd, data)  # type: ignore[operator, no-any-return]

        return write


@pytest.mark.parametrize("back", [GREETED, ANSWERED])
def test_a_move_is_resumed_only_with_the_spool_that_it_began_with(between: Between, back: int) -> None:
    """Another one could send the message as well, by the copy that the first one still has."""
    assert between.begin(back=back).result is Result.WAITING
    elsewhere = between.resume(between.other)
    assert elsewhere.result is Result.WAITING
    # The two have one name, as two containers may have.
    assert elsewhere.reason.startswith("it is on its way to target:/spool, which has another word")
    assert walk(between.other) == {}
    run_both(between.source, between.target, between.sent)
    assert between.resume().result is Result.DONE
    between.check_that_it_is_sent_once()


def test_a_spool_is_known_again_after_it_moved(between: Between) -> None:
    assert between.begin(back=GREETED).result is Result.WAITING
    between.target = between.target.rename(between.target.with_name("mounted-elsewhere"))
    assert between.resume().result is Result.DONE
    between.check_that_it_is_sent_once()


def _a_dead_target_had_just_named_it(between: Between) -> None:
    between.die("target", 0, after=1)


def _it_was_copied_by_hand(between: Between) -> None:
    shutil.copy(between.source / "new" / between.id, between.target / "new" / between.id)


@pytest.mark.parametrize("disk", ["sound", "failing"])
@pytest.mark.parametrize("how", [_a_dead_target_had_just_named_it, _it_was_copied_by_hand])
def test_what_the_target_has_is_durable_before_it_says_so(
    between: Between, monkeypatch: pytest.MonkeyPatch, how: Callable[[Between], None], disk: str
) -> None:
    how(between)
    place = between.there().place
    record = Record(between.target, monkeypatch)
    record.failing = {place} if disk == "failing" else set()
    resumes = between.here().is_parked
    outcome = between.resume(resumes=resumes, back=GREETED)
    assert outcome.result is Result.WAITING
    if disk == "failing":
        assert "HERE" not in record.did
    else:
        before = record.did[: record.did.index("HERE")]
        assert {f"{place}/{between.id}", place} <= set(before)


@pytest.mark.parametrize("how", ["stayed", "moved"])
def test_a_line_that_a_full_disk_cut_off_hides_no_later_one(between: Between, how: str) -> None:
    begun = between.begin(there=OFFERED) if how == "stayed" else between.begin(back=ANSWERED)
    assert begun.result is (Result.FAILED if how == "stayed" else Result.WAITING)
    [path] = between.source.rglob(between.id)
    assert between.here().kinds[-1] == how
    path.write_bytes(path.read_bytes()[:-20])
    assert between.resume().result is Result.DONE
    between.check_that_it_is_sent_once()


@pytest.mark.parametrize(
    ("trouble", "result"),
    [({"there": OFFERED}, Result.WAITING), ({"min_free": 1 << 62}, Result.DONE)],
)
def test_what_the_target_may_have_does_not_stay(
    between: Between, trouble: dict[str, int], result: Result
) -> None:
    """Otherwise it would be sent from here, and the target kept a copy for ever."""
    assert between.begin(back=GREETED).result is Result.WAITING
    assert between.resume(**trouble).result is result  # type: ignore[arg-type]
    run_both(between.source, between.target, between.sent)
    assert "stayed" not in [kind for spool in (between.source, between.target) for kind in _kinds(spool)]
    if result is not Result.DONE:
        assert between.resume().result is Result.DONE
    between.check_that_it_is_sent_once()


def _kinds(spool: Path) -> Iterator[object]:
    for found in walk(spool).values():
        yield from found.kinds


def test_a_copy_that_is_removed_before_it_arrived_was_not_handed_over(between: Between) -> None:
    assert between.begin(back=GREETED).result is Result.WAITING
    with Spool.open(between.target) as spool:
        Operator(spool, "bob").remove(Spot(Place.HOLD, between.id))
    assert between.resume().result is Result.DONE
    between.check_that_it_is_sent_once()


def _damage(path: Path, *, envelope: bool) -> None:
    """Change one octet of a message, so that its digest does not match, or that it cannot be read."""
    content = bytearray(path.read_bytes())
    at = content.index(b"Spool-Format") if envelope else content.index(b"x" * 70)
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("envelope", [True, False])
def test_a_damaged_copy_that_is_removed_is_stored_again(between: Between, envelope: bool) -> None:  # noqa: FBT001 - pytest passes it
    assert between.begin(back=GREETED).result is Result.WAITING
    _damage(between.target / "hold" / between.id, envelope=envelope)
    waits = between.resume()
    assert (waits.result, waits.reason.startswith("its file there: ")) == (Result.WAITING, True)
    with Spool.open(between.target) as spool:
        Operator(spool, "bob").remove(Spot(Place.HOLD, between.id))
    assert between.resume().result is Result.DONE
    between.check_that_it_is_sent_once()


def test_a_copy_that_is_damaged_while_it_is_released_is_never_taken_for_sent(between: Between) -> None:
    between.die("target", 1, after=1)
    assert (between.here().kinds[-1], between.there().kinds[-1]) == ("moved", "arriving")
    _damage(between.target / between.there().place / between.id, envelope=False)
    run_both(between.source, between.target, between.sent)
    assert walk(between.target)[between.id].place == "corrupt"
    assert between.resume().result is Result.WAITING
    with Spool.open(between.target) as spool:
        Operator(spool, "bob").remove(Spot(Place.CORRUPT, between.id))
    assert between.resume().result is Result.WAITING
    with Spool.open(between.source) as spool:
        Operator(spool, "alice").taking(Spot(Place.HOLD, between.id), 0.0).complete()
    between.check_that_it_is_sent_once()


def test_a_copy_that_was_damaged_before_its_release_is_not_released(between: Between) -> None:
    between.die("target", 1)
    assert (between.here().kinds[-1], between.there().kinds[-1]) == ("moved", "arriving")
    _damage(between.target / "hold" / between.id, envelope=False)
    waits = between.resume()
    assert (waits.result, waits.reason.startswith("its file there: ")) == (Result.WAITING, True)
    _have_the_source_send_it(between, Place.HOLD)


def test_a_copy_that_was_damaged_after_its_first_claim_proves_nothing(between: Between) -> None:
    assert between.begin(back=ANSWERED).result is Result.WAITING
    with Queue(between.target).claimed(between.id):
        pass
    _damage(between.target / between.there().place / between.id, envelope=False)
    run_both(between.source, between.target, between.sent)
    assert between.resume().result is Result.WAITING
    _have_the_source_send_it(between, Place.CORRUPT)


def _have_the_source_send_it(between: Between, there: Place) -> None:
    """Follow the advice for a copy that is damaged at the target, in the other order as well."""
    with Spool.open(between.target) as spool:
        Operator(spool, "bob").remove(Spot(there, between.id))
    assert between.resume().result is Result.WAITING
    with Spool.open(between.source) as spool:
        Operator(spool, "alice").taking(Spot(Place.HOLD, between.id), 0.0).complete()
    between.check_that_it_is_sent_once()


def test_a_record_that_cannot_be_read_is_not_taken_for_none(between: Between) -> None:
    assert between.begin(back=GREETED).result is Result.WAITING
    with Spool.open(between.target) as spool:
        Operator(spool, "bob").taking(Spot(Place.HOLD, between.id), 0.0).complete()
    run_both(between.source, between.target, between.sent)
    [record] = (between.target / "once").glob("drop-*")
    backup = between.target.parent / "backup"
    backup.hardlink_to(record)
    assert between.resume().result is Result.WAITING
    backup.unlink()
    assert between.resume().result is Result.DONE
    between.check_that_it_is_sent_once()


def test_what_is_damaged_is_neither_moved_nor_taken(between: Between) -> None:
    path = between.source / "corrupt" / between.id
    (between.source / "new" / between.id).rename(path)
    before, spot = path.read_bytes(), Spot(Place.CORRUPT, between.id)
    with Spool.open(between.source) as spool:
        with pytest.raises(NotMovable):
            Leaving.lock(spool, spot, Greeting("target:/spool", "0" * 32), resumes=False)
        with pytest.raises(Refused):
            Operator(spool, "alice").taking(spot, 0.0)
    assert path.read_bytes() == before


def test_what_was_taken_at_the_target_is_not_taken_back_because_a_backup_links_to_it(
    between: Between,
) -> None:
    assert between.begin(back=GREETED).result is Result.WAITING
    with Spool.open(between.target) as spool:
        Operator(spool, "bob").taking(Spot(Place.HOLD, between.id), 0.0).complete()
    [path] = between.target.rglob(between.id)
    backup = between.target.parent / "backup"
    backup.hardlink_to(path)
    assert between.resume().result is Result.WAITING
    backup.unlink()
    assert between.resume().result is Result.DONE
    between.check_that_it_is_sent_once()


def test_a_source_whose_file_was_damaged_since_hears_that_the_target_has_another(
    between: Between,
) -> None:
    assert between.begin(back=GREETED).result is Result.WAITING
    _damage(between.source / "hold" / between.id, envelope=False)
    assert between.resume().result is Result.DONE
    between.check_that_it_is_sent_once()


def test_a_name_that_an_earlier_release_gave_is_durable_before_the_line(
    between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    between.die("target", 1, after=1)
    assert (between.there().place, between.there().kinds[-1]) == ("new", "arriving")
    record = Record(between.target, monkeypatch)
    assert between.resume().result is Result.DONE
    before = record.did[: record.did.index("HERE")]
    assert before.index("new") < before.index(f"new/{between.id}")


def test_that_a_message_arrived_is_recorded_before_it_leaves(
    between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal goes with the file, and the source may ask once more."""
    assert between.begin(back=ANSWERED).result is Result.WAITING
    record = Record(between.target, monkeypatch)
    run_both(between.source, between.target, between.sent)
    assert walk(between.target) == {}
    assert record.did.index(f"new/{between.id}") < record.did.index("once") < record.did.index("cur")
    assert between.resume().result is Result.DONE
    between.check_that_it_is_sent_once()


def test_a_copy_that_is_removed_after_it_was_given_up_is_kept_by_the_source(between: Between) -> None:
    between.die("target", 1)
    assert (between.here().kinds[-1], between.there().kinds[-1]) == ("moved", "arriving")
    with Spool.open(between.target) as spool:
        Operator(spool, "bob").remove(Spot(Place.HOLD, between.id))
    waits = between.resume()
    assert (waits.result, "`mailer spool rm` removes it here" in waits.reason) == (Result.WAITING, True)
    assert between.here().kinds[-1] == "moved"
    with Spool.open(between.source) as spool:
        Operator(spool, "alice").remove(Spot(Place.HOLD, between.id))
    assert walk(between.source) == walk(between.target) == {}


def test_what_moves_is_not_removed_and_what_was_taken_is_not_stored_again(between: Between) -> None:
    between.die("target", 0, after=1)
    with Spool.open(between.source) as spool, pytest.raises(Refused):
        Operator(spool, "alice").remove(Spot(Place.HOLD, between.id))
    with Spool.open(between.target) as spool:
        Operator(spool, "bob").taking(Spot(Place.HOLD, between.id), 0.0).complete()
    run_both(between.source, between.target, between.sent)
    assert between.resume().result is Result.DONE
    between.check_that_it_is_sent_once()


@pytest.mark.parametrize("place", ["new", "retry", "cur"])
def test_what_is_resumed_is_parked_before_the_target_hears_of_it(between: Between, place: str) -> None:
    """Its program died after the line that begins the move, and before it parked the message."""
    between.die("source", 0, place=place)
    assert (between.here().place, between.here().kinds[-1]) == (place, "moving")
    assert between.resume(there=OFFERED).result is Result.WAITING
    assert (between.here().place, between.here().kinds.count("moving")) == ("hold", 1)
    assert between.here().kinds.count("recovered") == (place == "cur")


def test_a_message_is_released_when_it_is_durable_that_it_was_given_up(
    between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert between.begin(back=ANSWERED).result is Result.WAITING
    record = Record(between.source, monkeypatch)
    assert between.resume().result is Result.DONE
    assert f"hold/{between.id}" in record.did[: record.did.index("RELEASE")]


def test_that_a_message_was_released_is_durable_while_a_runner_has_it(
    between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert between.begin(back=ANSWERED).result is Result.WAITING
    with Queue(between.target).claimed(between.id):
        record = Record(between.target, monkeypatch)
        assert between.resume().result is Result.DONE
    assert f"cur/{between.id}" in record.did[: record.did.index("HERE")]


def test_a_copy_that_stays_behind_is_replaced_by_the_next_move(between: Between) -> None:
    assert between.begin(back=GREETED).result is Result.WAITING
    with Spool.open(between.source) as spool:
        Operator(spool, "alice").taking(Spot(Place.HOLD, between.id), 0.0).complete()
    assert between.begin().result is Result.DONE
    between.check_that_it_is_sent_once()


def test_a_source_cannot_fill_the_target_or_use_up_its_descriptors(between: Between) -> None:
    with Spool.open(between.target) as spool:
        draft = Draft(spool, Offer(new_id(0.0), new_id(0.0), 10, failed=False), 0.0)
        draft.write(b"x" * 10)
        draft.write(b"x" * 1000)
        assert os.fstat(draft.fd).st_size == 10
        draft.discard()
    ends = pipes()
    thread = take_in(between.target, ends)
    pipe = Pipe(ends[0], ends[1])
    pipe.greet(Greeting("source:/spool", ""))
    with suppress(Broken):
        for _ in range(MOST + 1):
            pipe.send(OFFER, Offer(new_id(0.0), new_id(0.0), 10, failed=False))
        pipe.send(END)
    assert pipe.next() is None
    thread.join()
    os.close(ends[0])
    os.close(ends[1])
    assert list((between.target / "tmp").iterdir()) == []


def test_a_side_whose_greeting_cannot_be_written_ends() -> None:
    """The other side waits for that greeting: if this one waited, too, neither would end."""
    reading, writing = os.pipe()
    full = os.open("/dev/full", os.O_WRONLY)
    os.write(writing, b"mailer-move 1\n")
    Pipe(reading, writing).send(GREETING, Greeting("source:/spool", ""))
    with pytest.raises(Broken, match="No space left"):
        Pipe(reading, full).greet(Greeting("target:/spool", "0" * 32))
    for fd in (reading, writing, full):
        os.close(fd)
