"""DKIM verifiers that are not ours: Mail::DKIM (Perl), OpenDKIM's opendkim-testmsg (C) and mailauth (Node).

Each takes many messages in one call, and looks the keys up at a name server of the tests. A result is one of
RFC 8601's words for each signature, by its selector.
"""

import os
import random
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from testbed.name_server import NameServer
from testbed.tools import NODE_MODULES, MissingToolError, program

Verdicts = list[dict[str, str]]
"""For each message: selector to result, such as `pass` or `fail`."""

_HERE = Path(__file__).parent
# Debian's place for it; the dynamic linker finds it by this name.
_RESOLV_WRAPPER = "libresolv_wrapper.so"


def mail_dkim(messages: Sequence[bytes], server: NameServer) -> Verdicts:
    """Ask Mail::DKIM, which knows RSA and Ed25519."""
    argv = [program("perl"), str(_HERE / "verify_with_mail_dkim.pl"), server.host, str(server.port)]
    return _in_one_process(argv, messages)


def mailauth(messages: Sequence[bytes], server: NameServer) -> Verdicts:
    """Ask mailauth, which knows RSA and Ed25519."""
    if not (NODE_MODULES / "mailauth").is_dir():
        raise MissingToolError("mailauth")
    script = str(_HERE / "verify_with_mailauth.cjs")
    return _in_one_process(
        [program("node"), script, str(NODE_MODULES), server.host, str(server.port)], messages
    )


def opendkim(messages: Sequence[bytes], server: NameServer) -> Verdicts:
    """Ask opendkim-testmsg, which knows RSA alone, and says one word about a whole message.

    It asks port 53 of the system's name servers; resolv_wrapper turns it to ours, which must listen there.
    """
    assert server.port == 53, "opendkim-testmsg asks no other port"
    with tempfile.TemporaryDirectory() as directory:
        resolv_conf = Path(directory, "resolv.conf")
        resolv_conf.write_text(f"nameserver {server.host}\n")
        environment = os.environ | {
            "LD_PRELOAD": _RESOLV_WRAPPER,
            "RESOLV_WRAPPER_CONF": str(resolv_conf),
        }
        return [{"": _testmsg(message, directory, environment)} for message in messages]


def _testmsg(message: bytes, directory: str, environment: dict[str, str]) -> str:
    ran = subprocess.run(
        [program("opendkim-testmsg"), "-t", directory],
        input=message,
        capture_output=True,
        env=environment,
        check=False,
    )
    said = (ran.stdout + ran.stderr).decode(errors="replace").strip()
    return "pass" if ran.returncode == 0 and not said else said or f"exit code {ran.returncode}"


VERIFIERS: dict[str, Callable[[Sequence[bytes], NameServer], Verdicts]] = {
    "Mail::DKIM": mail_dkim,
    "opendkim-testmsg": opendkim,
    "mailauth": mailauth,
}


def loopback_address() -> str:
    """An address of 127.0.0.0/8 drawn at random, so that several name servers can all have port 53."""
    numbers = random.SystemRandom()
    return f"127.{numbers.randint(1, 254)}.{numbers.randint(0, 255)}.{numbers.randint(1, 254)}"


def _in_one_process(argv: Sequence[str], messages: Sequence[bytes]) -> Verdicts:
    framed = b"".join(b"%d\n%s" % (len(message), message) for message in messages)
    ran = subprocess.run(argv, input=framed, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr.decode(errors="replace")
    lines = ran.stdout.decode().splitlines()
    assert len(lines) == len(messages), ran.stderr.decode(errors="replace")
    return [dict(result.split("=", 1) for result in line.split()) for line in lines]
