"""No program of ours touches a path twice: as root it could be led elsewhere in between.

What changes a file goes by a descriptor, or by a name relative to one. The first test reads the source, the
second watches the system calls of what root does in directories that belong to others.
"""

import ast
import os
import pwd
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from testbed.capability import tracer
from testbed.ci import only_root
from testbed.relay import Relay

MAILER = Path(__file__).resolve().parents[2] / "mailer"

BY_NAME = {
    "chmod",
    "chown",
    "lchmod",
    "lchown",
    "mkfifo",
    "mknod",
    "removexattr",
    "setxattr",
    "truncate",
    "utime",
}
"""Functions of os, shutil and Path that change whatever a path leads to; there is one for descriptors."""
RELATIVE = {"link", "makedirs", "mkdir", "open", "remove", "rename", "replace", "rmdir", "symlink", "unlink"}
"""Functions of os that need `dir_fd` or `src_dir_fd`."""
OF_PATHS = {
    "hardlink_to",
    "mkdir",
    "rename",
    "rmdir",
    "symlink_to",
    "touch",
    "unlink",
    "write_bytes",
    "write_text",
}
READING = {"read_bytes", "read_text"}

ALLOWED = {
    (
        "mailer.imports.directories",
        "os.open(path)",
    ): "the queue that the operator named; all else is relative to it",
    ("mailer.imports.directories", "open(fd)"): "a descriptor",
    ("mailer.sendmail.drop", "os.open(path)"): "as its caller's user; all else is relative to it",
    ("mailer.spool.directory", "path.mkdir"): "a spool is made by its owner, and opened once",
    ("mailer.spool.directory", "os.open(path)"): "the one descriptor that all else is relative to",
    ("mailer.spool.directory", "os.open(path.parent)"): "to sync it",
    ("mailer.spool.checks.probe", "os.open(place)"): "to look at which filesystem it is on",
    (
        "mailer.spool.hosts.epochs",
        "os.open(shared)",
    ): "the hosts' directory; all else is relative to it",
    ("mailer.spool.hosts.epochs", "path.read_text"): "the machine's id, in /etc",
    ("mailer.cli.program", "open(fd)"): "a descriptor",
    ("mailer.cli.service.hangup", "os.open('/dev/tty')"): "the terminal that controls us, if there is one",
    ("mailer.spool.checks.probe", "os.open(elsewhere / name)"): "what mkdtemp made, by its second path",
    ("mailer.spool.checks.trials", "os.utime(file)"): "a descriptor",
    ("mailer.spool.checks.probe", "os.open(directory)"): "mkdtemp made it, in the spool, for its owner alone",
    ("mailer.config.trust", "os.open(_ROOT)"): "nobody can move it",
    ("mailer.spool.syscalls", "path.read_bytes"): "the boot id, in /proc",
    ("mailer.spool.syscalls", "open(mountinfo)"): "of /proc",
    ("mailer.cli.spool.parallel", "open(fd)"): "a descriptor",
    ("mailer.spool.syscalls", "os.removexattr(fd)"): "a descriptor",
    ("mailer.spool.key_retention", "os.utime(fd)"): "a descriptor",
    ("mailer.monitor.page.assets", "files(__name__).joinpath(name).read_bytes"): "of our own package",
    ("mailer.cli.guide", "path.read_text"): "of our own package",
    ("mailer.cli.keys.reference", "SOURCE.read_bytes"): "of our own package",
    ("mailer.cli.doctor.files", "program.open('rb')"): "reads four octets, which it does not show",
    (
        "mailer.receive.web.messages",
        "files('mailer.receive.web').joinpath('openapi.json').read_bytes",
    ): "the same",
}


def touched(module: str, source: str) -> Iterator[str]:
    """Calls that change or open a file by its path."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        call, arguments = node.func, {keyword.arg for keyword in node.keywords}
        name = ast.unparse(call)
        first = ast.unparse(node.args[0]) if node.args else ""
        if (name == "os.open" and first == "os.devnull") or first.startswith(
            ("f'/proc/", "'/proc/", "f'/sys/")
        ):
            continue
        match call:
            case ast.Attribute(value=ast.Name(id="os" | "shutil"), attr=attr):
                if attr in BY_NAME or (attr in RELATIVE and not arguments & {"dir_fd", "src_dir_fd"}):
                    yield f"{name}({first})"
            case ast.Attribute(attr=attr) if attr in BY_NAME | OF_PATHS | READING:
                if not _of_the_kernel(call.value):
                    yield name
            case ast.Attribute(attr="open") if re.fullmatch(r"'[rwaxb+]+'", first):
                yield f"{name}({first})"
            case ast.Name(id="open"):
                yield f"open({first})"


def _of_the_kernel(value: ast.expr) -> bool:
    return ast.unparse(value).startswith(("Path(f'/sys/", "Path('/proc/", "Path(f'/proc/"))


def found() -> set[tuple[str, str]]:
    calls = set()
    for path in MAILER.rglob("*.py"):
        module = ".".join(path.relative_to(MAILER.parent).with_suffix("").parts).removesuffix(".__init__")
        calls |= {(module, call) for call in touched(module, path.read_text())}
    return calls


def test_no_file_is_changed_or_opened_by_its_path() -> None:
    assert found() == set(ALLOWED)


@pytest.mark.parametrize(
    "source",
    [
        "os.chmod(path, 0o600)",
        "os.chown(path, 0, 0)",
        "Path(name).chmod(0o666)",
        "os.unlink(path)",
        "os.rename(a, b)",
        "os.open(path, os.O_RDONLY)",
        "path.open('rb')",
        "open('file')",
        "path.unlink()",
        "key.read_bytes()",
        "shutil.chown(path, 'mailer')",
    ],
)
def test_the_rule_sees_each_of_them(source: str) -> None:
    assert [*touched("mailer.x", source)]


@pytest.mark.parametrize(
    "source",
    [
        "os.unlink(name, dir_fd=directory)",
        "os.open(name, flags, dir_fd=at)",
        "os.open(os.devnull, os.O_RDONLY)",
        "os.fchmod(fd, 0o600)",
        "os.rename(a, b, src_dir_fd=at, dst_dir_fd=at)",
        "Spool.open(path)",
        "text.replace('a', 'b')",
    ],
)
def test_the_rule_lets_pass_what_is_relative_to_a_descriptor(source: str) -> None:
    assert not [*touched("mailer.x", source)]


# What root really does.

as_root = only_root("only root works in directories of others")
NOBODY = pwd.getpwnam("nobody")
CALLS = (
    "chmod,fchmodat,chown,lchown,fchownat,unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat,openat,open"
)
_MAKING = re.compile(r"O_CREAT|O_WRONLY|O_RDWR")


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Relay]:
    """A configuration of root's, with all that the programs write in directories of the spool's owner."""
    with TemporaryDirectory(prefix="mailer-test-") as name:
        place = Path(name)
        place.chmod(0o755)
        relay = Relay(place)
        for directory in ("spool", "theirs"):
            (place / directory).mkdir(mode=0o755)
            shutil.chown(place / directory, NOBODY.pw_uid, NOBODY.pw_gid)
        relay.configure(
            {
                "usersFile": "theirs/users.json",
                "listeners": [{"unixSocket": "theirs/smtp.sock"}],
                "dkim": {"domain": "example.com", "privateKeyPath": "theirs/keys/mail.private"},
            }
        )
        yield relay


def watched(log: Path) -> tuple[str, ...]:
    return (
        *("env", "PYTHONDONTWRITEBYTECODE=1"),
        *(tracer(), "-D", "-f", "-qq", "-o", str(log), "-e", f"trace={CALLS}"),
    )


def led_astray(log: Path, place: Path) -> list[str]:
    """The calls that went by a path into a place where others could have changed it."""
    return [
        line
        for line in log.read_text().splitlines()
        if str(place) in line
        and "AT_FDCWD" in line
        and (_MAKING.search(line) or not re.search(r"\bopen(at)?\(", line))
    ]


COMMANDS = (
    ["user", "token", "shop", "--allow", "*"],
    ["user", "rm", "shop"],
    ["dkim", "keygen", "--domain", "example.com"],
    ["dkim", "rotate", "--domain", "example.com"],
)


@pytest.mark.security_case(104, 116)
@as_root
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_root_changes_nothing_by_its_path(shared: Relay, tmp_path: Path, command: list[str]) -> None:
    """Security cases 104 and 116: what root made is for the service, and for nobody else."""
    if command[1] == "rm":
        shared.mailer("user", "token", "shop", "--allow", "*")
    if command[1] == "rotate":
        shared.mailer("dkim", "keygen", "--domain", "example.com")
    log = tmp_path / "calls"
    done = shared.mailer(*command, under=watched(log))
    assert done.returncode == 0, done.stderr
    theirs = shared.directory / "theirs"
    calls = log.read_text()
    assert "O_CREAT" in calls
    assert led_astray(log, theirs) == []
    assert not re.search(r"\b(chmod|chown|lchown|fchownat|fchmodat)\(", calls)
    for path in theirs.rglob("*"):
        state = path.stat()
        assert state.st_uid == NOBODY.pw_uid
        assert path.suffix == ".txt" or state.st_mode & 0o077 == 0


@pytest.mark.security_case(104)
@as_root
@pytest.mark.usefixtures("unmeasured")
def test_root_binds_a_unix_socket_without_going_by_its_path_twice(shared: Relay, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    with shared.serve(under=watched(log)):
        socket = shared.directory / "theirs" / "smtp.sock"
        assert socket.is_socket()
        assert socket.stat().st_mode & 0o777 == 0o666
    assert led_astray(log, socket.parent) == []
    assert not re.search(r"\b(chmod|chown|lchown|fchownat|fchmodat)\(", log.read_text())


@pytest.mark.security_case(104)
@as_root
@pytest.mark.parametrize(
    "theirs", ["keys", "keys/mail.private", "users.json", "users.json.lock", "smtp.sock"]
)
def test_a_link_that_lies_in_the_way_leads_root_nowhere(shared: Relay, theirs: str) -> None:
    outside = shared.directory / "outside"
    outside.mkdir(mode=0o700)
    (outside / "file").write_text("precious")
    (outside / "file").chmod(0o600)
    link = shared.directory / "theirs" / theirs
    if theirs == "keys/mail.private":
        link.parent.mkdir()
        shutil.chown(link.parent, NOBODY.pw_uid, NOBODY.pw_gid)
    link.symlink_to(outside if theirs == "keys" else outside / "file")
    os.chown(link, NOBODY.pw_uid, NOBODY.pw_gid, follow_symlinks=False)
    commands = {"k": COMMANDS[2], "u": COMMANDS[0], "s": ["serve"]}
    done = shared.mailer(*commands[theirs[0]])
    assert done.returncode not in {0, 70}, done.stderr
    assert [path.name for path in outside.iterdir()] == ["file"]
    state = (outside / "file").stat()
    assert (state.st_uid, state.st_mode & 0o777, (outside / "file").read_text()) == (0, 0o600, "precious")


@pytest.mark.security_case(116)
@as_root
def test_what_root_makes_before_the_first_start_is_for_the_group_of_the_directory(tmp_path: Path) -> None:
    """Security case 116: as in systemd/mailer.service, the configuration is root's and the group's."""
    relay = Relay(tmp_path)
    os.chown(tmp_path, 0, NOBODY.pw_gid)
    tmp_path.chmod(0o750)
    for command in COMMANDS[0], COMMANDS[2]:
        assert relay.mailer(*command).returncode == 0
    for name, mode in {
        "users.json": 0o640,
        "keys": 0o750,
        "keys/example.com": 0o750,
        "keys/example.com/mail.private": 0o640,
        "keys/example.com/mail.txt": 0o644,
    }.items():
        state = (tmp_path / name).stat()
        assert (state.st_uid, state.st_gid, state.st_mode & 0o777) == (0, NOBODY.pw_gid, mode), name
