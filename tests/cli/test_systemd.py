"""The systemd units: systemd understands them, and what they start works when it is typed by hand."""

import configparser
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from testbed.clients import Submission, with_smtplib
from testbed.http_client import ask
from testbed.process import ServerProcess
from testbed.relay import Relay, mailer_send_command
from testbed.tools import program
from testbed.waiting import until

from mailer.config.model import Config

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"
SERVICES = ("mailer.service", "mailer-monitor.service", "mailer-send.service")
SOCKETS = ("mailer.socket", "mailer-submit.socket")
UNITS = (*SERVICES, *SOCKETS, "mailer-send.timer", "mailer-send.path")
INSTALLED = {
    "/opt/mailer/bin/mailer-send": mailer_send_command,
    "/opt/mailer/bin/mailer": lambda: [str(Path(sys.executable).with_name("mailer"))],
}
MESSAGE = b"From: <app@example.com>\r\nSubject: by hand\r\n\r\nOne line.\r\n"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with the programs where this environment has them."""
    directory = tmp_path / "units"
    directory.mkdir()
    for name in UNITS:
        text = (SYSTEMD / name).read_text()
        for installed, here in INSTALLED.items():
            text = text.replace(f"={installed} ", f"={here()[0]} ")
        (directory / name).write_text(text)
    return directory


def _service(unit: str, section: str = "Service") -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read(SYSTEMD / unit)
    return parser[section]


def exec_start(unit: str, relay: Relay) -> list[str]:
    """The command line of a unit, with the program and the configuration where this environment has them."""
    installed, *arguments = shlex.split(_service(unit)["ExecStart"])
    return [
        *INSTALLED[installed](),
        *(str(relay.config) if argument == "/etc/mailer/config.json" else argument for argument in arguments),
    ]


def test_systemd_finds_nothing_wrong_with_the_units(units: Path) -> None:
    argv = [program("systemd-analyze"), "verify", "--man=no", *(str(units / name) for name in UNITS)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    # It also loads units of this machine, which are not ours to mend.
    said = [line for line in done.stderr.splitlines() if "mailer" in line]
    assert said == []


@pytest.mark.parametrize("unit", SERVICES)
def test_nothing_starts_before_the_spools_disk_is_mounted(unit: str) -> None:
    """In the empty mount point it would make a spool, which the disk then hides with all mail in it."""
    assert _service(unit, "Unit")["RequiresMountsFor"] == _service(unit)["ReadWritePaths"]


def test_systemd_does_find_a_wrong_unit(units: Path) -> None:
    with (units / "mailer.service").open("a") as unit:
        unit.write("\n[Service]\nProtectSytem=strict\n")
    argv = [program("systemd-analyze"), "verify", "--man=no", str(units / "mailer.service")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "ProtectSytem" in done.stderr


@pytest.mark.parametrize("unit", SERVICES)
def test_the_services_expose_little(unit: str, units: Path) -> None:
    # 2.0 of 10 where an unhardened service has 9.6; what is left is the network, which is the work.
    argv = [program("systemd-analyze"), "security", "--offline=true", "--threshold=20", str(units / unit)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_account_and_the_directories_can_be_made(tmp_path: Path) -> None:
    for kind, *argv in (("sysusers", "systemd-sysusers"), ("tmpfiles", "systemd-tmpfiles", "--create")):
        # With --root the tools read what is installed below it.
        installed = tmp_path / "etc" / f"{kind}.d" / "mailer.conf"
        installed.parent.mkdir(parents=True)
        shutil.copyfile(SYSTEMD / f"mailer.{kind}.conf", installed)
        tool, *options = argv
        subprocess.run([program(tool), *options, f"--root={tmp_path}", installed.name], check=True)
    assert "mailer:" in (tmp_path / "etc" / "passwd").read_text()
    assert (tmp_path / "var" / "spool" / "mailer").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "etc" / "mailer").stat().st_mode & 0o777 == 0o750


def test_mail_goes_through_by_the_command_lines_of_the_units(relay: Relay, tmp_path: Path) -> None:
    serve = ServerProcess(exec_start("mailer.service", relay), tmp_path / "serve.log")
    with serve:
        serve.await_port(relay.port)
        reply = with_smtplib(
            relay.server, Submission("app@example.com", ("bob@example.net",), MESSAGE), tmp_path
        )
        assert reply.startswith("250 ")
    subprocess.run(exec_start("mailer-send.service", relay), check=True, timeout=120)
    [delivered] = until(relay.delivered, "the message in the Maildir")
    assert delivered.endswith(b"One line.\n")


def test_the_monitor_answers_by_the_command_line_of_its_unit(relay: Relay, tmp_path: Path) -> None:
    relay.configure({"enableHealthCheck": True, "healthCheckPort": relay.http_port})
    assert relay.mailer("send", "--once").returncode == 0  # which makes the spool
    with ServerProcess(exec_start("mailer-monitor.service", relay), tmp_path / "monitor.log") as monitor:
        monitor.await_port(relay.http_port)
        assert ask(relay.http_port, "/livez").json["status"] == "ok"


def test_the_path_unit_watches_where_accepted_mail_appears(relay: Relay, tmp_path: Path) -> None:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read(SYSTEMD / "mailer-send.path")
    watched = Path(parser["Path"]["DirectoryNotEmpty"]).relative_to("/var/spool/mailer")
    with relay.serve():
        with_smtplib(relay.server, Submission("app@example.com", ("bob@example.net",), MESSAGE), tmp_path)
    assert len(list((relay.spool / watched).iterdir())) == 1


@pytest.mark.parametrize("unit", ["mailer.service", "mailer-monitor.service"])
def test_a_service_is_started_when_it_says_so_and_restarted_when_it_hangs(unit: str) -> None:
    assert _service(unit)["Type"] == "notify"
    assert _service(unit)["WatchdogSec"]


def test_the_socket_units_listen_where_the_receiver_does_by_default() -> None:
    listen = [
        line.partition("=")[2]
        for unit in SOCKETS
        for line in (SYSTEMD / unit).read_text().splitlines()
        if line.startswith("ListenStream=")
    ]
    config = Config(submit_socket=Path("/run/mailer/submit.sock"))
    assert listen == [
        f"{config.bind_address}:{config.smtp_port}",
        f"[::1]:{config.smtp_port}",
        str(config.submit_socket),
    ]


@pytest.mark.parametrize("unit", ["mailer.service", "mailer-monitor.service"])
def test_a_reload_of_a_unit_is_a_sighup_and_needs_no_program_but_the_shell(unit: str) -> None:
    command = shlex.split(_service(unit)["ExecReload"].replace("$$", "$"))
    with subprocess.Popen(["/bin/sleep", "6000"]) as service:
        reload = subprocess.run(command, env={"PATH": "", "MAINPID": str(service.pid)}, check=False)
        ended = service.wait(60) if reload.returncode == 0 else service.terminate()
    assert (reload.returncode, ended) == (0, -signal.SIGHUP)


@pytest.mark.parametrize("unit", SERVICES)
def test_the_units_start_only_programs_that_every_debian_has(unit: str) -> None:
    """Essential packages alone have these: dash and coreutils."""
    programs = {value.split()[0] for key, value in _service(unit).items() if key.startswith("Exec")}
    assert programs <= {*INSTALLED, "/bin/sh", "/bin/sleep"}
