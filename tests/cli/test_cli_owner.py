"""What root does at another user's spool, it does as that user."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from outbound.hostile import Server
from outbound.internet import Internet
from outbound.signing import DOMAIN, KeyType, write_key
from spools.file_trees import NOBODY, give_away
from spools.states import Queue
from testbed.ci import only_root
from testbed.http_client import ask
from testbed.relay import Relay

pytestmark = only_root("only root can become another user")
LATE_IMPORTS = Path(__file__).parents[1] / "testbed" / "late_imports.py"
MODULES = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
from mailer.cli import main
main()
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that other users can enter; pytest keeps its own for itself."""
    with TemporaryDirectory(prefix="mailer-test-") as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


def test_root_leaves_no_file_of_its_own_in_another_users_spool(open_directory: Path) -> None:
    relay = Relay(open_directory)
    queue = Queue(relay.spool)
    message = queue.new()
    queue.defer(message, "451 no")
    give_away(relay.spool)
    environment = os.environ | {"SUDO_USER": "alice"}
    again = ["spool", "replay", message, "--to", "eve@example.org"]
    for command in (["spool", "retry", message], ["spool", "why", message], again, ["send", "--once"]):
        argv = [sys.executable, "-m", "mailer", *command, "--config", str(relay.config)]
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        owners = {path.stat().st_uid for path in (relay.spool, *relay.spool.rglob("*"))}
        assert owners == {NOBODY.pw_uid}
        if "why" in command:
            assert "requeued, to be tried at the next run, by alice" in done.stdout
    assert len(relay.delivered()) == 2


def test_a_message_that_root_restored_is_reported_and_is_sent_after_following_the_advice(
    open_directory: Path,
) -> None:
    """A copy by root: every command said to submit it again, and doctor to raise the concurrency."""
    relay = Relay(open_directory)
    queue = Queue(relay.spool)
    message, shut = queue.new(), queue.new()
    give_away(relay.spool)
    os.chown(relay.spool / "new" / message, 0, 0)
    (relay.spool / "new" / shut).chmod(0)
    assert relay.mailer_send("--once").returncode == 0
    doctor = relay.mailer("doctor", "--offline").stdout
    assert "2 messages of another user, or with another mode: no run takes such mail" in doctor
    [todo] = re.findall(r"type, as root: (chown .*)", doctor)
    for each in (message, shut):
        told = relay.mailer("spool", "why", each).stdout
        assert "need not be damaged" in told
        [typed] = re.findall(r"`(chown [^`]+)`", told)
        subprocess.run(typed, shell=True, cwd=relay.spool, check=True)
    assert "another mode" not in relay.mailer("doctor", "--offline").stdout
    os.chown(relay.spool / "new" / message, 0, 0)
    subprocess.run(todo, shell=True, check=True)
    assert relay.mailer_send("--once").returncode == 0
    assert len(relay.delivered()) == 2


def test_modes_that_keep_the_owner_out_are_named_and_mended_where_that_is_possible(
    open_directory: Path,
) -> None:
    """A careless chmod: doctor itself ended with "new: Permission denied", and found nothing."""
    relay = Relay(open_directory)
    Queue(relay.spool).new()
    give_away(relay.spool)
    new = relay.spool / "new"
    new.chmod(0)
    doctor = relay.mailer("doctor", "--offline")
    assert doctor.returncode == 1, doctor.stderr
    assert f"{new}: has mode 0000, not 0700: we cannot use it" in doctor.stdout
    assert f"type: chmod 0700 {new}\n" in doctor.stdout
    assert f"{new}: Permission denied" in relay.mailer("spool", "ls").stderr
    assert f"type: chmod 0700 {new}\n" in relay.mailer_send("--once").stderr
    new.chmod(0o700)
    for path in (*relay.spool.rglob("*"), relay.spool):
        path.chmod(0o640)
    doctor = relay.mailer("doctor", "--offline")
    assert doctor.returncode == 1, doctor.stderr
    assert f"{relay.spool}: has mode 0640, not 0700: we cannot use it" in doctor.stdout
    assert f"type: chmod 0700 {relay.spool}\n" in relay.mailer("spool", "ls").stderr
    assert relay.mailer_send("--once").returncode == 0
    assert len(relay.delivered()) == 1


def test_a_configuration_that_only_root_can_read_is_no_trouble_to_a_monitor_that_was_root(
    open_directory: Path,
) -> None:
    relay = Relay(open_directory)
    Queue(relay.spool).new()
    give_away(relay.spool)
    with relay.monitor():
        assert ask(relay.http_port, "/health").json["checks"]["configuration"]["status"] == "ok"


def test_nothing_is_imported_once_root_has_become_an_owner_who_cannot_read_python(
    open_directory: Path, tmp_path: Path
) -> None:
    """Root's own Python may lie in /root: a module that is needed later would be missing in mid-run."""
    late = open_directory / "late"
    roots = tmp_path / LATE_IMPORTS.name  # pytest's directories are for their user alone
    shutil.copy(LATE_IMPORTS, roots)
    under = (sys.executable, str(roots), str(late))
    zone = {("one.test", "MX"): ["10 mx.one.test."], ("mx.one.test", "A"): ["127.0.0.11"]}
    with Internet.of(zone) as internet, Server(auth="PLAIN LOGIN CRAM-MD5") as provider:
        internet.server("127.0.0.11", {"rcpt": "550 5.1.1 no such user"})
        relay = Relay(open_directory, everything_on(internet, provider, open_directory))
        Queue(relay.spool).new()
        give_away(relay.spool, open_directory / DOMAIN)
        with relay.serve(under=under), relay.monitor(under=under), relay.connect() as client:
            for domain in ("one.test", "nowhere.test"):
                client.sendmail(f"app@{DOMAIN}", f"bob@{domain}", f"From: app@{DOMAIN}\r\n\r\nhello\r\n")
            assert relay.mailer_send("--once", under=under).returncode == 0
        [queued, *_] = relay.mailer("spool", "ls", "--json").stdout.splitlines()
        for command in (
            "spool ls",
            f"spool replay {json.loads(queued)['id']} --to eve@one.test",
            "spool stats",
            "spool retry --all",
            "providers",
            "limits",
            "log",
            "doctor",
        ):
            done = relay.mailer(*command.split(), under=under)
            assert done.returncode == 0 or command == "doctor", (command, done.stderr)
    assert late.read_text() == ""
    assert {session.commands[1][:4] for session in provider.sessions} == {b"AUTH"}


def test_root_imports_no_more_than_needed_if_the_owner_can_read_python(open_directory: Path) -> None:
    relay = Relay(open_directory)
    Queue(relay.spool).new()
    give_away(relay.spool)
    as_owner = [
        sys.executable,
        "-c",
        "import mailer.cli.setup, aiohttp, cryptography, dkim, dns, filelock, idna",
    ]
    readable = subprocess.run(as_owner, check=False, user=NOBODY.pw_uid, capture_output=True).returncode == 0
    argv = [sys.executable, "-c", MODULES, "spool", "ls", "--config", str(relay.config)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert "bob@example.net" in done.stdout
    assert ("mailer.send.run" in done.stderr.split()) != readable


def everything_on(internet: Internet, provider: Server, directory: Path) -> dict[str, Any]:
    """Settings under which a runner needs all that it can need."""
    login = {"host": provider.host, "port": provider.port, "username": "u", "password": "open sesame"}
    key = write_key(directory, "s", KeyType.RSA2048)
    signing = {"domain": key.domain, "selector": key.selector, "privateKeyPath": str(key.private_key_path)}
    return {
        **internet.settings(retryCount=1),
        "forwardSMTP": True,
        "forwardProviders": [login],
        "bounce": "sender",
        "dkim": {"enabled": True, "keys": [signing]},
        "rateLimits": {"enabled": True},
    }
