"""What a run of the tests has started is gone when the run ends, however it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from testbed.waiting import PATIENCE, until

_TESTS = Path(__file__).parents[1]
_PYTEST = "-m pytest -p conftest -p no:cacheprovider --max-worker-restart=0 test_it.py"
_PROGRAMS = """
import os, signal, subprocess, sys
from pathlib import Path
from testbed.forked import Program, Spec
from testbed.relay import Relay
from testbed.waiting import PATIENCE, until

STARTED = Path(os.environ["STARTED"])
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"

def test_that_leaves_programs(tmp_path):
    env = {"MAILER_CONFIG": str(Relay(tmp_path).config)}
    program = Program(Spec(("mailer", "serve"), tmp_path, tmp_path / "said", env))
    until(lambda: "listening" in program.said, "the receiver")
    subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE).stdout.readline()
    stopped = subprocess.Popen(["sleep", "6000"], start_new_session=True)
    os.kill(stopped.pid, signal.SIGSTOP)
    subprocess.run(["sh", "-c", "setsid sleep 6001 & exec true"])
    subprocess.Popen([b"sh", b"-c", b"sleep 6002; :", b"\\xff"])
    STARTED.touch()
"""
_WAITS = "    signal.sigtimedwait([signal.SIGUSR1], 6000)\n"
_IS_KILLED = "    os.kill(os.getpid(), signal.SIGKILL)\n"
_AND_ONE_FAILS = """
def test_that_fails():
    until(STARTED.exists, "the other test")
    assert False
"""


def _begin(directory: Path, test: str, *options: str) -> "subprocess.Popen[str]":
    (directory / "test_it.py").write_text(_PROGRAMS + test)
    return subprocess.Popen(
        [sys.executable, *_PYTEST.split(), *options],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": f"{_TESTS}:{_TESTS.parent}", "STARTED": str(directory / "started")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _said(run: "subprocess.Popen[str]") -> str:
    """Return what a run has printed, once it has ended; one that does not is killed."""
    try:
        return run.communicate(timeout=2 * PATIENCE)[0]
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        return "the run did not end"


def _left(directory: Path) -> list[str]:
    """Return the command lines of processes that have the run's environment; not of those that have ended."""
    ours = f"STARTED={directory / 'started'}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if ours in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text())
        except OSError:  # It has ended, or is not ours.
            continue
    return found


@pytest.mark.parametrize(
    ("test", "options"),
    [("", ["-n0"]), ("", ["-n1"]), (_IS_KILLED, ["-n1"]), (_AND_ONE_FAILS, ["-n2", "-x"])],
    ids=["one process", "a worker", "a worker that is killed", "another test failed"],
)
def test_what_tests_leave_is_ended_and_named(test: str, options: Sequence[str], tmp_path: Path) -> None:
    run = _begin(tmp_path, test, *options)
    said = _said(run)
    assert _left(tmp_path) == [], said
    assert (tmp_path / "started").exists(), said
    assert "sleep 6000" in said
    assert "sleep 6001" in said
    assert "sleep 6002" in said


@pytest.mark.parametrize("options", [["-n0"], ["-n2"]], ids=["one process", "workers"])
def test_what_tests_have_started_is_ended_when_they_are_interrupted(
    options: Sequence[str], tmp_path: Path
) -> None:
    run = _begin(tmp_path, _WAITS, *options)
    until(lambda: (tmp_path / "started").exists() or run.poll() is not None, "the test")
    os.killpg(run.pid, signal.SIGINT)
    said = _said(run)
    assert _left(tmp_path) == [], said
    assert run.returncode == pytest.ExitCode.INTERRUPTED, said
