"""Filesystems of which the documents say that they are fit for a spool: each is mounted and tried."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from testbed.capability import forbidden
from testbed.ci import only_root
from testbed.filesystem import FILE_SYSTEMS
from testbed.tools import program

from mailer.mail.finding import Grade
from mailer.spool.checks.probe import probe
from mailer.spool.directory import Spool

pytestmark = only_root("only root can mount a filesystem")


@contextmanager
def mounted(kind: str, directory: Path) -> Iterator[Path]:
    """Mount an empty filesystem of a kind, and give a directory of it."""
    if kind in FILE_SYSTEMS:
        image = directory / "image"
        FILE_SYSTEMS[kind].create(image)
        with FILE_SYSTEMS[kind].mounted(image, directory / "mount") as place:
            yield place
        return
    below, place = directory / "below", directory / "mount"
    with _mount(below, "-t", "tmpfs", "-o", "size=64m", "none"):
        if kind == "tmpfs":
            yield below
            return
        for name in ("lower", "upper", "work"):
            (below / name).mkdir()
        layers = f"lowerdir={below}/lower,upperdir={below}/upper,workdir={below}/work"
        with _mount(place, "-t", "overlay", "-o", layers, "none"):
            yield place


@contextmanager
def _mount(place: Path, *arguments: str) -> Iterator[None]:
    place.mkdir()
    done = subprocess.run(
        [program("mount"), *arguments, str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        forbidden("mount a filesystem", done.stderr)
    try:
        yield
    finally:
        subprocess.run([program("umount"), str(place)], check=True)


@pytest.mark.parametrize("kind", [*FILE_SYSTEMS, "tmpfs", "overlay"])
@pytest.mark.parametrize("started", [False, True])
def test_a_filesystem_that_is_said_to_be_fit_can_do_everything(
    tmp_path: Path, kind: str, *, started: bool
) -> None:
    with mounted(kind, tmp_path) as place:
        if started:
            Spool.open(place / "spool", create=True).close()
        found = {each.what: each for each in probe(place / "spool", time.time)}
        assert len(found) == 12
        named = found.pop("filesystem")
        # A slow disk is no fault of the filesystem.
        assert {each.what for each in found.values() if each.grade is not Grade.OK} <= {"fsync"}
        assert found["fsync"].grade is not Grade.PROBLEM
        if kind in FILE_SYSTEMS:
            assert named.grade is Grade.OK
            assert named.found == f"{kind.split(maxsplit=1)[0]}, local; power cuts were tested"
        else:
            assert (named.grade, named.found.split(",")[0]) == (Grade.WARNING, kind)
        assert not list(place.rglob(".probe-*"))
