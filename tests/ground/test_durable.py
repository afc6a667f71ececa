"""A small file is written as a whole or not at all, under its name only when it is on the disk."""

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from spools.crash import dying_at

from mailer.ground import durable

NEW = b"the new content\n" * 1000
OLD = b"the old content\n"


@pytest.fixture(params=[os.O_RDONLY, os.O_PATH], ids=["open", "O_PATH"])
def directory(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[int]:
    fd = os.open(tmp_path, request.param | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def refuse(_: int) -> None:
    raise OSError(errno.EPERM, "it may not have this owner")


def test_a_new_file_has_its_content_and_its_mode(tmp_path: Path, directory: int) -> None:
    durable.create("file", NEW, directory, 0o600)
    assert (tmp_path / "file").read_bytes() == NEW
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("link", [False, True])
def test_a_new_file_takes_no_others_place(tmp_path: Path, directory: int, *, link: bool) -> None:
    (tmp_path / "other").write_bytes(OLD)
    if link:
        (tmp_path / "file").symlink_to("missing")
    else:
        (tmp_path / "file").write_bytes(OLD)
    with pytest.raises(FileExistsError):
        durable.create("file", NEW, directory, 0o600)
    assert link or (tmp_path / "file").read_bytes() == OLD
    assert names(tmp_path) == ["file", "other"]


@pytest.mark.parametrize("write", [durable.create, durable.replace])
def test_a_file_is_prepared_while_it_is_still_empty(tmp_path: Path, directory: int, write) -> None:
    sizes = []

    def prepare(fd: int) -> None:
        sizes.append(os.fstat(fd).st_size)
        os.fchmod(fd, 0o640)

    write("file", NEW, directory, 0o600, prepare)
    assert sizes == [0]
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_new_file_that_cannot_be_written_is_not_left_behind(tmp_path: Path, directory: int) -> None:
    with pytest.raises(PermissionError):
        durable.create("file", NEW, directory, 0o600, refuse)
    assert names(tmp_path) == []


def test_a_replacement_that_cannot_be_written_leaves_the_old_file(tmp_path: Path, directory: int) -> None:
    (tmp_path / "file").write_bytes(OLD)
    with pytest.raises(PermissionError):
        durable.replace("file", NEW, directory, 0o600, refuse)
    assert (tmp_path / "file").read_bytes() == OLD
    assert names(tmp_path) == ["file"]


def test_a_replacement_that_cannot_be_renamed_is_not_left_behind(tmp_path: Path, directory: int) -> None:
    (tmp_path / "file" / "full").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        durable.replace("file", NEW, directory, 0o600)
    assert names(tmp_path) == ["file"]


def test_a_replacement_does_not_write_through_a_link(tmp_path: Path, directory: int) -> None:
    (tmp_path / "other").write_bytes(OLD)
    (tmp_path / "file").symlink_to("other")
    durable.replace("file", NEW, directory, 0o600)
    assert (tmp_path / "other").read_bytes() == OLD
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "file").read_bytes() == NEW


def test_a_file_left_by_a_killed_program_with_our_process_id_is_no_obstacle(
    tmp_path: Path, directory: int
) -> None:
    (tmp_path / "other").write_bytes(OLD)
    (tmp_path / f".file.{os.getpid()}").symlink_to("other")
    durable.replace("file", NEW, directory, 0o600)
    assert (tmp_path / "file").read_bytes() == NEW
    assert (tmp_path / "other").read_bytes() == OLD
    assert names(tmp_path) == ["file", "other"]


def test_the_content_is_synced_before_the_file_takes_the_others_place(directory: int) -> None:
    with dying_at(None) as boundary:
        durable.replace("file", NEW, directory, 0o600)
    assert [call for call in boundary.calls if call != "unlink"] == ["open", "fsync", "rename"]


def test_only_the_temporary_names_of_one_file_are_found(tmp_path: Path) -> None:
    for name in (".file.1", ".file.22", "file", ".other.1", ".file"):
        (tmp_path / name).touch()
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    assert sorted(durable.unrenamed("file", directory)) == [".file.1", ".file.22"]
    os.close(directory)


def test_threads_that_replace_one_file_do_not_write_into_each_others(tmp_path: Path, directory: int) -> None:
    """The probes of a monitor's watchdog and of its /health have one name."""
    begin = threading.Barrier(4)

    def replace_often(letter: bytes) -> None:
        begin.wait()
        for _ in range(50):
            durable.replace("file", letter * 5000, directory, 0o600)
            content = (tmp_path / "file").read_bytes()
            assert (len(content), len(set(content))) == (5000, 1)

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(replace_often, letter) for letter in (b"a", b"b", b"c", b"d")]:
            done.result()
    assert names(tmp_path) == ["file"]
