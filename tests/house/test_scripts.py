"""What a newcomer types first works, and cleans up after itself."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from testbed.clients import Server, Submission, with_smtplib
from testbed.ports import accepts
from testbed.waiting import until

from mailer.config.load import OVERRIDES

REPOSITORY = Path(__file__).resolve().parents[2]
MISLEADING = dict.fromkeys(OVERRIDES, "1") | {
    "MAILER_CONFIG": "/nowhere.json",
    "SMTP_HOST": "203.0.113.1",
    "FORWARD_SMTP": "true",
    "FORWARD_HOST": "203.0.113.1",
}
"""What the environment of the caller's other relay may say; none of it is meant for the demonstration."""
MESSAGE = b"From: <app@example.com>\r\nSubject: third\r\n\r\nOne line.\r\n"


def quickstart(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/quickstart with `directory` for its temporary files."""
    # Output goes to a file: with --keep, a pipe could be held open by what is left running.
    shown = directory / "shown"
    with shown.open("w") as output:
        done = subprocess.run(
            [str(REPOSITORY / "scripts" / "quickstart"), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | MISLEADING | {"TMPDIR": str(directory)},
            timeout=300,
            check=False,
        )
    return subprocess.CompletedProcess(done.args, done.returncode, shown.read_text())


def running_in(directory: Path) -> list[int]:
    """The processes whose working directory is below `directory`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            cwd = (process / "cwd").readlink()
        except OSError:  # it has ended, or is not ours
            continue
        if cwd.is_relative_to(directory):
            found.append(int(process.name))
    return found


def test_quickstart_shows_mail_accepted_and_delivered_and_leaves_nothing(tmp_path: Path) -> None:
    done = quickstart(tmp_path)
    assert done.returncode == 0, done.stdout
    first, second = re.findall(r"250 2\.0\.0 Ok: queued as (\w{26})", done.stdout)
    before, after = done.stdout.split("The spool afterwards")
    assert re.search(rf"{first} +new ", before)
    assert "(nothing)" in after
    assert re.search(rf"spool/local/new/\S*{second}", after)
    assert "Nobody was sending when this was accepted." in after
    assert running_in(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["shown"]


def test_quickstart_keep_leaves_a_relay_that_takes_more_mail(tmp_path: Path) -> None:
    done = quickstart(tmp_path, "--keep")
    assert done.returncode == 0, done.stdout
    left = re.search(r"end it with: +kill (\d+)", done.stdout)
    assert left is not None
    try:
        [config_path] = tmp_path.glob("*/config.json")
        assert config_path.stat().st_mode & 0o777 == 0o600
        config = json.loads(config_path.read_text())
        server = Server("127.0.0.1", config["smtpPort"], config["defaultUsername"], config["defaultPassword"])
        with_smtplib(server, Submission("app@example.com", ("bob@example.net",), MESSAGE), tmp_path)
        maildir = config_path.parent / "spool" / "local" / "new"
        until(lambda: len(list(maildir.iterdir())) == 3, "the third message in the Maildir")
    finally:
        os.kill(int(left[1]), signal.SIGTERM)
    until(lambda: running_in(tmp_path) == [], "everything to end")
    assert not accepts(config["smtpPort"])


def test_quickstart_help_sets_nothing_up(tmp_path: Path) -> None:
    done = quickstart(tmp_path, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: scripts/quickstart")
    assert "Setting up" not in done.stdout


def clone(parent: Path) -> Path:
    """A checkout with what `scripts/venv` looks at, and no environment."""
    copy = parent / "clone"
    (copy / "scripts").mkdir(parents=True)
    for name in ("scripts/venv", "scripts/usage", "pyproject.toml"):
        (copy / name).write_bytes((REPOSITORY / name).read_bytes())
    return copy


def test_a_python_that_was_asked_for_is_the_only_one_tried(tmp_path: Path) -> None:
    copy = clone(tmp_path)
    argv = ["/usr/bin/bash", str(copy / "scripts" / "venv")]
    asking = os.environ | {"PYTHON": str(tmp_path / "no such python")}
    done = subprocess.run(argv, env=asking, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.startswith("mailer needs Python 3.11 or newer")
    assert not (copy / ".venv").exists()


@pytest.mark.parametrize(
    ("python", "sentence"),
    [
        (
            "exit 127",
            "mailer needs Python 3.11 or newer: install it, or say where it is with PYTHON=/path/to/python3.",
        ),
        (
            'case "$*" in *ensurepip*) exit 1 ;; esac',
            "Python's venv module is missing: install it with 'apt-get install python3-venv'.",
        ),
    ],
)
def test_a_missing_prerequisite_is_one_sentence(python: str, sentence: str, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "cut", "dirname", "env", "flock", "grep", "sha256sum"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        (programs / name).write_text(f"#!/usr/bin/bash\n{python}\n")
        (programs / name).chmod(0o755)
    copy = clone(tmp_path)
    argv = ["/usr/bin/bash", str(copy / "scripts" / "venv")]
    done = subprocess.run(argv, env={"PATH": str(programs)}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr == sentence + "\n"
    assert not (copy / ".venv").exists()


def test_an_environment_stays_with_its_interpreter_when_another_is_installed(tmp_path: Path) -> None:
    """Debian's, which is preferred, comes with the servers of the test bed, between two calls of ours.

    Another build of the same release may come with them, too, at the path of the old one.
    """
    copy, programs = clone(tmp_path), tmp_path / "bin"
    shutil.copytree(REPOSITORY / "scripts" / "locked", copy / "scripts" / "locked")
    base = os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]
    subprocess.run([base, "-m", "venv", "--without-pip", str(copy / ".venv")], check=True)
    major, minor = sys.version_info[:2]
    made_with = hashlib.sha256(f"{copy}\n{base} {major} {minor}\n".encode()).hexdigest()
    (copy / ".venv" / ".made-with").write_text(f"{made_with}\n")
    locks = [path.read_bytes() for path in sorted((copy / "scripts" / "locked").glob("*.txt"))]
    project = hashlib.sha256((copy / "pyproject.toml").read_bytes() + b"".join(locks)).hexdigest()
    (copy / ".venv" / ".installed").write_text(f"{project} dev\n")
    programs.mkdir()
    for name in ("bash", "cat", "cut", "dirname", "flock", "grep", "sha256sum"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    other = programs / "python3"
    other.write_text(f'#!/usr/bin/bash\necho "$*" >>{tmp_path}/asked\necho {other}\n')
    other.chmod(0o755)
    argv = ["/usr/bin/bash", str(copy / "scripts" / "venv"), "dev"]
    done = subprocess.run(argv, env={"PATH": str(programs)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "asked").exists()


def test_every_script_prints_its_usage_and_refuses_an_unknown_option(tmp_path: Path) -> None:
    scripts = [
        path for path in (REPOSITORY / "scripts").iterdir() if path.is_file() and os.access(path, os.X_OK)
    ]
    assert scripts
    for script in scripts:
        argv = [str(script), "--help"]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, ""), script
        assert done.stdout.startswith(f"Usage: scripts/{script.name}"), script
        if script.name == "test":
            continue  # pytest judges its options, after the checks that come first
        argv = [str(script), "--nonsense"]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (64, ""), script
        assert "unknown option --nonsense" in done.stderr, script
    assert not list(tmp_path.iterdir())
