"""Enumerate messages by place, as a stream, so that memory does not grow with the queue."""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import attrgetter

from mailer.spool.directory import Spool
from mailer.spool.ids import ID, is_id
from mailer.spool.layout import BUCKETED, Place, Spot, bucket_time

QUEUE = (Place.NEW, Place.CUR, Place.RETRY, Place.HOLD, Place.FAILED, Place.CORRUPT)
"""The places that an operator calls "the queue": all but `tmp/` and `sent/`."""

_PASSES = 10
"""How often a message is searched for before it counts as absent, since it may move during the search."""


def names(spool: Spool, directory: str) -> Iterator[str]:
    """Yield the ids in a directory, in no order; none if the directory does not exist."""
    try:
        with spool.directory(directory) as fd, os.scandir(fd) as entries:
            for entry in entries:
                if is_id(entry.name):
                    yield entry.name
    except FileNotFoundError:
        return


_BATCH = 500
_NAME = attrgetter("name")


def batches(spool: Spool, places: Iterable[Place]) -> Iterator[tuple[Place, str, int, list[str]]]:
    """Yield the ids in some places, up to 500 at a time, with their place, bucket and open directory."""
    for place in places:
        for bucket in buckets(spool, place) if place in BUCKETED else [""]:
            try:
                path = f"{place}/{bucket}" if bucket else place.value
                with spool.directory(path) as fd, os.scandir(fd) as entries:
                    ids = filter(ID.fullmatch, map(_NAME, entries))
                    while batch := list(islice(ids, _BATCH)):
                        yield place, bucket, fd, batch
            except FileNotFoundError:
                continue


def buckets(spool: Spool, place: Place) -> list[str]:
    """Return the buckets of a place, the earliest first; one per minute or day, so these are few."""
    with spool.directory(place.value) as fd, os.scandir(fd) as entries:
        found = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return sorted(filter(is_bucket, found)) if place is Place.RETRY else sorted(found)


def is_bucket(name: str) -> bool:
    try:
        bucket_time(name)
    except ValueError:
        return False
    return True


def spots(spool: Spool, places: Iterable[Place] = QUEUE) -> Iterator[Spot]:
    """Yield the messages of some places, in no order.

    A message that moves during the scan may be missed or seen twice; one that does not move is seen once.
    """
    for place in places:
        for bucket in buckets(spool, place) if place in BUCKETED else [""]:
            directory = f"{place}/{bucket}" if bucket else place.value
            for name in names(spool, directory):
                yield Spot(place, name, bucket)


def find(spool: Spool, prefix: str, places: Iterable[Place] = QUEUE) -> list[Spot]:
    """Find the messages whose id begins with `prefix`; each is returned once, where a run meets it first.

    An empty result takes several passes, since a message may move from a place that is yet to be scanned to
    one that was. A whole id is looked up by name, at a cost that depends on the buckets, not on the queue.
    """
    places = tuple(places)
    for _ in range(_PASSES):
        candidates = _called(spool, prefix, places) if is_id(prefix) else spots(spool, places)
        found: dict[str, Spot] = {}
        for spot in candidates:
            if spot.name.startswith(prefix):
                found[spot.name] = _first_met(spool, found.get(spot.name), spot)
        if found:
            return list(found.values())
    return []


def _first_met(spool: Spool, earlier: Spot | None, later: Spot) -> Spot:
    """Choose between two names of one message; the earlier may be where it was a moment ago."""
    if earlier is None or later.place is Place.CUR or not exists(spool, earlier):
        return later
    return earlier


def exists(spool: Spool, spot: Spot) -> bool:
    """Return whether a name is there, whatever it is; raises OSError."""
    try:
        os.stat(spot.path, dir_fd=spool.root, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _called(spool: Spool, name: str, places: Iterable[Place]) -> Iterator[Spot]:
    for place in places:
        for bucket in buckets(spool, place) if place in BUCKETED else [""]:
            spot = Spot(place, name, bucket)
            if exists(spool, spot):
                yield spot


def count(spool: Spool, place: Place) -> int:
    """Count the messages of one place."""
    return sum(1 for _ in spots(spool, (place,)))
