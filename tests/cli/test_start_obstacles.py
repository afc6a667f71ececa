"""`mailer config check` and the start of `mailer serve` say the same; following it mends the fault."""

import json
import pwd
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from inbound.receiving import issue_certificate
from testbed.ci import only_root
from testbed.ports import accepts
from testbed.relay import Relay
from testbed.tools import program

Settings = dict[str, Any]
NOBODY = pwd.getpwnam("nobody")


def tls(chain: Path, key: Path) -> Settings:
    return {"tls": {"certificatePath": str(chain), "privateKeyPath": str(key)}}


def mismatched(directory: Path) -> Settings:
    other = directory / "other"
    other.mkdir()
    return tls(issue_certificate(directory)[0], issue_certificate(other)[1])


def missing_key(directory: Path) -> Settings:
    return tls(issue_certificate(directory)[0], directory / "no such key.pem")


def no_certificate(directory: Path) -> Settings:
    chain, key = issue_certificate(directory)
    chain.write_text("not PEM\n")
    return tls(chain, key)


def missing_socket_directory(directory: Path) -> Settings:
    return {"listeners": [{"unixSocket": str(directory / "run" / "smtp.sock")}]}


def foreign_address(_: Path) -> Settings:
    # TEST-NET-3, which no host has.
    return {"smtpHost": "203.0.113.1", "security": {"allowLocalOnly": False}}


def missing_parent(directory: Path) -> Settings:
    return {"spoolDir": str(directory / "no such place" / "spool")}


FAULTS: dict[str, tuple[Callable[[Path], Settings], str, str]] = {
    "a key of another certificate": (mismatched, "$.tls.privateKeyPath", "is not the key of"),
    "a key that is not there": (missing_key, "$.tls.privateKeyPath", "no such key.pem"),
    "no certificate in the file": (no_certificate, "$.tls", "PEM"),
    "no directory for a socket": (missing_socket_directory, "$.listeners[0].unixSocket", "install -d"),
    "no directory for the spool": (missing_parent, "$.spoolDir", "no such place'"),
    "an address of another host": (foreign_address, "$.smtpHost", "203.0.113.1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_and_the_start_name_the_same_key_and_end_with_78(
    fault: str, relay: Relay, tmp_path: Path
) -> None:
    stage, key, words = FAULTS[fault]
    relay.configure(stage(tmp_path))
    checked, started = relay.mailer("config", "check", "--json"), relay.mailer("serve")
    assert (checked.returncode, started.returncode) == (78, 78), started.stderr
    [problem] = json.loads(checked.stdout)["errors"]
    assert problem["path"] == key
    assert words in problem["message"]
    assert started.stderr == f"{key}: {problem['message']}\n"
    assert relay.mailer("doctor", "--offline").returncode == 78


@pytest.fixture
def service() -> Iterator[Relay]:
    """What root looks after, in a directory that others can enter; its spool is another user's."""
    with TemporaryDirectory(prefix="mailer-test-") as name:
        Path(name).chmod(0o711)
        relay = Relay(Path(name))
        relay.spool.mkdir()
        shutil.chown(relay.spool, NOBODY.pw_uid, NOBODY.pw_gid)
        yield relay


def unreadable_key(directory: Path) -> Settings:
    """As an ACME client leaves it: its directory is root's alone, and so is the key."""
    live = directory / "live"
    live.mkdir(mode=0o700)
    return tls(*issue_certificate(live))


def unreadable_users(directory: Path) -> Settings:
    users = directory / "users.json"
    users.touch(mode=0o600)
    users.write_text('{"users": []}')
    return {}


@only_root("only root can look with another user's eyes")
@pytest.mark.parametrize("stage", [unreadable_key, unreadable_users, missing_socket_directory])
def test_following_the_advice_mends_what_the_service_cannot_read(
    stage: Callable[[Path], Settings], service: Relay
) -> None:
    service.configure(stage(service.directory))
    for _ in range(5):
        checked = service.mailer("config", "check")
        if checked.returncode == 0:
            break
        assert checked.returncode == 78
        advice = re.findall(r"type, as root: (.*)", checked.stderr)
        assert advice, checked.stderr
        for command in advice:
            subprocess.run(["/bin/sh", "-ec", command], check=True)
    else:
        pytest.fail(f"still: {checked.stderr}")
    with service.serve():
        assert accepts(service.port)


@only_root("only root can be another user")
def test_a_configuration_that_the_service_cannot_read_is_one_verdict_everywhere(service: Relay) -> None:
    """78 and not 77: systemd starts nothing again that ends with it, and the mending is the same."""
    as_nobody = (program("setpriv"), f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups")
    for _ in range(3):
        started = service.mailer("spool", "stats", under=as_nobody)
        checked = service.mailer("config", "check")
        if checked.returncode == 0:
            break
        assert (started.returncode, checked.returncode) == (78, 78)
        assert "as root: mailer config check --config" in started.stderr
        for command in re.findall(r"type, as root: (.*)", checked.stderr):
            subprocess.run(["/bin/sh", "-ec", command], check=True)
    assert "cannot be read" not in started.stderr


def test_a_port_that_another_program_has_is_named(relay: Relay, free_port: int) -> None:
    with relay.serve() as first:
        other = relay.port
        relay.configure({"smtpPort": free_port, "listeners": [{"port": other}]})
        done = relay.mailer("serve")
        assert f"mailer serve is already running on this spool (pid {first.pid};" in done.stderr
    assert done.returncode == 69
    assert f"cannot listen on 127.0.0.1:{other}: Address already in use" in done.stderr


@only_root("only root can start it as another user")
def test_a_spool_that_a_service_cannot_make_is_no_restart_loop(service: Relay) -> None:
    """A relative spoolDir in /etc/mailer: the unit starts nothing again after 78."""
    service.spool.rmdir()
    shutil.chown(service.config, NOBODY.pw_uid)
    done = service.mailer("serve", under=("setpriv", f"--reuid={NOBODY.pw_uid}", "--clear-groups"))
    assert done.returncode == 78
    assert f"$.spoolDir: {service.spool} does not exist, and user nobody cannot create it" in done.stderr
    assert "/var/spool/mailer" in done.stderr
