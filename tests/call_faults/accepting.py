"""The receiver, and what users leave for it: what a client was told is what holds."""

import os
import smtplib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from signal import SIGTERM
from typing import Any

from testbed.ports import LOOPBACK, accepts
from testbed.relay import PASSWORD, USERNAME
from testbed.waiting import until

from call_faults.faults import SHORT
from call_faults.scene import Scene, through
from call_faults.world import SENDER, Mail, World
from mailer.sendmail.drop import hand_over
from mailer.spool import drop
from mailer.spool.directory import Spool

USER = 4711
"""Somebody who may not write to the spool."""
FIELDS = b"From: <app@example.com>\r\nDate: Mon, 23 Nov 2026 08:00:00 +0000\r\nMessage-ID: <1@b.c>\r\n"
SMALL = FIELDS + b"\r\nhello\r\n"
STREAMED = FIELDS + b"\r\n" + b"0123456789\r\n" * 25_000
ONE_LINE = FIELDS + b"\r\n" + b"0123456789" * 10_000 + b"\r\n"


@contextmanager
def _receiver(world: World, *, faulted: bool = False) -> Iterator[None]:
    """Run `mailer serve`, which may meet the fault once it has begun; it ends with the block."""
    short = world.point.number if faulted and world.point and world.point.fault == SHORT else 0
    program = world.program("mailer", "serve", short=short)
    until(lambda: accepts(world.relay.port) or not program.running, "the receiver to listen")
    # Its greeting shows that it has begun in all.
    smtplib.SMTP(LOOPBACK, world.relay.port, timeout=60).quit()
    with world.watched(program) if faulted else nullcontext():
        try:
            yield
        finally:
            if program.running:
                program.signal(SIGTERM)
            if faulted:
                world.ended(program)
            else:
                program.wait()


def _submit(world: World, mail: Mail) -> None:
    """Submit one message in a session of its own, and note what the client is told."""
    mail.refused = mail.acknowledged = False
    code, said = 0, b""
    try:
        with smtplib.SMTP(LOOPBACK, world.relay.port, timeout=60) as client:
            client.login(USERNAME, PASSWORD)
            client.mail(SENDER)
            for to in mail.to:
                client.rcpt(to)
            code, said = client.data(mail.message)
    except smtplib.SMTPResponseException as error:
        code, said = error.smtp_code, bytes(error.smtp_error)
    except (OSError, smtplib.SMTPException):
        # After a reply only QUIT failed.
        pass
    mail.acknowledged, mail.refused = code == 250, code > 250
    if code >= 500:
        world.wrong.append(f"trouble of ours was answered with {code} {said!r}")


def accept(world: World, _scene: Scene, header: bytes = b"") -> None:
    world.run("mailer-send", "--once")  # makes the spool
    for number, message in enumerate((SMALL, STREAMED, ONE_LINE)):
        keyed = header % number + message if header else message
        world.mails.append(Mail((f"ann{number}@example.net", f"never{number}@example.net"), keyed))
    with _receiver(world, faulted=True):
        for mail in world.mails:
            _submit(world, mail)
    if world.harmless and not all(mail.acknowledged for mail in world.mails):
        world.wrong.append("not everything was acknowledged")
    again = list(world.mails) if header else []
    world.mails.append(Mail(("zoe@example.net",), SMALL))
    with _receiver(world):
        for mail in (*again, world.mails[-1]):
            _submit(world, mail)
            if not mail.acknowledged:
                world.wrong.append(f"not acknowledged when the fault was over: {mail.to}")


def with_drops(scene: Scene, _directory: Path) -> dict[str, Any]:
    users = [{"login": str(uid), "user": USERNAME} for uid in sorted({USER, os.getuid()})]
    return through(scene, localUsers=users)


def leave(world: World, _scene: Scene) -> None:
    world.run("mailer-send", "--once")
    with Spool.open(world.spool) as spool:
        drop.prepare(spool, wanted=True)
    # `USER` opens files in it.
    world.directory.chmod(0o711)
    given = world.directory / "given"
    given.write_bytes(b"From: app@example.com\nSubject: left\n\nhello\n")
    given.chmod(0o644)
    for log in range(1, 9):
        path = world.directory / f"{world.ran + log}-mailer-sendmail.log"
        path.touch()
        path.chmod(0o666)
    env = {"MAILER_DROP": str(world.spool / "drop"), "MAILER_SUBMIT_SOCKET": str(world.directory / "none"),
           "MAILER_CONFIG": "/nonexistent"}  # fmt: skip
    mail = Mail(("ann@example.net",))
    world.mails.append(mail)
    status = world.faulted("mailer-sendmail", "-f", SENDER, mail.to[0], given=given, uid=USER, env=env)
    mail.acknowledged = status == 0
    # A hand-over that was refused may be there all the same, unlike a mail that a server refused.
    if world.harmless and status:
        world.wrong.append(f"mailer-sendmail ended with {status}")


def take_in(world: World, _scene: Scene) -> None:
    world.run("mailer-send", "--once")
    with Spool.open(world.spool) as spool:
        drop.prepare(spool, wanted=True)
    for to in ("ann@example.net", "bob@example.net"):
        lines = [f"MAIL FROM:<{USERNAME}>", f"RCPT TO:<{to}>"]
        hand_over(
            str(world.spool / "drop"), lines, b"From: app@example.com\r\nSubject: drop\r\n\r\nhello\r\n"
        )
        world.mails.append(Mail((to,), acknowledged=True))
    world.faulted("mailer-send", "--once")


def taken(world: World, _scene: Scene) -> Iterator[str]:
    if left := [each.name for each in (world.spool / "drop").glob("[!.]*")]:
        yield f"left in drop/: {left}"
