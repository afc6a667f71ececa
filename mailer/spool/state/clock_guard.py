"""The clock guard: may the wall clock be believed when something is given up or deleted for its age?

That is for good, and a host whose battery is empty, or whose time server is wrong, may be ten years ahead
for a minute or a weekend. The evidence is `state/clock.json`, the last reading that was believed:

- In the same boot the boot clock (CLOCK_BOOTTIME) tells how much time has passed. It counts suspended time,
  NTP slews it together with the wall clock, and nothing sets it: the two part only when that is set.
- After another boot nobody knows how long the host was off. Days of the ledger, times of directories and
  message ids show that it was at work meanwhile; a longer silence is doubted.

A clock that is doubted is believed again at once when it comes right. A new time is believed once it has gone
on evenly, by the boot clock, for as long as `_proof` says, however often it is read; or when the operator
says so. Suspended time does not count: no time server was asked meanwhile. Until then `state/clock.json`
keeps the reading from before.
"""

import contextlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace

from mailer.mail import clock
from mailer.mail.clock import Clocks, Reading
from mailer.spool import words
from mailer.spool.layout import Spool
from mailer.spool.state import last_run, small_files
from mailer.spool.state.signs import moments

NAME = "clock.json"

_EVEN = 600.0
"""Seconds by which the wall clock may have been set in one boot. Leap seconds, pauses of a virtual machine
and the first correction of a usual clock are less; the shortest age that matters is hours."""
_GAP = 2 * 86_400.0
"""Seconds without a sign of life that are believed after a boot: a host is off for a night, or two. Nothing
that is kept is kept for less (the ledger is for two days), and mail is tried for five."""
_KEPT = 3600.0
"""Seconds that are proof when a time server keeps the clock. It may be wrong itself, mostly not for long."""
_OFF = 86_400.0
"""Seconds that are proof when the host may have been off."""
_SET = 7 * 86_400.0
"""Seconds that are proof against the boot clock, which says that so much time has not passed, and of an
absence that few hosts have: a wrong clock may stay unnoticed over a long weekend."""
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""Seconds since the epoch. Before this program was written; a host without a battery begins at 0."""
_ABSENCE = 60 * 86_400.0
"""Seconds for which a host may have been off, and needs no more than `_OFF` as proof."""
_DAY = 86_400.0
_WRITE_EVERY = 60.0
"""Seconds between two writes that tell nothing new: a reference that old costs nothing after a boot."""


class Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """A wall clock that is not believed, as last read."""

    at: str
    boot: str
    uptime: float
    off: float
    """Seconds by which it was ahead of what was expected when the doubt began; negative: behind."""
    evenly: float = 0.0
    """Seconds for which it has gone on like this, by the boot clock, while the host was not suspended."""
    awake: float | None = None
    """As `Reading.awake`, then."""
    set: bool = False
    """The boot clock says that it was set; else the host may have been off."""

    @property
    def wall(self) -> float:
        return _seconds(self.at)


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What is in `state/clock.json`."""

    at: str = ""
    """The last reading that was believed, as the ledger writes times; empty: there was none."""
    boot: str = ""
    booted: float = 0.0
    """When that boot was, in seconds since the epoch, by the first reading of it that was believed."""
    doubt: Doubt | None = None

    @property
    def wall(self) -> float:
        return _seconds(self.at)


def believed(reading: Reading) -> Mark:
    """Return the mark of a reading that is to be the reference from here on."""
    return Mark(at=clock.rfc3339(reading.wall), boot=reading.boot, booted=reading.wall - reading.uptime)


def judge(
    mark: Mark | None, reading: Reading, signs: Callable[[], Iterable[float]], *, synchronized: bool
) -> Mark:
    """Take one reading; the result's `doubt` says whether it is believed.

    Args:
        mark: what is known; None: nothing.
        reading: the clocks.
        signs: when something happened in the spool, by the wall clock of then; asked for when needed.
        synchronized: a time server keeps the wall clock.
    """
    if mark is None or not mark.at:
        off, evenly = _judge_by_signs(tuple(signs()), reading)
        doubt = mark.doubt if mark else None
        if off == 0:
            return believed(reading)
    else:
        evenly, doubt = 0.0, mark.doubt
        off = _off(mark, reading, signs)
        if off == 0:
            booted = mark.booted if mark.boot == reading.boot else reading.wall - reading.uptime
            return Mark(at=clock.rfc3339(reading.wall), boot=reading.boot, booted=booted)
    doubt = _go_on(doubt, reading) or Doubt(
        at="", boot="", uptime=0.0, off=off, evenly=evenly, set=mark is not None and _same_boot(mark, reading)
    )
    if doubt.evenly >= _proof(doubt, synchronized=synchronized):
        return believed(reading)
    doubt = replace(
        doubt,
        at=clock.rfc3339(reading.wall),
        boot=reading.boot,
        uptime=reading.uptime,
        awake=reading.awake,
    )
    return replace(mark or Mark(), doubt=doubt)


def _proof(doubt: Doubt, *, synchronized: bool) -> float:
    """Return for how many seconds a clock must go on evenly until it is believed."""
    if synchronized:
        return _KEPT
    return _SET if doubt.set or abs(doubt.off) > _ABSENCE else _OFF


def _same_boot(mark: Mark | Doubt, reading: Reading) -> bool:
    return bool(reading.boot) and mark.boot == reading.boot


def _off(mark: Mark, reading: Reading, signs: Callable[[], Iterable[float]]) -> float:
    """Return by how much the wall clock is ahead of what the mark lets expect; 0: it may be right."""
    if _same_boot(mark, reading):
        moved = reading.wall - reading.uptime - mark.booted
        return moved if abs(moved) > _EVEN else 0.0
    passed = reading.wall - mark.wall
    if -_EVEN <= passed <= _GAP:
        return 0.0
    if passed > 0 and not _has_gap([mark.wall, *signs()], mark.wall, reading.wall):
        return 0.0
    return passed


def _has_gap(moments: Iterable[float], begin: float, end: float) -> bool:
    before = begin
    for moment in sorted(moment for moment in moments if begin <= moment <= end):
        if moment - before > _GAP:
            return True
        before = moment
    return end - before > _GAP


def _judge_by_signs(moments: tuple[float, ...], reading: Reading) -> tuple[float, float]:
    """Judge a wall clock that no earlier reading vouches for.

    Returns:
        How far it is ahead of the newest sign that is apart from the signs of now, or behind most of them,
        and for how many seconds it may have been so; 0: nothing speaks against it.
    """
    later = [moment for moment in moments if moment > reading.wall + _EVEN]
    if 2 * len(later) > len(moments):
        return reading.wall - max(later), 0.0
    newest = reading.wall
    for moment in sorted((moment for moment in moments if moment <= reading.wall), reverse=True):
        if newest - moment > _GAP:
            # A day of the ledger begins before its first line.
            return reading.wall - moment, max(0.0, min(reading.wall - newest - _DAY, reading.uptime))
        newest = moment
    return 0.0, 0.0


def _go_on(doubt: Doubt | None, reading: Reading) -> Doubt | None:
    """Add what has passed since the last reading; None: the wall clock was set again since."""
    if doubt is None:
        return None
    if _same_boot(doubt, reading):
        passed = reading.uptime - doubt.uptime
        # Another writer may have been faster with a later reading.
        even = abs(reading.wall - doubt.wall - passed) <= _EVEN
        counts = passed
        if doubt.awake is not None and reading.awake is not None:
            counts = min(passed, reading.awake - doubt.awake)
        return replace(doubt, evenly=doubt.evenly + max(0.0, counts)) if even else None
    return doubt if -_EVEN <= reading.wall - doubt.wall <= _GAP else None


def _seconds(text: str) -> float:
    try:
        return clock.seconds(text)
    except ValueError:
        return 0.0


def read(spool: Spool) -> Mark | None:
    """Return what is known, if by the last run alone; None: nothing, or nothing that can be read."""
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        mark = msgspec.json.decode(small_files.read(spool, NAME) or b"", type=Mark)
        if mark.wall or mark.doubt:
            return mark
    last = last_run.read(spool)
    return Mark(at=last.at) if last and _seconds(last.at) else None


OnChange = Callable[[Doubt | None], None]


class ClockGuard:
    """The guard of one program. Any number of programs may guard the same spool."""

    def __init__(self, spool: Spool, clocks: Clocks, on_change: OnChange = lambda _: None) -> None:
        """Take the first reading.

        Args:
            spool: what is guarded.
            clocks: this host's.
            on_change: called when a doubt begins, in the program that sees it first; with None when it ends.

        Raises:
            OSError: the spool cannot be worked with.
        """
        self._spool = spool
        self._clocks = clocks
        self._on_change = on_change
        self._mark = Mark()
        self._unwritten: Mark | None = None
        """What is known and could not be written down."""
        self.observe()

    def trusts(self) -> bool:
        """Tell whether the wall clock is believed at this moment; it costs no system call."""
        reading = self._clocks.read()
        if self._mark.doubt is not None and not self._mark.at:
            return False
        return _off(self._mark, reading, tuple) == 0

    def since(self, told: float, boot: str, uptime: float) -> float:
        """Correct when something happened, while the wall clock is believed.

        Args:
            told: when, by the wall clock of then, in seconds since the epoch.
            boot: the boot's id of then; empty: not known.
            uptime: what its boot clock showed.

        Returns:
            The same, if it may be right; else when it was; now, if that is not known.
        """
        reading = self._clocks.read()
        if boot and boot == reading.boot:
            was = reading.wall - (reading.uptime - uptime)
            return was if abs(was - told) > _EVEN else told
        cannot_be = told < EARLIEST <= reading.wall or told > reading.wall + _EVEN
        return reading.wall if cannot_be else told

    def observe(self) -> Doubt | None:
        """Take a reading, and leave it for the programs after this one; None: it is believed.

        Raises:
            OSError: the spool cannot be worked with. (What cannot be written down is known to this program.)
        """
        with small_files.alone(self._spool):
            before = self._unwritten or read(self._spool)
            self._mark = look(self._spool, self._clocks, before)
            if self._unwritten or _is_news(before, self._mark):
                self._unwritten = self._mark
                with contextlib.suppress(OSError):
                    _write(self._spool, self._mark)
                    self._unwritten = None
        if _has_changed(before, self._mark):
            self._on_change(self._mark.doubt)
        return self._mark.doubt


def look(spool: Spool, clocks: Clocks, mark: Mark | None) -> Mark:
    """Judge this moment by a mark and by the spool, and write nothing; raises OSError."""
    # Whether a time server keeps it matters only to what is doubted, and is a system call.
    reading = clocks.read()
    judged = judge(mark, reading, lambda: moments(spool), synchronized=False)
    if judged.doubt is None or not clocks.synchronized():
        return judged
    return judge(mark, reading, lambda: moments(spool), synchronized=True)


def known_doubt(spool: Spool, clocks: Clocks) -> Doubt | None:
    """Return why earlier runs' marks speak against this moment; None: they do not, or there are none."""
    mark = read(spool)
    return look(spool, clocks, mark).doubt if mark else None


def trust(spool: Spool, clocks: Clocks) -> Doubt | None:
    """Believe the wall clock from now on: the operator has looked at it.

    Returns:
        The doubt that this ends.

    Raises:
        OSError: it could not be written down.
    """
    with small_files.alone(spool):
        before = read(spool)
        _write(spool, believed(clocks.read()))
    return before.doubt if before else None


def describe(doubt: Doubt) -> str:
    """Say in a sentence why the wall clock is not believed, what waits, until when, and what to do."""
    far = words.duration(abs(doubt.off))
    if doubt.set:
        why = f"was set {far} {'ahead' if doubt.off > 0 else 'back'} while this host ran"
    elif doubt.off > 0:
        why = f"is {far} ahead of the last sign of life in the spool"
    else:
        why = f"is {far} behind the last sign of life in the spool"
    proof, kept = (words.duration(_proof(doubt, synchronized=by)) for by in (False, True))
    past = words.duration(doubt.evenly)
    return (
        f"the clock says {words.moment(doubt.wall)}, and {why}: nothing is given up, warned of or deleted"
        f" for its age until it has gone on so for {proof} ({kept} if a time server keeps it; so far {past})"
        "; set it right, or if it is right: mailer spool trust-clock"
    )


def _has_changed(before: Mark | None, after: Mark) -> bool:
    """Tell whether a doubt has begun or ended."""
    known = before.doubt if before else None
    if known and after.doubt:
        return after.doubt.evenly < known.evenly  # It was set again.
    return known is not after.doubt


def _is_news(before: Mark | None, after: Mark) -> bool:
    if before is None or _has_changed(before, after):
        return True
    then, now = before.doubt or before, after.doubt or after
    return then.boot != now.boot or abs(now.wall - then.wall) >= _WRITE_EVERY


def _write(spool: Spool, mark: Mark) -> None:
    small_files.replace(spool, NAME, msgspec.json.encode(mark) + b"\n")
