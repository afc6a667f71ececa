"""What is no drop is not read, and a drop that is damaged or refused is set aside whole."""

import os
import time

import pytest
from inbound.dropping import MAIL, TEXT, TO, Receiver, as_root, leave, names, queued
from inbound.receiving import USER

from mailer.sendmail.drop import hand_over
from mailer.spool.directory import Spool
from mailer.spool.ids import new_id
from mailer.spool.layout import DROP


def odd(spool: Spool, name: str, kind: str) -> None:
    path = spool.path / DROP / name
    match kind:
        case "link":
            path.symlink_to("/etc/passwd")
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "hard link":
            elsewhere = spool.path.parent / "theirs"
            elsewhere.write_bytes((spool.path / DROP / leave(spool)).read_bytes())
            os.link(elsewhere, path)
        case "moved":
            elsewhere = spool.path.parent / "theirs"
            (spool.path / DROP / leave(spool)).rename(elsewhere)
            os.chown(elsewhere, -1, 4713)
            elsewhere.rename(path)


@as_root
@pytest.mark.security_case(132)
@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "hard link", "moved"])
def test_files_that_were_not_made_in_the_drop_directory_are_not_read(spool: Spool, kind: str) -> None:
    """Not even a drop that is linked or moved here from elsewhere, with somebody else's name on it."""
    name = new_id(time.time())
    odd(spool, name, kind)
    for each in names(spool):
        if each != name:
            (spool.path / DROP / each).unlink()
    Receiver(spool).take_in()
    assert queued(spool) == []
    assert names(spool) in ([name], [f"{name}.refused"])


DAMAGED = [
    b"",
    b"mailer-drop 1\r\n",
    b"mailer-drop 2\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nBDAT 1 LAST\r\nx",
    b"mailer-drop 1\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nBDAT 2 LAST\r\nx",
    b"mailer-drop 1\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nBDAT 1 LAST\r\nxx",
    b"mailer-drop 1\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nBDAT -1 LAST\r\nx",
    b"mailer-drop 1\r\nMAIL FROM:<a>\r\nBDAT 1 LAST\r\nx",
    b"mailer-drop 1\r\nRCPT TO:<b>\r\nBDAT 1 LAST\r\nx",
    b"mailer-drop 1\r\nBDAT 1 LAST\r\nx",
    b"mailer-drop 1\r\nMAIL FROM:<a>\nRCPT TO:<b>\r\nBDAT 1 LAST\r\nx",
    b"mailer-drop 1\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nQUIT\r\nBDAT 1 LAST\r\nx",
    b"mailer-drop 1\r\nMAIL FROM:<a\0>\r\nRCPT TO:<b>\r\nBDAT 1 LAST\r\nx",
    b"mailer-drop 1\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nBDAT 1 LAST\r\n" + b"x" * 70_000,
]


@pytest.mark.security_case(133)
@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_drop_is_set_aside_and_nothing_of_it_is_queued(spool: Spool, content: bytes) -> None:
    receiver, name = Receiver(spool), leave(spool)
    (spool.path / DROP / name).write_bytes(content)
    receiver.take_in()
    assert queued(spool) == []
    assert names(spool) == [f"{name}.refused"]
    assert any(f"id={name} event=drop-refused" in line for line in receiver.log)


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        ([MAIL, "RCPT TO:<@>"], "501 5.1.3"),
        ([MAIL.replace(USER, "@"), TO], "501 5.1.7"),
        ([MAIL + " SIZE=1 X", TO], "50"),
        ([f"MAIL FROM:<{USER}> SIZE=999999999999", TO], "552 5.3.4"),
    ],
)
def test_a_permanently_refused_drop_is_set_aside_and_nothing_of_it_is_queued(
    spool: Spool, commands: list[str], words: str
) -> None:
    """All of it, although other recipients would be right: so `mailer-sendmail` has it."""
    receiver = Receiver(spool)
    name = hand_over(str(spool.path / DROP), [*commands, TO], TEXT)
    receiver.take_in()
    assert (queued(spool), names(spool)) == ([], [f"{name}.refused"])
    assert any("event=drop-refused" in line and words in line for line in receiver.log), receiver.log
    # It is tried again when the operator says so, and not before.
    receiver.log.clear()
    receiver.take_in()
    assert receiver.log == []
