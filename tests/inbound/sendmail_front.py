"""The compiled front of mailer-sendmail under test: what it says, or that it gives way to Python."""

import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mailer.sendmail.arguments import parse
from mailer.sendmail.failure import Failure
from mailer.sendmail.main import _parameters, prepared
from mailer.sendmail.submission import commands

REPOSITORY = Path(__file__).resolve().parents[2]
GAVE_WAY = 42
"""The exit code of `RECORDER`."""
_RECORDER = f"""#!/bin/sh
printf '%s\\0' "$@"
cat
exit {GAVE_WAY}
"""
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def compiled(directory: Path, environment: Path, *options: str) -> Path:
    """Compile the front by `scripts/front` as `directory`/sendmail, for the Python of an environment."""
    directory.mkdir(exist_ok=True)
    made = directory / "sendmail"
    argv = [str(REPOSITORY / "scripts" / "front"), str(environment), str(made), "-Werror", *options]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return made


def recorder(directory: Path) -> Path:
    """Make an environment whose Python shows its arguments and its input, and ends with `GAVE_WAY`."""
    python = directory / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(_RECORDER)
    python.chmod(0o755)
    return directory


def run(
    front: Path, socket_path: Path, arguments: Sequence[str], given: bytes, under: Sequence[str] = ()
) -> subprocess.CompletedProcess[bytes]:
    """Run a front, under another command if there is one."""
    # What is in use when it ends is not freed, by design.
    environment = {**os.environ, "MAILER_SUBMIT_SOCKET": str(socket_path), "ASAN_OPTIONS": "detect_leaks=0"}
    argv = [*under, str(front), *arguments]
    return subprocess.run(argv, input=given, capture_output=True, env=environment, timeout=300, check=False)


@dataclass(frozen=True)
class HandOver:
    """An envelope's commands, and what follows DATA."""

    commands: list[bytes] = field(default_factory=list)
    content: bytes = b""


def by_python(arguments: Sequence[str], given: bytes) -> HandOver | None:
    """Return what the Python program hands over, at once and without more words; None: it does otherwise."""
    try:
        order = parse(["sendmail", *arguments])
        if order.mode != "send" or order.verbose or order.dot_ends:
            return None
        sender, recipients, message = prepared(order, given)
    except Failure:
        return None
    wire = message.wire()
    envelope = commands(sender, recipients, _parameters(order, wire), order.notify)
    return HandOver([os.fsencode(command) + b"\r\n" for command in envelope], wire)


class Peer:
    """A receiver that takes everything, and remembers it as it came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.taken: list[HandOver] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve)

    @contextmanager
    def listening(self) -> Iterator["Peer"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._listening.shutdown(socket.SHUT_RDWR)
            self._thread.join()
            self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return  # shut down
            with connection:
                self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        connection.sendall(b"220 x\r\n")
        with connection.makefile("rb") as lines:
            assert lines.readline() == b"EHLO localhost\r\n"
            connection.sendall(b"250-x\r\n250 PIPELINING\r\n")
            said = []
            while (line := lines.readline()) != b"DATA\r\n":
                said.append(line)
                connection.sendall(b"250 x\r\n")
            connection.sendall(b"354 x\r\n")
            content = [lines.readline()]
            while content[-1] not in {b".\r\n", b""}:
                content.append(lines.readline())
            self.taken.append(HandOver(said, b"".join(content)))
            connection.sendall(b"250 x\r\n")
