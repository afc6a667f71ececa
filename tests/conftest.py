"""Fixtures that every room's tests share."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings
from testbed.capability import address_elsewhere
from testbed.descendants import Descendants
from testbed.ports import free_port as draw_free_port
from testbed.postfix import Postfix
from testbed.relay import Relay
from testbed.smtp_sink import SmtpSink
from testbed.tools import MissingToolError

# No deadline and no complaint about slow data: the machine may be loaded, and these tests assert no times.
settings.register_profile("mailer", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# CI repeats the same examples, so that a red run is the commit's fault; elsewhere each run seeks new ones.
settings.register_profile("mailer-ci", settings.get_profile("mailer"), derandomize=True, database=None)

_TESTS = Path(__file__).parent
_PROGRAMS = frozenset({"elsewhere", "postfix", "relay", "smtp_sink"})
"""Fixtures below with which a test starts programs."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="leave out tests that start programs or are exhaustive"
    )
    parser.addoption(
        "--skip-missing-programs",
        action="store_true",
        help="skip the tests that need a program of the test bed which is not here",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep for --quick the tests with plain values, files and sockets of their own process."""
    if not config.getoption("--quick"):
        return
    slow = [item for item in items if item.get_closest_marker("exhaustive") or _starts_programs(item)]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in set(slow)]


def _starts_programs(item: pytest.Item) -> bool:
    assert isinstance(item, pytest.Function)
    fixtures: Sequence[str] = item.fixturenames
    return not _PROGRAMS.isdisjoint(fixtures) or _imports_subprocess(item.module, set())


def _imports_subprocess(module: ModuleType, seen: set[str]) -> bool:
    """Tell whether a module of the tests, or one that it imports from, can start programs."""
    seen.add(module.__name__)
    names = {
        value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        for value in vars(module).values()
    }
    if subprocess.__name__ in names:
        return True
    ours = [sys.modules[name] for name in names - seen if isinstance(name, str) and _is_of_tests(name)]
    return any(_imports_subprocess(each, seen) for each in ours)


def _is_of_tests(name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    return name != __name__ and file is not None and _TESTS in Path(file).parents


def pytest_configure(config: pytest.Config) -> None:
    """Choose the profile, after hypothesis's own plug-in has chosen its own, and have all processes end."""
    # What nohup or a shell in the background has us ignore, all programs that tests start would ignore, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    config.pluginmanager.register(Descendants())
    in_ci = settings.get_profile("ci") is settings.default
    settings.load_profile("mailer-ci" if in_ci else "mailer")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Measure the coverage of programs in every fourth test only.

    Measuring costs each program 0.12 s of processor time, and the suite starts thousands of them. The name of
    a test and its file's alone decide whether it is measured, so that it behaves alike in every run.
    """
    name = f"tests/{item.path.name}::{item.nodeid.partition('::')[2]}"
    with pytest.MonkeyPatch.context() as patch:
        if crc32(name.encode()) % 4:
            stop_measuring(patch)
        return (yield)


def stop_measuring(patch: pytest.MonkeyPatch) -> None:
    """Start programs without coverage, until the patch is undone."""
    for name in [name for name in os.environ if name.startswith("COVERAGE")]:
        patch.delenv(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Say where a failed test's spool is; pytest keeps the directories of its last three runs."""
    report = yield
    if item.config.getoption("--skip-missing-programs") and _lacks_program(call):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1], str(call.excinfo.value))
    directory = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and directory is not None and any(directory.iterdir()):
        report.sections.append(("Files left behind", str(directory)))
    return report


def _lacks_program(call: pytest.CallInfo[None]) -> bool:
    return call.excinfo is not None and isinstance(call.excinfo.value, MissingToolError)


@pytest.fixture
def spool_path(tmp_path: Path) -> Path:
    """Where a spool can be made; nothing is there yet."""
    return tmp_path / "spool"


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No coverage of the programs that the test starts: what they import or say is not to be coverage's."""
    stop_measuring(monkeypatch)


@pytest.fixture
def free_port() -> int:
    """A loopback port that nothing listens on."""
    return draw_free_port()


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """An address of this machine that is not loopback: what a server on another machine looks like."""
    with address_elsewhere() as address:
        yield address


@pytest.fixture
def relay(tmp_path: Path) -> Relay:
    """A configuration with a login and local delivery; the test starts its programs."""
    directory = tmp_path / "relay"
    directory.mkdir()
    return Relay(directory)


@pytest.fixture
def smtp_sink(tmp_path: Path) -> Iterator[SmtpSink]:
    """A running next hop that takes everything."""
    with SmtpSink(tmp_path / "smtp-sink") as sink:
        yield sink


@pytest.fixture
def postfix() -> Iterator[Postfix]:
    """A running Postfix that delivers everything into its Maildir."""
    with Postfix() as server:
        yield server
