"""Only a spool, or an empty or missing directory, is used as one; no other is changed (security case 103)."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from spools.states import Queue
from testbed.relay import Relay

from mailer.spool.directory import Spool
from mailer.spool.mark import MARK
from mailer.spool.preparation import SpoolError

CLONE = Path(__file__).parents[2] / "spool" / "README.md"
READERS = (
    ["spool", "ls"],
    ["spool", "stats"],
    ["spool", "sweep", "--dry-run"],
    ["spool", "fsck"],
    ["spool", "show", "01"],
    ["spool", "why", "01"],
    ["log"],
    ["limits"],
    ["providers"],
    ["send", "--dry-run"],
    ["monitor"],
)
MAKERS = (["serve"], ["up"], ["send", "--once"])


def everything(top: Path) -> dict[str, tuple[int, ...]]:
    found = {}
    for path in (top, *top.rglob("*")):
        state = path.lstat()
        found[str(path)] = (state.st_mode, state.st_uid, state.st_ino, state.st_mtime_ns, state.st_ctime_ns)
    return found


def like_var(path: Path) -> None:
    for name in ("tmp", "log", "local", "lib", "mail"):
        (path / name).mkdir(mode=0o755)
    (path / "tmp").chmod(0o1777)
    path.chmod(0o755)


def a_home(path: Path) -> None:
    (path / ".bashrc").write_text("true\n")
    path.chmod(0o755)


def a_maildir(path: Path) -> None:
    for name in ("new", "cur", "tmp"):
        (path / name).mkdir(mode=0o755)


def for_everybody(path: Path) -> None:
    path.chmod(0o1777)


def a_project(path: Path) -> None:
    (path / "README.md").write_text("# Something else\n")
    path.chmod(0o755)


@pytest.mark.security_case(103)
@pytest.mark.parametrize("foreign", [like_var, a_home, a_maildir, for_everybody, a_project])
def test_what_is_no_spool_is_refused_and_nothing_in_it_changes(
    relay: Relay, foreign: Callable[[Path], None]
) -> None:
    relay.configure({"enableHealthCheck": True, "healthCheckPort": relay.http_port})
    relay.spool.mkdir()
    foreign(relay.spool)
    before = everything(relay.spool)
    for command in (*READERS, *MAKERS, ["config", "check"], ["doctor", "--offline"]):
        done = relay.mailer(*command)
        assert done.returncode in {1, 69, 75, 78}, (command, done.stderr)
        assert "is not a spool and contains other files" in done.stdout + done.stderr
        assert everything(relay.spool) == before, command


@pytest.mark.security_case(103)
@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_a_command_that_looks_makes_nothing(relay: Relay, command: list[str]) -> None:
    relay.configure({"enableHealthCheck": True, "healthCheckPort": relay.http_port})
    done = relay.mailer(*command)
    assert done.returncode in {69, 75}, done.stderr
    assert not relay.spool.exists()
    relay.spool.mkdir(mode=0o755)
    done = relay.mailer(*command)
    assert done.returncode in {69, 75}, done.stderr
    assert "is not a spool yet" in done.stderr
    assert list(relay.spool.iterdir()) == []


@pytest.mark.parametrize("command", [["spool", "ls"], ["spool", "stats"], ["log"], ["send", "--dry-run"]])
def test_a_command_that_looks_changes_nothing_in_a_spool(relay: Relay, command: list[str]) -> None:
    Queue(relay.spool).new()
    relay.spool.chmod(0o755)
    (relay.spool / "hold").chmod(0o777)
    before = everything(relay.spool)
    assert relay.mailer(*command).returncode == 0
    assert everything(relay.spool) == before
    (relay.spool / "hold").rmdir()
    done = relay.mailer(*command)
    assert done.returncode in {69, 75}
    assert "hold is missing: the next start of mailer serve or mailer-send makes it" in done.stderr
    assert relay.mailer("send", "--once").returncode == 0
    assert relay.mailer(*command).returncode == 0


@pytest.mark.parametrize("before", ["nothing", "empty", "clone", "filesystem", "older"])
def test_a_spool_is_made_where_nothing_else_is(spool_path: Path, before: str) -> None:
    if before == "older":
        Queue(spool_path).new()
        (spool_path / MARK).unlink()
        (spool_path / "state").rename(spool_path / "else")
    elif before != "nothing":
        spool_path.mkdir(mode=0o755)
    if before == "clone":
        (spool_path / "README.md").write_bytes(CLONE.read_bytes())
    if before == "filesystem":
        (spool_path / "lost+found").mkdir()
    Spool.open(spool_path, create=True).close()
    assert (spool_path / MARK).is_file()
    Spool.open(spool_path).close()


def test_the_mark_is_no_link_and_is_believed_beside_other_things(spool_path: Path) -> None:
    """The operator's word: `touch`, as the refusal says."""
    spool_path.mkdir()
    (spool_path / "else").touch()
    (spool_path / MARK).symlink_to("else")
    with pytest.raises(SpoolError, match="contains other files") as caught:
        Spool.open(spool_path, create=True)
    (spool_path / MARK).unlink()
    assert os.system(str(caught.value).partition("type: ")[2]) == 0
    Spool.open(spool_path, create=True).close()
