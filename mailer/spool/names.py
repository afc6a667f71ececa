"""The names of a message's file, of which a power cut may leave more than one.

A rename that was not synced out of a directory may come undone there: after the power returns, the file has
its new name and still its old one (ext4 without a journal keeps the name that it had when it was last
synced). Where a rename may be torn, a move makes the new name first, and a program may die before it
removes the old one. So a second name is explained as long as it is one of ours. The holder of the file's
lock owns it under all of its names, and removes all but one when the message moves on as its journal says.
"""

import os
from collections.abc import Iterator

from mailer.spool.inode_spread import HOME
from mailer.spool.layout import BUCKETED, Place, Spool
from mailer.spool.scan import buckets

_NEAR = (Place.CUR, Place.NEW, Place.TMP, Place.HOLD, Place.FAILED, Place.CORRUPT)
"""Where another name is looked for first: these have no buckets."""


def other_names(spool: Spool, path: str, opened: os.stat_result) -> tuple[str, ...]:
    """Find the other names of a file in this spool, one of which is `path`.

    Args:
        spool: where.
        path: relative to the spool.
        opened: the file's status, with its number of links.

    Returns:
        The paths; fewer than `opened.st_nlink - 1` when the file has a name outside of this spool.

    Raises:
        OSError: a directory cannot be read.
    """
    found: list[str] = []
    for candidate in _paths(spool, os.path.basename(path)):  # noqa: PTH119 - no path object is needed
        if len(found) == opened.st_nlink - 1:
            break
        if candidate != path and _is_same(candidate, opened, spool.root):
            found.append(candidate)
    return tuple(found)


def foreign_names(spool: Spool, opened: os.stat_result, name: str) -> list[str]:
    """Return the paths in this spool of an inode that are called something else than `name`.

    A power cut brings a removed file's name back, and its inode may be another file's by then: a message's,
    named as a key in `once/` too, or the reverse. It reads every directory, for a file with two links that
    are not explained by `other_names`: few have.

    Raises:
        OSError: a directory cannot be read.
    """
    return [
        f"{path}/{each}"
        for path, _, files, directory in os.fwalk(".", dir_fd=spool.root)
        for each in files
        if each != name and _is_same(each, opened, directory)
    ]


_EARLIER = {Place.NEW: ("cur/",), Place.RETRY: ("cur/", "new/")}


def is_met_earlier(place: Place, also: tuple[str, ...]) -> bool:
    """Tell whether a run meets a file under another of its names first, and deals with it there."""
    return any(path.startswith(_EARLIER.get(place, ())) for path in also)


def _paths(spool: Spool, name: str) -> Iterator[str]:
    for place in _NEAR:
        yield f"{place}/{name}"
    for place in sorted(BUCKETED):
        for bucket in buckets(spool, place):
            yield f"{place}/{bucket}/{name}"
    try:
        with spool.directory(HOME) as home, os.scandir(home) as entries:
            scratches = [entry.name for entry in entries]
    except OSError:
        return  # There is none, as nearly everywhere.
    for scratch in scratches:
        yield f"{HOME}/{scratch}/{name}"


def _is_same(path: str, opened: os.stat_result, directory: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, dir_fd=directory, follow_symlinks=False), opened)
    except FileNotFoundError:
        return False
