"""Directories as a whole: what is in them, and whose they are."""

import pwd
import shutil
from pathlib import Path


def snapshot(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(directory)): (
            path.read_bytes() if path.is_file() else b"",
            path.stat().st_ctime_ns,
        )
        for path in directory.rglob("*")
    }


NOBODY = pwd.getpwnam("nobody")


def give_away(*paths: Path) -> None:
    for top in paths:
        for path in (top, *top.rglob("*")):
            shutil.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
