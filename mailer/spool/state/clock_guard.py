"""The clock guard: may the wall clock be believed when mail is given up, or data deleted, because of its age?

Neither can be undone, and a host with an empty battery, or with a wrong time server, may be ten years ahead
for a minute or a weekend. The evidence is `state/clock.json`, the last reading that was believed:

- In the same boot, the boot clock (CLOCK_BOOTTIME) says how much time has passed. It counts suspended time,
  NTP slews it together with the wall clock, and no program sets it. The two diverge only when the wall clock
  is set.
- After another boot, it is unknown how long the host was off. Days of the ledger, times of directories and
  message ids show that it was at work in the meantime; a longer gap without such a sign raises a doubt.
- Without a reading from before, these signs are all there is. What was written while the clock was doubted is
  not one of them.

A clock that is doubted is believed again immediately when it agrees with the evidence. A new time is believed
when the clock has run evenly with the boot clock for the time that `_proof` returns, however often it is
read; or when the operator says so. Suspended time does not count, because no time server was asked during it.
Until then `state/clock.json` keeps the earlier reading.
"""

import contextlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace

from mailer.mail import clock
from mailer.mail.clock import Clocks, Reading
from mailer.mail.duration import duration
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.state import last_run, small_files
from mailer.spool.state.activity import moments

NAME = "clock.json"

_EVEN = 600.0
"""Seconds by which the wall clock may have been set in one boot. Leap seconds, pauses of a virtual machine,
and the first correction of an ordinary clock are smaller; the shortest age that matters is hours."""
_GAP = 2 * 86_400.0
"""Seconds without a sign of activity that are accepted after a boot: a host may be off for a night or two.
The shortest retention is no less (two days, of the ledger), and mail is tried for five."""
_KEPT = 3600.0
"""Seconds to wait if a time server keeps the clock. The server may be wrong, but rarely for long."""
_OFF = 86_400.0
"""Seconds to wait if the host may have been off."""
_SET = 7 * 86_400.0
"""Seconds to wait if the boot clock says that this much time has not passed, or if the host would have been
off for longer than most are. A wrong clock may stay unnoticed over a long weekend."""
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""Seconds since the epoch: before this program was written. A host without a battery starts at 0."""
_ABSENCE = 60 * 86_400.0
"""Seconds that a host may have been off without needing more than `_OFF` as proof."""
_DAY = 86_400.0
_WRITE_EVERY = 60.0
"""Seconds between two writes without news; a reference that is this old does no harm after a boot."""


class Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """A wall clock that is not believed, with its last reading."""

    at: str
    boot: str
    uptime: float
    off: float
    """Seconds by which it was ahead of the expected time when the doubt began; negative if behind."""
    evenly: float = 0.0
    """Seconds for which it has run evenly since, by the boot clock, while the host was not suspended."""
    awake: float | None = None
    """`Reading.awake` at that reading."""
    set: bool = False
    """Whether the boot clock shows that the clock was set; if not, the host may have been off."""

    @property
    def wall(self) -> float:
        return _seconds(self.at)


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `state/clock.json`."""

    at: str = ""
    """The last reading that was believed, in the ledger's time format; empty if there was none."""
    boot: str = ""
    booted: float = 0.0
    """When that boot began, in seconds since the epoch, by its first reading that was believed."""
    doubt: Doubt | None = None

    @property
    def wall(self) -> float:
        return _seconds(self.at)


def believed(reading: Reading) -> Mark:
    """Return a mark with this reading as the new reference."""
    return Mark(at=clock.rfc3339(reading.wall), boot=reading.boot, booted=reading.wall - reading.uptime)


def judge(
    mark: Mark | None, reading: Reading, signs: Callable[[], Iterable[float]], *, synchronized: bool
) -> Mark:
    """Judge one reading; it is believed if the result's `doubt` is None.

    Args:
            mark: what is known; None if nothing is.
            reading: the clocks.
            signs: returns times of events in the spool, by the wall clock of each time; called when needed.
            synchronized: whether a time server keeps the wall clock.
    """
    doubt, off, evenly = _go_on(mark.doubt if mark else None, reading), 0.0, 0.0
    if mark and mark.at:
        off = _off(mark, reading, signs)
        if off == 0:
            booted = mark.booted if mark.boot == reading.boot else reading.wall - reading.uptime
            return Mark(at=clock.rfc3339(reading.wall), boot=reading.boot, booted=booted)
    elif doubt is None:
        off, evenly = _judge_by_signs(_evidence(signs(), mark), reading)
        if off == 0:
            return believed(reading)
    doubt = doubt or Doubt(
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
    """Return for how many seconds a clock must run evenly until it is believed."""
    if synchronized:
        return _KEPT
    return _SET if doubt.set or abs(doubt.off) > _ABSENCE else _OFF


def _same_boot(mark: Mark | Doubt, reading: Reading) -> bool:
    return bool(reading.boot) and mark.boot == reading.boot


def _off(mark: Mark, reading: Reading, signs: Callable[[], Iterable[float]]) -> float:
    """Return how far the wall clock is ahead of the time expected from the mark; 0 if it may be right."""
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


def _evidence(moments: Iterable[float], mark: Mark | None) -> tuple[float, ...]:
    """Return the moments without those at which something was written by a clock that was doubted then."""
    if mark is None or mark.doubt is None:
        return tuple(moments)
    begin, end = mark.doubt.wall - mark.doubt.evenly - _EVEN, mark.doubt.wall + _EVEN
    return tuple(moment for moment in moments if not begin <= moment <= end)


def _judge_by_signs(moments: tuple[float, ...], reading: Reading) -> tuple[float, float]:
    """Judge a wall clock for which there is no earlier reading.

    Returns:
        How far it is ahead of the newest sign that is separate from those of the present, or behind the
        signs of most days; and for how many seconds it may have been so. The first is 0 if there is no
        evidence against the clock.
    """
    later = [moment for moment in moments if moment > reading.wall + _EVEN]
    # Days are counted and not signs: one run by a wrong clock leaves several, all of the same day. As many on
    # both sides decide nothing, and a doubt is the lesser mistake.
    others = {moment // _DAY for moment in moments if moment <= reading.wall + _EVEN}
    if later and len({moment // _DAY for moment in later}) >= len(others):
        return reading.wall - max(later), 0.0
    newest = reading.wall
    for moment in sorted((moment for moment in moments if moment <= reading.wall), reverse=True):
        if newest - moment > _GAP:
            # A day of the ledger starts before its first line was written.
            return reading.wall - moment, max(0.0, min(reading.wall - newest - _DAY, reading.uptime))
        newest = moment
    return 0.0, 0.0


def _go_on(doubt: Doubt | None, reading: Reading) -> Doubt | None:
    """Add the time since the last reading; return None if the wall clock was set again since then."""
    if doubt is None:
        return None
    if _same_boot(doubt, reading):
        passed = reading.uptime - doubt.uptime
        # Another program may have written a later reading first.
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
    """Return what is known, at least from the last run; None if there is nothing that can be read."""
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        mark = msgspec.json.decode(small_files.read(spool, NAME) or b"", type=Mark)
        if mark.wall or mark.doubt:
            return mark
    last = last_run.read(spool)
    return Mark(at=last.at) if last and _seconds(last.at) else None


OnChange = Callable[[Doubt | None], None]


class ClockGuard:
    """The clock guard of one program. Any number of programs may guard the same spool."""

    def __init__(self, spool: Spool, clocks: Clocks, on_change: OnChange = lambda _: None) -> None:
        """Take the first reading.

        Args:
            spool: the spool to guard.
            clocks: this host's clocks.
            on_change: called when a doubt begins, in the program that detects it; with None when it ends.

        Raises:
            OSError: the spool is unusable.
        """
        self._spool = spool
        self._clocks = clocks
        self._on_change = on_change
        self._mark = Mark()
        self._unwritten: Mark | None = None
        """The mark that could not be written to the spool; None if it was."""
        self.observe()

    def trusts(self) -> bool:
        """Return whether the wall clock is believed now, without a system call."""
        reading = self._clocks.read()
        if self._mark.doubt is not None and not self._mark.at:
            return False
        return _off(self._mark, reading, tuple) == 0

    def since(self, told: float, boot: str, uptime: float) -> float:
        """Correct the time of an event, while the wall clock is believed.

        Args:
            told: the event's time by the wall clock, in seconds since the epoch.
            boot: the id of the boot in which it happened; empty if not known.
            uptime: seconds on that boot's clock.

        Returns:
            The same time if it may be right; otherwise the corrected time, or now if that is not known.
        """
        reading = self._clocks.read()
        if boot and boot == reading.boot:
            was = reading.wall - (reading.uptime - uptime)
            return was if abs(was - told) > _EVEN else told
        cannot_be = told < EARLIEST <= reading.wall or told > reading.wall + _EVEN
        return reading.wall if cannot_be else told

    def observe(self) -> Doubt | None:
        """Take a reading and record it for later programs; return None if the clock is believed.

        Raises:
            OSError: the spool is unusable. (A reading that cannot be written is remembered by this program.)
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
    """Judge the present by a mark and by the spool, and write nothing; raises OSError."""
    # Asking for a time server is a system call, and matters only if there is a doubt.
    reading = clocks.read()
    judged = judge(mark, reading, lambda: moments(spool), synchronized=False)
    if judged.doubt is None or not clocks.synchronized():
        return judged
    return judge(mark, reading, lambda: moments(spool), synchronized=True)


def known_doubt(spool: Spool, clocks: Clocks) -> Doubt | None:
    """Return the doubt that the marks of earlier runs raise now; None if they raise none, or are missing."""
    mark = read(spool)
    return look(spool, clocks, mark).doubt if mark else None


def trust(spool: Spool, clocks: Clocks) -> Doubt | None:
    """Believe the wall clock from now on, because the operator has checked it.

    Returns:
        The doubt that this ends, or None.

    Raises:
        OSError: it could not be written.
    """
    with small_files.alone(spool):
        before = read(spool)
        _write(spool, believed(clocks.read()))
    return before.doubt if before else None


def describe(doubt: Doubt) -> str:
    """Say in a sentence why the wall clock is not believed, what is suspended, until when, and what to do."""
    far = duration(abs(doubt.off))
    if doubt.set:
        why = f"was set {far} {'ahead' if doubt.off > 0 else 'back'} while this host ran"
    elif doubt.off > 0:
        why = f"is {far} ahead of the last sign of life in the spool"
    else:
        why = f"is {far} behind the last sign of life in the spool"
    proof, kept = (duration(_proof(doubt, synchronized=by)) for by in (False, True))
    past = duration(doubt.evenly)
    return (
        f"the clock says {words.moment(doubt.wall)}, and {why}: nothing is given up, warned of or deleted"
        f" because of its age until the clock has run evenly for {proof} ({kept} if a time server"
        f" keeps it; so far {past}); set it right, or, if it is right, type: mailer spool trust-clock"
    )


def _has_changed(before: Mark | None, after: Mark) -> bool:
    """Return whether a doubt has begun or ended."""
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
