"""What root checks, it checks as the service's user; what root makes, that user can read.

Each advice is followed to the letter, by a shell, until the check is content.
"""

import grp
import json
import os
import pwd
import re
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from outbound.internet import Internet
from spools.file_trees import give_away
from spools.states import Queue
from testbed.ci import only_root
from testbed.relay import Relay

pytestmark = [
    only_root("only root can become another user"),
    pytest.mark.usefixtures("unmeasured"),  # the service's user cannot write coverage's file, and says so
]
SERVICE = pwd.getpwnam("nobody")


@pytest.fixture
def relay() -> Iterator[Relay]:
    """A relay as a system service has it: root's configuration, and a spool of the service's user."""
    with TemporaryDirectory(prefix="mailer-test-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        made = Relay(directory)
        Queue(made.spool)
        give_away(made.spool)
        os.chown(made.config, 0, SERVICE.pw_gid)
        made.config.chmod(0o640)
        yield made


def as_service(relay: Relay, *command: str) -> subprocess.CompletedProcess[str]:
    program = ("setpriv", f"--reuid={SERVICE.pw_uid}", f"--regid={SERVICE.pw_gid}", "--clear-groups")
    return subprocess.run(
        [*program, *command], capture_output=True, text=True, check=False, cwd=relay.directory
    )


def readable(relay: Relay, path: Path) -> bool:
    return as_service(relay, "cat", str(path)).returncode == 0


def findings(relay: Relay, what: str) -> list[dict[str, str]]:
    done = relay.mailer("doctor", "--offline", "--json")
    return [line for line in map(json.loads, done.stdout.splitlines()) if line["what"] == what]


def follow(advice: str) -> None:
    found = re.search(r"type, as root: (.+)", advice)
    assert found, advice
    subprocess.run(["sh", "-ec", found[1]], check=True, capture_output=True)


def signing(relay: Relay) -> Path:
    relay.configure({"dkim": {"enabled": True, "domain": "example.com"}})
    assert relay.mailer("dkim", "keygen", "--domain", "example.com").returncode == 0
    return relay.directory / "keys" / "example.com" / "mail.private"


def test_a_user_that_root_adds_can_log_in(relay: Relay) -> None:
    """The users file is root's, and the service can read it, at its next start too."""
    for name in ("shop", "crm"):
        assert relay.mailer("user", "add", name, given="a long enough password\n").returncode == 0
        users = relay.directory / "users.json"
        assert (users.stat().st_uid, users.stat().st_mode & 0o777) == (0, 0o640)
        assert readable(relay, users)
    with relay.serve(), smtplib.SMTP("127.0.0.1", relay.port) as client:
        client.login("shop", "a long enough password")


def test_a_users_file_that_was_roots_alone_is_shared_when_it_is_next_written(relay: Relay) -> None:
    users = relay.directory / "users.json"
    relay.mailer("user", "add", "shop", given="a long enough password\n")
    os.chown(users, 0, 0)
    users.chmod(0o600)
    [found] = findings(relay, "users")
    assert found["grade"] == "problem"
    follow(found["todo"])
    assert findings(relay, "users")[0]["grade"] == "ok"
    os.chown(users, 0, 0)
    users.chmod(0o600)
    assert relay.mailer("user", "token", "shop").returncode == 0
    assert readable(relay, users)


def test_a_key_that_only_cannot_be_read_is_not_made_anew(relay: Relay) -> None:
    """Its directory is closed as well; one advice mends both, and the key is the published one."""
    key = signing(relay)
    before = key.read_bytes()
    for path in (key, key.parent):
        os.chown(path, 0, 0)
    key.chmod(0o600)
    key.parent.chmod(0o700)
    [found] = findings(relay, "key")
    assert found["grade"] == "problem"
    assert "keygen" not in found["todo"]
    follow(found["todo"])
    assert findings(relay, "key")[0]["grade"] == "ok"
    assert key.read_bytes() == before
    assert readable(relay, key)


def test_a_missing_key_is_made_as_doctor_says(relay: Relay) -> None:
    relay.configure({"dkim": {"enabled": True, "domain": "example.com"}})
    [found] = findings(relay, "key")
    command = found["todo"].partition("mailer dkim keygen ")[2].split()
    assert relay.mailer("dkim", "keygen", *command).returncode == 0
    follow(found["todo"]) if "type, as root" in found["todo"] else None
    assert readable(relay, relay.directory / "keys" / "example.com" / "mail.private")
    assert findings(relay, "key")[0]["grade"] == "ok"


def test_dkim_check_looks_as_the_runner_and_says_so_when_nobody_signs(relay: Relay) -> None:
    key = signing(relay)
    record = json.loads(relay.mailer("dkim", "record", "--json").stdout)
    zone = {
        (record["name"], "TXT"): [
            json.dumps(record["value"][:200]) + " " + json.dumps(record["value"][200:])
        ],
        ("_dmarc.example.com", "TXT"): ['"v=DMARC1; p=reject; adkim=s"'],
        ("example.com", "MX"): ["10 mx.example.com."],
    }
    with Internet.of(zone) as internet:
        relay.configure({"dns": internet.settings()["dns"]})
        key_line = "ok       key "
        assert key_line in relay.mailer("dkim", "check").stdout
        os.chown(key, 0, 0)
        key.chmod(0o600)
        closed = relay.mailer("dkim", "check")
        assert closed.returncode == 1
        follow(closed.stdout)
        assert key_line in relay.mailer("dkim", "check").stdout
        relay.configure({"dkim": {"enabled": False, "domain": "example.com"}})
        off = relay.mailer("dkim", "check")
        assert off.returncode == 1
        assert "problem  key   dkim.enabled: dkim.enabled is off: no signatures are made" in off.stdout
        assert "ok       dmarc" not in off.stdout


def test_config_check_refuses_what_the_service_cannot_read_and_says_what_mends_it(relay: Relay) -> None:
    """The configuration itself, and a key."""
    key = signing(relay)
    assert relay.mailer("config", "check").returncode == 0
    for path in (relay.config, key):
        os.chown(path, 0, 0)
        path.chmod(0o600)
    for path in (relay.config, key):
        done = relay.mailer("config", "check")
        assert done.returncode == 78
        follow(next(line for line in done.stderr.splitlines() if str(path) in line))
        assert readable(relay, path)
    assert relay.mailer("config", "check").returncode == 0


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory that is neither the configuration's nor the service's, and closed to the service."""
    with TemporaryDirectory(prefix="mailer test $HOME ") as name:
        path = Path(name)
        path.chmod(0o700)
        (path / "my users.json").write_text('{"users": []}')
        (path / "my users.json").chmod(0o600)
        yield path


def advice_on(relay: Relay, users: Path) -> str:
    """What both checks say of the users file; doctor's advice is the same."""
    relay.configure({"usersFile": str(users)})
    checked = relay.mailer("config", "check", "--json")
    assert checked.returncode == 78
    [problem] = json.loads(checked.stdout)["errors"]
    assert problem["path"] == "$.usersFile"
    advice: str = problem["message"].removeprefix(f"{users}: ")
    assert [found["todo"] for found in findings(relay, "users")] == [advice]
    started = as_service(relay, sys.executable, "-m", "mailer", "serve", "--config", str(relay.config))
    assert started.stderr == f"$.usersFile: {problem['message']}\n"
    return advice


def test_a_directory_of_others_stays_closed_and_a_copy_is_advised(relay: Relay, elsewhere: Path) -> None:
    users = elsewhere / "my users.json"
    follow(advice_on(relay, users))
    state = elsewhere.stat()
    assert (state.st_gid, state.st_mode & 0o777) == (0, 0o700)
    copy = relay.directory / users.name
    assert readable(relay, copy)
    assert not readable(relay, users)
    relay.configure({"usersFile": str(copy)})
    assert relay.mailer("config", "check").returncode == 0


def test_a_directory_that_is_a_groups_keeps_it_and_joining_is_advised(relay: Relay, elsewhere: Path) -> None:
    """As Debian has /etc/ssl/private for the members of ssl-cert; reached by a link in our own directory."""
    group = grp.getgrnam("daemon")
    for path, mode in ((elsewhere, 0o710), (elsewhere / "my users.json", 0o640)):
        os.chown(path, 0, group.gr_gid)
        path.chmod(mode)
    link = relay.directory / "users.json"
    link.symlink_to(elsewhere / "my users.json")
    advice = advice_on(relay, link)
    assert advice.endswith(f"type, as root: usermod -aG {group.gr_name} {SERVICE.pw_name}")
    assert f"not in group {group.gr_name}, which '{elsewhere}' is for" in advice
    ids = (f"--reuid={SERVICE.pw_uid}", f"--regid={SERVICE.pw_gid}", f"--groups={group.gr_gid}")
    subprocess.run(["setpriv", *ids, "cat", link], check=True, capture_output=True)


def test_roots_home_is_not_opened(relay: Relay) -> None:
    relay.configure({"usersFile": "/root/no such users.json"})
    for command in ("config check", "doctor --offline"):
        done = relay.mailer(*command.split())
        assert "chgrp" not in done.stdout + done.stderr
        assert "chmod" not in done.stdout + done.stderr


TAKES_ROOT_BACK = """\
#!{python} -I
import os, sys
said = [os.getresuid(), os.getresgid(), sorted(os.getgroups()), os.getsid(0) == os.getpid()]
for become in (os.setresgid, os.setresuid):
    try:
        become(0, 0, 0)
    except PermissionError:
        continue
    said.append("root again")
with open("{told}", "w") as told:
    print(said, file=told)
print("a long enough password")
"""


@pytest.mark.security_case(96)
@pytest.mark.parametrize("command", ["config check", "doctor --offline"])
def test_a_command_of_the_services_user_cannot_become_root(relay: Relay, command: str) -> None:
    """Root looks as that user, who may change the program: it runs with no id of root left."""
    place = relay.directory / "own"
    place.mkdir()
    program, told = place / "password", place / "told"
    program.write_text(TAKES_ROOT_BACK.format(python=os.path.realpath("/usr/bin/python3"), told=told))
    program.chmod(0o755)
    give_away(place)
    relay.configure({"defaultPassword": {"command": [str(program)]}})
    done = relay.mailer(*command.split())
    assert told.exists(), done.stdout + done.stderr
    user, group = (SERVICE.pw_uid,) * 3, (SERVICE.pw_gid,) * 3
    said = f"[{user}, {group}, {sorted(os.getgrouplist(SERVICE.pw_name, SERVICE.pw_gid))}, "
    assert told.read_text().rstrip("\n").removesuffix("True]").removesuffix("False]") == said
    if command == "config check":
        assert done.returncode == 0, done.stderr
        assert told.read_text().endswith("True]\n")
