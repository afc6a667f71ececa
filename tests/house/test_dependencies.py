"""The releases that we install, by their hashes, and the lowest that we admit."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[2]
LOCKED = REPOSITORY / "scripts" / "locked"
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
RUNTIME = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
EXTRAS = {
    name: [Requirement(text) for text in texts]
    for name, texts in PROJECT["project"]["optional-dependencies"].items()
}


def plain(name: str) -> str:
    """A project's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Each release of a lock, with the number of its hashes."""
    text = (LOCKED / f"{name}.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = [
        re.fullmatch(r"([\w.-]+)==([\w.]+)( ;[^;]*?)?((?: +--hash=sha256:[0-9a-f]{64})+)", x) for x in lines
    ]
    assert all(found), lines
    return {plain(each[1]): (each[2], each[4].count("--hash")) for each in found if each}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("build", [Requirement(text) for text in PROJECT["build-system"]["requires"]]),
        ("runtime", RUNTIME),
        ("speed", EXTRAS["speed"]),
        ("dev", [*RUNTIME, *EXTRAS["dev"]]),
    ],
)
def test_each_lock_has_what_the_project_asks_for(name: str, wanted: list[Requirement]) -> None:
    """After a change of pyproject.toml: scripts/lock."""
    releases = locked(name)
    for requirement in wanted:
        release, hashes = releases[plain(requirement.name)]
        assert requirement.specifier.contains(release), requirement
        assert hashes


def test_the_locks_agree() -> None:
    """They are installed into one environment, one after the other."""
    versions: dict[str, set[str]] = {}
    for name in ("build", "runtime", "speed", "dev"):
        for package, (release, _) in locked(name).items():
            versions.setdefault(package, set()).add(release)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
    assert locked("runtime").keys() <= locked("dev").keys()


LOWEST = {
    requirement.name: specifier.version
    for requirement in RUNTIME
    for specifier in requirement.specifier
    if specifier.operator == ">="
}
WAY_OF_A_MAIL = (
    "tests/config/test_config_load.py",
    "tests/send/test_dkim_command.py::test_a_good_message_verifies",
    "tests/end_to_end/test_end_to_end_up.py::test_mail_comes_in_and_goes_out_with_uvloop_and_without",
    "tests/monitor/test_monitor_answers.py::test_scripts_of_the_go_relay_find_every_field_they_read",
    "tests/receive/test_receive_tls.py::test_implicit_tls_logs_in_and_sends",
    "tests/send/test_send_direct.py::test_the_preferred_exchanger_gets_the_mail",
)
"""One or two for each package: TOML, DKIM and cryptography, aiosmtpd, aiohttp, TLS, DNS."""


def test_the_lowest_admitted_releases_pass(tmp_path: Path) -> None:
    """Installed by pip as a user's own constraints would have them; the tests' tools are ours."""
    assert LOWEST.keys() == {requirement.name for requirement in RUNTIME}
    (tmp_path / "lowest.txt").write_text("".join(f"{name}=={low}\n" for name, low in LOWEST.items()))
    source = tmp_path / "source"
    shutil.copytree(REPOSITORY / "mailer", source / "mailer", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    install = [*pip, "install", "--quiet", "--constraint", str(tmp_path / "lowest.txt"), str(source)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed = subprocess.run([*pip, "list", "--format=json"], capture_output=True, text=True, check=True)
    releases = {plain(each["name"]): each["version"] for each in json.loads(listed.stdout)}
    for name, low in LOWEST.items():
        assert releases[name] == low or releases[name].startswith(f"{low}."), name
    # Behind its own packages, which therefore win: pytest, trustme and the like.
    [site] = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "tests.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    where = subprocess.run(
        [str(python), "-c", "import mailer, aiohttp; print(mailer.__file__, aiohttp.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert where.stdout.count(str(site)) == 2
    selected = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *WAY_OF_A_MAIL]
    done = subprocess.run(selected, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout[-4000:]
