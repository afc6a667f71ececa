"""What `scripts/package` releases: the same bytes each time, complete, and installed without a network."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from testbed.capability import network_of_its_own

import mailer
from mailer.cli.guide import guides

REPOSITORY = Path(__file__).resolve().parents[2]
TIME = "1790000000"
"""What SOURCE_DATE_EPOCH says: a checkout need not have commits."""
UNCOMPRESSED = {"DPKG_DEB_COMPRESSOR_TYPE": "none"}
"""Compression is dpkg's own, and takes most of the time."""


def package(source: Path, into: Path, *, umask: int = 0o022, **environment: str) -> str:
    argv = [str(source / "scripts" / "package"), "--into", str(into)]
    everything = os.environ | {"SOURCE_DATE_EPOCH": TIME} | UNCOMPRESSED | environment
    # Without a network: loopback and an address that nobody answers.
    with network_of_its_own():
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, umask=umask, env=everything, timeout=600
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release, built once for all workers of this run; `said` is what scripts/package printed."""
    base, run = tmp_path_factory.getbasetemp(), os.environ.get("PYTEST_XDIST_TESTRUNUID")
    into = base.parent / f"release-{run}" if run else base / "release"
    with FileLock(f"{into}.lock"):
        if not (into / "said").exists():
            said = package(REPOSITORY, into)
            (into / "said").write_text(said)
    return into


def digests(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.iterdir()
        if path.name != "said"
    }


def one(directory: Path, pattern: str) -> Path:
    [found] = directory.glob(pattern)
    return found


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The source at another place, without its history, with the environment and the tools of this one."""
    copied = tmp_path / "copied" / "source"
    copied.mkdir(parents=True)
    # By name: beside these, coverage and other tests make and remove files meanwhile.
    for name in ("mailer", "scripts", "systemd"):
        shutil.copytree(REPOSITORY / name, copied / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "config.example.json", ".gitignore"):
        shutil.copy(REPOSITORY / name, copied)
    (copied / "spool").mkdir()
    shutil.copy(REPOSITORY / "spool" / "README.md", copied / "spool")
    for name in (".venv", ".testbed"):
        (copied / name).symlink_to((REPOSITORY / name).resolve())
    return copied


def test_the_same_source_gives_the_same_bytes_elsewhere(release: Path, copy: Path, tmp_path: Path) -> None:
    """At another place, with another umask, time zone and locale, by a shell that seeds hashes otherwise."""
    surroundings = {"TZ": "Asia/Shanghai", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    package(copy, tmp_path / "again", umask=0o077, **surroundings)
    assert digests(tmp_path / "again") == digests(release)
    assert len(digests(release)) == 4


def test_the_sdist_holds_what_the_wheel_is_made_of_and_what_installs_it(
    release: Path, tmp_path: Path
) -> None:
    subprocess.run(["tar", "-xf", str(one(release, "*.tar.gz")), "-C", str(tmp_path)], check=True)
    unpacked = one(tmp_path, "mailer_spool-*")
    argv = [
        str(Path(sys.executable).with_name("hatchling")),
        "build",
        "-t",
        "wheel",
        "-d",
        str(tmp_path),
    ]
    subprocess.run(argv, check=True, cwd=unpacked, env=os.environ | {"SOURCE_DATE_EPOCH": TIME})
    wheel = one(release, "*.whl")
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()
    # What scripts/install copies and calls.
    named = ["config.example.json", "systemd/mailer.service", "spool/README.md", "LICENSE", "README.md"]
    named += [f"scripts/{name}" for name in ("install", "venv", "front", "usage", "locked/runtime.txt")]
    assert [name for name in named if not (unpacked / name).exists()] == []
    done = subprocess.run([unpacked / "scripts" / "install", "--help"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.fixture
def installed(release: Path, tmp_path: Path) -> Path:
    """An environment with the wheel in it, and behind it what it depends on, from this one."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", str(one(release, "*.whl"))], check=True)
    # The files of a directory on the path, and not what its own .pth files add: this source.
    one(environment, "lib/python*/site-packages").joinpath("needed.pth").write_text(
        f"{one(Path(sys.prefix), 'lib/python*/site-packages')}\n"
    )
    return environment


def test_the_wheel_works_outside_of_the_source(installed: Path, tmp_path: Path) -> None:
    def run(*argv: str) -> str:
        done = subprocess.run(
            [str(installed / "bin" / argv[0]), *argv[1:]],
            check=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        return done.stdout

    place = Path(run("python", "-c", "import mailer; print(mailer.__file__)").strip()).parent
    assert place.is_relative_to(installed)
    assert run("mailer", "--help").startswith("Usage: mailer")
    assert run("mailer-send", "--help").startswith("Usage: mailer-send")
    assert run("mailer", "guide", "changes") == (REPOSITORY / "mailer" / "guide" / "changes.md").read_text()
    assert run("mailer", "guide", "changes", "--language", "zh-CN").startswith("# 变更")
    assert "default: 5d" in run("mailer", "config", "keys", "retry.maxAge")
    assert run("python", "-m", "mailer.cli.manual", "mailer-sendmail.8").startswith(".TH")
    assert (place / "sendmail" / "front.c").exists()
    assert run("mailer", "--version").split()[-1] == mailer.__version__


def test_the_version_is_written_in_one_place(release: Path) -> None:
    version = mailer.__version__
    with zipfile.ZipFile(one(release, "*.whl")) as wheel:
        told = HeaderParser().parsestr(wheel.read(f"mailer_spool-{version}.dist-info/METADATA").decode())
    assert told["Version"] == version
    argv = ["dpkg-deb", "--field", str(one(release, "*.deb")), "Version"]
    assert subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip() == version
    for language in ("en", "zh-CN"):
        [changes] = [each for each in guides(language) if each.topic == "changes"]
        assert re.findall(r"^## (\S+)", changes.text, re.MULTILINE)[0] == version


def test_twine_finds_nothing_wrong_with_wheel_and_sdist(release: Path) -> None:
    """What an index would refuse, and what its page could not show."""
    said = (release / "said").read_text()
    assert len(re.findall(r"^Checking .*(?:whl|tar\.gz): PASSED$", said, re.MULTILINE)) == 2


def locked() -> Iterator[tuple[str, str, set[str]]]:
    """Each package of the lock: its name, its release, the digests of its files."""
    text = (REPOSITORY / "scripts" / "locked" / "runtime.txt").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, release = re.match(r"([\w.-]+)==(\S+)", line).groups()  # type: ignore[union-attr]
            yield name, release, set(re.findall(r"--hash=sha256:(\w+)", line))


def test_the_sbom_names_what_is_locked_and_nothing_else(release: Path) -> None:
    bom = json.loads(one(release, "*.cdx.json").read_text())
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    component = bom["metadata"]["component"]
    assert (component["name"], component["version"]) == ("mailer-spool", mailer.__version__)
    assert component["licenses"]
    found = {each["name"]: each for each in bom["components"]}
    assert {name: each["version"] for name, each in found.items()} == {
        name: version for name, version, _ in locked()
    }
    for name, _, hashes in locked():
        [distribution] = found[name]["externalReferences"]
        assert ({each["content"] for each in distribution["hashes"]} == hashes) is True, name
    assert {each["purl"] for each in bom["components"]} == {
        f"pkg:pypi/{name}@{version}" for name, version, _ in locked()
    }


def test_the_debian_package_is_installed_upgraded_removed_and_purged(release: Path) -> None:
    """MAILER_DEBIAN_ROOT=DIRECTORY has it do so in a clean system: the long form."""
    argv = [str(REPOSITORY / "scripts" / "try_package"), "--deb", str(one(release, "*.deb"))]
    if root := os.environ.get("MAILER_DEBIAN_ROOT"):
        argv += ["--root", root]
    done = subprocess.run(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "All of it works." in done.stdout


@pytest.mark.parametrize("fault", ["", "mail", "unread", "overlooked", "elsewhere"])
def test_a_purge_removes_a_spool_only_where_it_has_seen_that_no_mail_is_in_it(
    tmp_path: Path, fault: str
) -> None:
    """`find` fails, as on a disk that cannot be read, or does not see a message; the spool is a link."""
    text = (REPOSITORY / "scripts/debian/postrm").read_text()
    script = tmp_path / "postrm"
    script.write_text(re.sub(r"(?<![\w$\"/>])/(?=(etc|var|run)/)", f"{tmp_path}/", text))
    spool = tmp_path / "var/spool/mailer"
    home = tmp_path / "elsewhere" if fault == "elsewhere" else spool
    for name in ("new", "failed", "retry/20261122T2145Z", "local/new", "log", "state", "tmp"):
        (home / name).mkdir(parents=True)
    (home / ".mailer-spool").touch()
    (home / "state/alerts.json").touch()
    if home != spool:
        spool.parent.mkdir(parents=True)
        spool.symlink_to(home)
    if fault:
        (home / "failed/01JD0000000000000000000000").touch()
    find = tmp_path / "bin/find"
    find.parent.mkdir()
    if fault in {"unread", "overlooked"}:
        real, last = shutil.which("find"), "exit 1" if fault == "unread" else "exit 0"
        find.write_text(f'#!/bin/sh\n{real} "$@" | grep -v /failed/\n{last}\n')
        find.chmod(0o755)
    path = f"{find.parent}:{os.environ['PATH']}"
    argv = ["sh", str(script), "purge"]
    done = subprocess.run(argv, env={"PATH": path}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert spool.exists() is bool(fault)
    assert ("has mail, and stays" in done.stdout) is bool(fault), done.stdout
    if fault:
        assert (home / "failed/01JD0000000000000000000000").exists()


CONTAINER = REPOSITORY / "scripts" / "docker"


def test_the_containers_files_agree_with_one_another(tmp_path: Path) -> None:
    """What is copied and mounted is there; its example of a configuration can be used."""
    recipe = (CONTAINER / "Dockerfile").read_text()
    for names in re.findall(r"^COPY (?!--from)(.*) \S+$", recipe, re.MULTILINE):
        assert [name for name in names.split() if not (REPOSITORY / name).exists()] == []
    composed = yaml.safe_load((CONTAINER / "compose.yaml").read_text())
    for service in composed["services"].values():
        for volume in service.get("volumes", ()):
            place = volume.split(":")[0]
            known = (CONTAINER / place).exists() or place in {"./etc", *composed["volumes"]}
            assert known, volume
    relay = composed["services"]["mailer"]
    assert {"127.0.0.1:25:25", "127.0.0.1:8025:8025"} <= set(relay["ports"])
    assert (relay["read_only"], relay["cap_drop"]) == (True, ["ALL"])
    example = json.loads((CONTAINER / "config.json").read_text())
    [subnet] = [each["subnet"] for each in composed["networks"]["apps"]["ipam"]["config"]]
    assert example["listeners"][0]["trustedNetworks"][0]["cidr"] == subnet
    example["spoolDir"] = str(tmp_path / "spool")
    for name in ("submission", "provider"):
        secret = tmp_path / "keys" / name
        secret.parent.mkdir(exist_ok=True)
        secret.touch(mode=0o600)
        secret.write_text("kq3X-9vT_aL2")
    (tmp_path / "config.json").write_text(json.dumps(example))
    argv = [str(Path(sys.executable).with_name("mailer")), "config", "check", "--json"]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, cwd=tmp_path, env=own(tmp_path))
    told = json.loads(done.stdout)
    assert (told["errors"], told["warnings"]) == ([], [])


def own(directory: Path) -> dict[str, str]:
    return os.environ | {"MAILER_CONFIG": str(directory / "config.json")}
