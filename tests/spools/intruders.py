"""What may lie in the spool and is no message."""

import os
import socket
from collections.abc import Callable
from pathlib import Path


def make_socket(path: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)  # A socket's path has 108 bytes at most.
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


def make_link(path: Path) -> None:
    target = path.parent.parent.parent / "secret"
    target.write_bytes(b"Subject: secret\r\n\r\nnot for the mail\r\n")
    path.symlink_to(target)


def make_holes(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


INTRUDERS: dict[str, Callable[[Path], object]] = {
    "symbolic link": make_link,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "FIFO": os.mkfifo,
    "socket": make_socket,
    "directory": Path.mkdir,
    "directory with files": lambda path: (path / "x").mkdir(parents=True),
    "empty": Path.touch,
    "garbage": lambda path: path.write_bytes(os.urandom(4000)),
    "a mailbox": lambda path: path.write_bytes(b"From app Sun Nov 22\r\nSubject: x\r\n\r\nhello\r\n"),
    "a terabyte of holes": make_holes,
    "later format": lambda path: path.write_bytes(
        b"Spool-Format: 2\r\nSpool-Id: %s\r\nSpool-Length: 0000000000\r\n" % path.name.encode()
    ),
}
