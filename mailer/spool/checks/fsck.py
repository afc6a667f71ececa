"""Check a spool's consistency without changing anything.

The system may be running: messages that a program holds, or moves during the check, are not findings.
Files in `corrupt/` have been dealt with; only their status (mode, owner, links) is checked.
"""

import os
import stat
from collections.abc import Iterator
from math import inf

import msgspec

from mailer.spool.directory import Spool
from mailer.spool.entry import Corrupt, Entry
from mailer.spool.ids import is_id
from mailer.spool.layout import (
    BUCKETED,
    DIRECTORIES,
    DIRECTORY_MODE,
    DROP,
    FILE_MODE,
    ONCE,
    PROBE,
    SUPPRESSED,
    TRACES,
    Place,
    Spot,
    is_day,
)
from mailer.spool.message_state import Disposition
from mailer.spool.names import foreign_names, other_names
from mailer.spool.run.sweep import STALE
from mailer.spool.scan import is_bucket
from mailer.spool.view.inspect import View

_KNOWN_NAMES = {*DIRECTORIES, ONCE, DROP, SUPPRESSED, TRACES, "README.md"}

_FITS = {
    Place.NEW: {Disposition.ATTEMPT, Disposition.WAIT},
    Place.RETRY: {Disposition.ATTEMPT, Disposition.WAIT},
    Place.HOLD: {Disposition.HOLD},
    Place.FAILED: {Disposition.FAIL},
    Place.SENT: {Disposition.FINISH},
}
"""The dispositions that fit a message at rest in each place. In `cur/` any fits: its runner may have died at
any point, and the next runner does what the journal says."""


class Finding(msgspec.Struct, frozen=True):
    """One inconsistency."""

    path: str
    """Relative to the spool directory."""
    problem: str


def findings(spool: Spool, now: float) -> Iterator[Finding]:
    """Check the whole spool, every byte of every message, and yield what is wrong.

    Args:
        spool: the spool; opening it has corrected its own directories.
        now: seconds since the epoch.

    Raises:
        OSError: it cannot be read.
    """
    with os.scandir(spool.root) as entries:
        for entry in entries:
            if entry.name not in _KNOWN_NAMES and not entry.name.startswith("."):
                yield Finding(entry.name, "does not belong to a spool")
    for place in Place:
        if place in BUCKETED:
            yield from _buckets(spool, place, now)
        else:
            yield from _directory(spool, place, "", now)


def _buckets(spool: Spool, place: Place, now: float) -> Iterator[Finding]:
    with spool.directory(place.value) as fd, os.scandir(fd) as entries:
        for entry in entries:
            path = f"{place}/{entry.name}"
            named_well = is_bucket(entry.name) if place is Place.RETRY else is_day(entry.name)
            if not named_well or not entry.is_dir(follow_symlinks=False):
                yield Finding(path, f"does not belong in {place}/")
                continue
            mode = stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode)
            if mode != DIRECTORY_MODE:
                yield Finding(path, f"has mode {mode:04o}, not {DIRECTORY_MODE:04o}")
            yield from _directory(spool, place, entry.name, now)


def _directory(spool: Spool, place: Place, bucket: str, now: float) -> Iterator[Finding]:
    directory = f"{place}/{bucket}" if bucket else place.value
    try:
        with spool.directory(directory) as fd, os.scandir(fd) as entries:
            for entry in entries:
                if is_id(entry.name):
                    yield from _file(spool, Spot(place, entry.name, bucket), now)
                elif place is Place.TMP and entry.name.startswith(PROBE):
                    continue  # A probe's; the sweep removes those of a killed one.
                else:
                    yield Finding(
                        f"{directory}/{entry.name}",
                        "does not have a message id as its name; no program reads it",
                    )
    except FileNotFoundError:
        return  # A sweep found the bucket empty and removed it.


def _file(spool: Spool, spot: Spot, now: float) -> Iterator[Finding]:
    try:
        state = os.stat(spot.path, dir_fd=spool.root, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISREG(state.st_mode):
        for problem in _status_problems(spool, spot, state):
            yield Finding(spot.path, problem)
    if spot.place is Place.CORRUPT:
        return
    if problem := _content_problem(spool, spot, now):
        yield Finding(spot.path, problem)


def _status_problems(spool: Spool, spot: Spot, state: os.stat_result) -> Iterator[str]:
    mode = stat.S_IMODE(state.st_mode)
    if mode != FILE_MODE:
        yield f"has mode {mode:04o}, not {FILE_MODE:04o}"
    if state.st_nlink > 1:
        if len(also := other_names(spool, spot.path, state)) == state.st_nlink - 1:
            if also and not _is_in_hand(spool, spot):
                yield f"is also {', '.join(also)}, as a power cut may leave it; {_who_keeps_one(spot, also)}"
        elif len(also) + len(foreign := foreign_names(spool, state, spot.name)) == state.st_nlink - 1:
            yield f"is also {', '.join(foreign)}, which a power cut brought back; the next run removes a name"
        else:
            links = f"has {state.st_nlink} links"
            yield f"{links}: a path outside of the spool names the same file, so no run sends it"
    if state.st_uid != os.geteuid():
        yield f"belongs to user {state.st_uid}, so no run sends it"


def _who_keeps_one(spot: Spot, also: tuple[str, ...]) -> str:
    places = {spot.path.partition("/")[0], *(path.partition("/")[0] for path in also)}
    if places <= {Place.HOLD, Place.FAILED}:
        return f"type `mailer spool hold {spot.name}`, which keeps one name"
    return "the next run keeps one name"


def _is_in_hand(spool: Spool, spot: Spot) -> bool:
    """Return whether a message is being moved, or was when its links were counted."""
    try:
        with View.open(spool, spot) as view:
            return view.claimed() or view.status.st_nlink == 1
    except (FileNotFoundError, Corrupt):
        return True


def _content_problem(spool: Spool, spot: Spot, now: float) -> str:
    try:
        with View.open(spool, spot) as view:
            problem = _stale(view, now) if spot.place is Place.TMP else _unfit(view)
            # A program may have written the journal line and not moved the message yet when we read it.
            if problem and (view.claimed() or _moved(spool, view)):
                return ""
            return problem
    except FileNotFoundError:
        return ""
    except Corrupt as corrupt:
        return f"unreadable: {corrupt}"


def _stale(view: View, now: float) -> str:
    if now - view.status.st_mtime > STALE:
        return "was left behind by a program that died; `mailer spool sweep` removes it"
    return ""


def _unfit(view: View) -> str:
    try:
        entry = view.entry()
        view.check(entry)
    except Corrupt as corrupt:
        return f"unreadable: {corrupt}"
    return _misfiled(view.spot.place, entry)


def _misfiled(place: Place, entry: Entry) -> str:
    disposition = entry.state.disposition(now=0.0, horizon=inf)
    fitting = _FITS.get(place)
    if fitting is None or disposition in fitting:
        return ""
    return f"misfiled: it is in {place}/, and its journal says {disposition}"


def _moved(spool: Spool, view: View) -> bool:
    try:
        named = os.stat(view.spot.path, dir_fd=spool.root, follow_symlinks=False)
    except FileNotFoundError:
        return True
    return named.st_ino != view.status.st_ino
