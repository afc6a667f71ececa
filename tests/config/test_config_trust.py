"""Files that another user owns or may write to are refused by every program, with the command to type."""

import os
import pwd
import shlex
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from inbound.receiving import issue_certificate
from outbound.signing import KeyType, write_key
from testbed.ci import only_root
from testbed.relay import Relay

from mailer.config.secrets import FromCommand, FromFile, Secret, SecretError
from mailer.config.trust import Untrusted, open_trusted, owners_of, trusted_directory

NOBODY = pwd.getpwnam("nobody")
as_root = only_root("only root can give files away")


def give_away(path: Path) -> None:
    os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid, follow_symlinks=False)


def for_everybody(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


def for_its_group(path: Path) -> None:
    os.chown(path, -1, NOBODY.pw_gid)
    path.chmod(path.stat().st_mode | 0o020)


DEFECTS = [
    for_everybody,
    pytest.param(give_away, marks=as_root),
    pytest.param(for_its_group, marks=as_root),
]


def refused(path: Path) -> str:
    """Why a file is not trusted."""
    with pytest.raises(Untrusted) as caught:
        os.close(open_trusted(path))
    assert caught.value.strerror
    return caught.value.strerror


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a b" / "file"
    path.parent.mkdir(mode=0o755)
    path.touch(mode=0o640)
    return path


def opened(path: Path) -> bool:
    os.close(open_trusted(path, secret=True))
    return True


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("part", ["file", "directory", "link", "directory of a link's target"])
def test_whoever_could_change_the_file_is_found_and_the_command_mends_it(
    file: Path, defect: Callable[[Path], None], part: str, tmp_path: Path
) -> None:
    path = spoilt = file
    if part == "directory":
        spoilt = file.parent
    elif part != "file":
        path = tmp_path / "links" / "link"
        path.parent.mkdir(mode=0o755)
        path.symlink_to("../a b/../a b/file")
        assert opened(path)
        spoilt = file.parent if "target" in part else path
        if part == "link" and defect is not give_away:
            spoilt = path.parent
    assert opened(path)
    defect(spoilt)
    why = refused(path)
    assert f"{spoilt}" in why
    command = why.partition("type: ")[2] or why.partition("type, as root: ")[2]
    if spoilt.is_symlink():
        command = command.replace("chown", "chown -h")
    assert subprocess.run(shlex.split(command), check=True).returncode == 0
    assert opened(path)


@as_root
def test_the_link_of_another_is_not_followed_even_where_everybody_may_put_one(tmp_path: Path) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    place.chmod(0o1777)
    mine = place / "mine"
    mine.touch(mode=0o600)
    link = place / "link"
    link.symlink_to("mine")
    assert opened(mine)
    assert opened(link)
    give_away(link)
    assert f"{link} belongs to user nobody" in refused(link)


@as_root
def test_the_private_group_of_ones_own_may_write_and_one_with_an_acl_may_not(file: Path) -> None:
    file.chmod(0o660)
    assert opened(file)  # The group of root, in which there is nobody else.
    entry = struct.Struct("<HHI")
    none = 0xFFFFFFFF
    acl = struct.pack("<I", 2) + b"".join(
        entry.pack(tag, rights, who)
        for tag, rights, who in (
            (0x01, 6, none),
            (0x02, 6, NOBODY.pw_uid),
            (0x04, 0, none),
            (0x10, 6, none),
            (0x20, 0, none),
        )
    )
    os.setxattr(file, "system.posix_acl_access", acl)
    assert "its group may write" in refused(file)


def test_what_is_no_file_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for path, why in (
        (tmp_path, "Is a directory"),
        (tmp_path / "fifo", "not a regular file"),
        (tmp_path / "loop", "Too many levels"),
        (tmp_path / "none", "No such file"),
        (tmp_path / "fifo" / "x", "Not a directory"),
    ):
        with pytest.raises(OSError, match=why) as caught:
            open_trusted(path)
        assert not isinstance(caught.value, Untrusted)


def test_nothing_stays_open(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    before = len([*Path("/proc/self/fd").iterdir()])
    for path in (file, link):
        assert opened(path)
    with trusted_directory(file.parent):
        pass
    for_everybody(file.parent)
    for path in (file, link, file.parent / "none"):
        refused(path)
    assert len([*Path("/proc/self/fd").iterdir()]) == before


@as_root
def test_root_trusts_the_owner_of_the_spool_with_keys_and_nobody_with_programs(
    file: Path, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    give_away(spool)
    give_away(file)
    os.close(open_trusted(file, owners=owners_of(spool)))
    assert Secret(FromFile(file), owners=owners_of(tmp_path / "none")).reference
    with pytest.raises(SecretError, match=r"belongs to user nobody.*type, as root: chown root"):
        Secret(FromFile(file), owners=owners_of(tmp_path / "none")).reveal()
    file.write_text("#!/bin/sh\ntouch ran\necho x\n")
    file.chmod(0o755)
    with pytest.raises(SecretError, match=r"is not run: .*belongs to user nobody"):
        Secret(FromCommand((str(file),)), owners=owners_of(spool)).reveal()
    assert not Path("ran").exists()


# The programs.

PROGRAMS = (
    ["serve"],
    ["up"],
    ["send", "--once"],
    ["monitor"],
    ["spool", "ls"],
    ["config", "check"],
    ["doctor"],
)


@pytest.fixture
def everything(tmp_path: Path) -> Relay:
    """A relay that has each kind of file."""
    chain, key = issue_certificate(tmp_path)
    signing = write_key(tmp_path, "s", KeyType.RSA2048)
    (tmp_path / "password").touch(mode=0o600)
    (tmp_path / "password").write_text("correct horse battery staple")
    relay = Relay(
        tmp_path,
        {
            "tls": {"certificatePath": str(chain), "privateKeyPath": str(key)},
            "dkim": {
                "enabled": True,
                "keys": [
                    {
                        "domain": signing.domain,
                        "selector": "s",
                        "privateKeyPath": str(signing.private_key_path),
                    }
                ],
            },
            "defaultPassword": {"file": "password"},
            "enableHealthCheck": True,
            "healthCheckPort": 8025,
        },
    )
    assert relay.mailer("user", "token", "shop", "--allow", "*").returncode == 0
    checked = relay.mailer("config", "check")
    assert checked.returncode == 0, checked.stderr
    return relay


@pytest.mark.security_case(102)
@pytest.mark.parametrize("defect", DEFECTS)
def test_every_program_refuses_a_configuration_of_others(
    everything: Relay, defect: Callable[[Path], None]
) -> None:
    defect(everything.config)
    for program in PROGRAMS:
        done = everything.mailer(*program)
        assert done.returncode == 78, (program, done.stderr)
        assert f"{everything.config}" in done.stdout + done.stderr
        assert "type" in done.stdout + done.stderr
    assert not everything.spool.exists()


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("name", ["password", "users.json", "key.pem", "chain.pem", "example.com/s.private"])
def test_the_receiver_refuses_every_other_file_of_others(
    everything: Relay, defect: Callable[[Path], None], name: str
) -> None:
    [path] = everything.directory.rglob(Path(name).name)
    defect(path)
    for program in (["serve"], ["config", "check"]):
        done = everything.mailer(*program)
        assert done.returncode == 78, done.stderr
        assert str(path) in done.stderr
        assert "type" in done.stderr


@pytest.mark.security_case(88)
@pytest.mark.parametrize("name", ["password", "users.json", "key.pem", "s.private"])
def test_what_everybody_can_read_is_refused(everything: Relay, name: str) -> None:
    """Security case 88."""
    [path] = everything.directory.rglob(name)
    path.chmod(0o640)
    assert everything.mailer("config", "check").returncode == 0
    path.chmod(0o644)
    for program in (["serve"], ["config", "check"]):
        done = everything.mailer(*program)
        assert done.returncode == 78, done.stderr
        assert f"type: chmod 0640 {path}" in done.stderr


@pytest.mark.security_case(102)
@as_root
def test_root_takes_no_configuration_from_the_current_directory() -> None:
    """Security case 102: a stranger's file, in a directory that root happens to be in, names a command."""
    with TemporaryDirectory(prefix="mailer-test-") as name:
        place = Path(name)
        program = place / "program"
        program.write_text(f"#!/bin/sh\ntouch {place}/ran\necho 0123456789\n")
        program.chmod(0o755)
        config = place / "config.json"
        config.write_text(
            '{"defaultUsername": "x@example.com", "defaultPassword": {"command": ["./program"]}}'
        )
        environment = {key: value for key, value in os.environ.items() if key != "MAILER_CONFIG"}

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            argv = [sys.executable, "-m", "mailer", *arguments]
            return subprocess.run(
                argv, cwd=place, env=environment, capture_output=True, text=True, check=False
            )

        for mine in (True, False):
            if not mine:
                shutil.chown(config, NOBODY.pw_uid)
                shutil.chown(place, NOBODY.pw_uid)
            for command in (["config", "check"], ["serve"], ["spool", "ls"], ["doctor", "--offline"]):
                done = run(*command)
                assert done.returncode == 78, done.stderr
                said = done.stdout + done.stderr
                assert f"{config} is not taken: root uses none from the current directory" in said
            done = run("config", "check", "--config", "config.json")
            assert done.returncode == (0 if mine else 78), done.stderr
            assert (place / "ran").exists() == mine
            (place / "ran").unlink(missing_ok=True)


def test_a_program_that_others_could_change_is_not_run_for_alerts(everything: Relay) -> None:
    program = everything.directory / "call"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o757)
    everything.configure({"alerts": {"command": [str(program)]}})
    for command in (["monitor"], ["config", "check"]):
        done = everything.mailer(*command)
        assert (
            f"$.alerts.command[0]: is not run: every user of this host may write to {program}" in done.stderr
        )
    program.chmod(0o755)
    assert everything.mailer("config", "check").returncode == 0
