"""The names of a message's file; a power cut may leave it with more than one.

A rename that was not synced may be undone by a power cut in the directory that it left: the file then has its
new name and still its old one (ext4 without a journal keeps the name that it had when it was last synced).
Where a rename may be torn, a move makes the new name first, and a program may die before it removes the old
one. So a second name is expected, as long as it is in this spool. The program that holds the file's lock owns
it under all of its names, and removes all but one when it moves the message on as the journal says.
"""

import os
from collections.abc import Iterator

from mailer.spool.directory import Spool
from mailer.spool.inode_spread import HOME
from mailer.spool.layout import BUCKETED, Place
from mailer.spool.scan import buckets

_NEAR = (Place.CUR, Place.NEW, Place.TMP, Place.HOLD, Place.FAILED, Place.CORRUPT)
"""Places that are searched first for another name, since they have no buckets."""


def other_names(spool: Spool, path: str, opened: os.stat_result) -> tuple[str, ...]:
    """Find the other names, in this spool, of the file that `path` names.

    Args:
        spool: the spool to search.
        path: relative to the spool.
        opened: the file's status, with its number of links.

    Returns:
        The paths; fewer than `opened.st_nlink - 1` if the file has a name outside of this spool.

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
    """Return the paths in this spool that link to an inode under another file name than `name`.

    A power cut may bring back the name of a removed file whose inode another file uses by then: a message's
    inode, which then has a name in `once/` too, or the reverse. This reads every directory, but only for a
    file with links that `other_names` did not find, which is rare.

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


def is_handled_elsewhere(place: Place, also: tuple[str, ...]) -> bool:
    """Return whether a run comes first to another of the file's names, and handles the message there."""
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
        return  # Nearly every spool is without this directory.
    for scratch in scratches:
        yield f"{HOME}/{scratch}/{name}"


def _is_same(path: str, opened: os.stat_result, directory: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, dir_fd=directory, follow_symlinks=False), opened)
    except FileNotFoundError:
        return False
