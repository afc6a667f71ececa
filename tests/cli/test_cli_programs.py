"""The programs: how they find their configuration, how they end, and what a shell sees of them."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import click
import pytest
from outbound.sending import queue
from spools.states import Queue
from testbed.proc import children, gone
from testbed.process import ServerProcess
from testbed.relay import Relay
from testbed.waiting import until

from mailer.cli.lazy import LazyGroup
from mailer.cli.main import cli

MAILER = [sys.executable, "-m", "mailer"]
POSITIONS = {
    "before the command": lambda file: ["--config", file, "spool", "stats"],
    "between them": lambda file: ["spool", "--config", file, "stats"],
    "after the subcommand": lambda file: ["spool", "stats", "--config", file],
}


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key != "MAILER_CONFIG"}
    return subprocess.run(
        [*MAILER, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=clean | environment,
        timeout=60,
        check=False,
    )


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A directory without a configuration."""
    path = tmp_path / "elsewhere"
    path.mkdir()
    return path


@pytest.mark.parametrize("position", POSITIONS)
def test_config_is_taken_wherever_it_stands(relay: Relay, elsewhere: Path, position: str) -> None:
    Queue(relay.spool).new()
    done = run(*POSITIONS[position](str(relay.config)), cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert "new             1" in done.stdout


def test_the_innermost_config_counts(relay: Relay, elsewhere: Path) -> None:
    Queue(relay.spool)
    done = run("--config", "/nonexistent", "spool", "stats", "--config", str(relay.config), cwd=elsewhere)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("written", [["-config", "FILE"], ["-config=FILE"]])
def test_the_go_relays_command_line_starts_everything(
    relay: Relay, elsewhere: Path, tmp_path: Path, written: list[str]
) -> None:
    arguments = [word.replace("FILE", str(relay.config)) for word in written]
    with ServerProcess([*MAILER, *arguments], tmp_path / "log", cwd=elsewhere) as process:
        process.await_port(relay.port)
        assert process.stop() == 0


def test_every_configuration_error_is_a_line_of_its_own_and_78(relay: Relay, elsewhere: Path) -> None:
    relay.configure({"smtpPort": "secret-value", "batchSizes": 5, "retry": 3})
    for command in (["config", "check"], ["spool", "ls"], ["serve"], ["up"], ["send", "--once"]):
        done = run(*command, "--config", str(relay.config), cwd=elsewhere)
        assert done.returncode == 78, command
        paths = {line.partition(":")[0] for line in done.stderr.splitlines()}
        assert {"$.smtpPort", "$.batchSizes", "$.retry"} == paths
        assert "secret-value" not in done.stderr
        assert "Traceback" not in done.stderr


def test_no_configuration_at_all_says_where_it_was_looked_for(elsewhere: Path) -> None:
    done = run("spool", "ls", cwd=elsewhere)
    assert done.returncode == 78
    assert "none found; looked for" in done.stderr
    assert "`mailer init` writes one" in done.stderr


def test_config_check_warns_and_is_content(relay: Relay) -> None:
    relay.configure({"workerCount": 3})
    done = relay.mailer("config", "check")
    assert done.returncode == 0
    assert "warning: $.workerCount" in done.stderr
    report = json.loads(relay.mailer("config", "check", "--json").stdout)
    assert report["errors"] == []
    assert "$.workerCount" in {warning["path"] for warning in report["warnings"]}
    # No program makes the directory that a spool is made in.
    relay.configure({"spoolDir": "not/there"})
    done = relay.mailer("config", "check")
    assert done.returncode == 78
    assert "mkdir -p" in done.stderr


@pytest.mark.parametrize(
    ("changes", "mode", "path"),
    [
        ({"defaultPassword": "change-this-password"}, 0o600, "$.defaultPassword"),
        ({"defaultPassword": ""}, 0o600, "$.defaultPassword"),
        ({"defaultPassword": {"env": "MISSING_HERE"}}, 0o600, "$.defaultPassword"),
        ({"defaultPassword": {"command": ["false"]}}, 0o600, "$.defaultPassword"),
        ({"defaultUsername": "", "defaultPassword": ""}, 0o600, "$.defaultUsername"),
        ({"defaultPassword": "hunter2-hunter2"}, 0o644, "CONFIG"),
    ],
)
def test_config_check_refuses_what_the_receiver_refuses(
    relay: Relay, changes: dict[str, object], mode: int, path: str
) -> None:
    relay.configure(changes)
    relay.config.chmod(mode)
    path = path.replace("CONFIG", str(relay.config))
    checked, served = relay.mailer("config", "check"), relay.mailer("serve")
    assert (checked.returncode, served.returncode) == (78, 78)
    assert f"{path}: " in served.stderr
    errors = [line for line in checked.stderr.splitlines() if not line.startswith("warning: ")]
    assert errors == served.stderr.splitlines()
    report = relay.mailer("config", "check", "--json")
    assert report.returncode == 78
    assert [error["path"] for error in json.loads(report.stdout)["errors"]] == [path]
    assert path not in [warning["path"] for warning in json.loads(report.stdout)["warnings"]]


def test_config_check_refuses_the_example_until_it_is_edited(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    shutil.copy(Path(__file__).parents[2] / "config.example.json", config)
    config.chmod(0o600)
    done = run("config", "check", "--config", str(config), cwd=tmp_path)
    assert done.returncode == 78
    assert "$.defaultPassword: is a placeholder" in done.stderr
    assert "can be used" not in done.stdout


def test_config_check_reports_errors_as_json_too(relay: Relay) -> None:
    relay.configure({"smtpPort": "x"})
    done = relay.mailer("config", "check", "--json")
    assert done.returncode == 78
    assert [error["path"] for error in json.loads(done.stdout)["errors"]] == ["$.smtpPort"]


def test_config_show_masks_the_password(relay: Relay) -> None:
    relay.configure({"defaultPassword": "hunter2-hunter2"})
    done = relay.mailer("config", "show")
    assert json.loads(done.stdout)["smtpPort"] == relay.port
    assert "hunter2" not in done.stdout + done.stderr


def test_serve_refuses_a_placeholder_password(relay: Relay) -> None:
    relay.configure({"defaultPassword": "your-strong-password"})
    done = relay.mailer("serve")
    assert done.returncode == 78
    assert "token_urlsafe" in done.stderr


def test_without_a_spool_the_inspecting_commands_say_so_and_make_none(relay: Relay) -> None:
    done = relay.mailer("spool", "ls")
    assert done.returncode == 69
    assert "No such file or directory" in done.stderr or "no spool" in done.stderr
    assert not relay.spool.exists()


def test_a_spool_that_cannot_be_made_is_73(relay: Relay) -> None:
    relay.spool.symlink_to("missing")
    done = relay.mailer("serve")
    assert done.returncode == 73
    assert "the spool cannot be made" in done.stderr


def test_a_defect_is_one_clear_line_a_traceback_and_70(relay: Relay) -> None:
    Queue(relay.spool)
    broken = (
        "import mailer.cli.setup as wire\n"
        "def broken(*_): raise RuntimeError('out of cheese')\n"
        "wire.operator_name = broken\n"
        "import mailer.cli; mailer.cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", broken, "spool", "ls", "--config", str(relay.config)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 70
    assert done.stderr.startswith("mailer: a defect in mailer, RuntimeError")
    assert "out of cheese" in done.stderr
    assert "battery staple" not in done.stderr


def test_too_little_memory_is_no_defect(relay: Relay) -> None:
    Queue(relay.spool)
    broken = (
        "import mailer.cli.setup as wire\n"
        "def broken(*_): raise MemoryError\n"
        "wire.operator_name = broken\n"
        "import mailer.cli; mailer.cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", broken, "spool", "ls", "--config", str(relay.config)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 75
    assert done.stderr.startswith("mailer: it may not use as much memory as it needs: raise `ulimit -v`")
    assert done.stderr.count("\n") == 1


def test_head_ends_a_listing_quietly(relay: Relay) -> None:
    queue = Queue(relay.spool)
    for _ in range(2000):
        queue.new()
    listing = subprocess.Popen(
        [*MAILER, "spool", "ls", "--config", str(relay.config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert listing.stdout is not None
    assert listing.stderr is not None
    with listing:
        listing.stdout.readline()
        listing.stdout.close()
        assert listing.stderr.read() == b""
    assert listing.returncode == -signal.SIGPIPE


@pytest.mark.security_case(87)
def test_the_umask_of_the_caller_does_not_matter(relay: Relay) -> None:
    before = os.umask(0)
    try:
        with relay.serve() as process:
            assert "Umask:\t0077" in Path(f"/proc/{process.pid}/status").read_text()
    finally:
        os.umask(before)
    for path in (relay.spool, *relay.spool.rglob("*")):
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


@pytest.mark.parametrize("program", ["mailer", "mailer-send"])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_cover_both_programs(relay: Relay, shell: str, program: str) -> None:
    done = relay.mailer("completion", shell)
    assert done.returncode == 0, done.stderr
    assert f"_{program.replace('-', '_').upper()}_COMPLETE" in done.stdout


def test_completion_completes(elsewhere: Path) -> None:
    done = run(cwd=elsewhere, _MAILER_COMPLETE="bash_complete", COMP_WORDS="mailer spool re", COMP_CWORD="2")
    assert done.stdout.split() == ["plain,retry", "plain,release", "plain,replay"]


@pytest.mark.parametrize("command", [
    ["--help"], ["spool", "--help"], ["spool", "ls", "--help"], ["config", "--help"],
    ["config", "check", "--help"],
    ["monitor", "--help"], ["pause", "--help"], ["resume", "--help"],
    ["serve", "--help"], ["up", "--help"], ["spool", "retry", "--help"], ["spool", "why", "--help"],
])  # fmt: skip
def test_help_has_examples_that_begin_with_the_programs_name(elsewhere: Path, command: list[str]) -> None:
    done = run(*command, cwd=elsewhere)
    assert done.returncode == 0
    assert "Examples:\n  mailer " in done.stdout.replace("\n    mailer", "\n  mailer")


def test_a_shell_that_completes_loads_no_web_server(elsewhere: Path) -> None:
    source = "import sys, mailer.cli.monitor, mailer.cli.pause; print(*sys.modules)"
    argv = [sys.executable, "-c", source]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=elsewhere).stdout.split()
    assert not {"asyncio", "aiohttp", "prometheus_client", "ssl"} & set(loaded)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (("--version",), "mailer, version 0.1.0\n"),
        (("--help",), "Usage: mailer [OPTIONS] COMMAND"),
        (("spool", "--help"), "Usage: mailer spool [OPTIONS] COMMAND"),
    ],
)
def test_what_only_names_commands_loads_none(elsewhere: Path, asked: tuple[str, ...], answer: str) -> None:
    """Start-up: cron and shells start us often; what is not used is not imported."""
    source = (
        "import sys\nfrom mailer.cli import main\n"
        "try:\n    main()\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    )
    argv = [sys.executable, "-c", source, *asked]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=elsewhere)
    assert done.stdout.startswith(answer)
    loaded = set(done.stderr.split())
    assert not {"asyncio", "ssl", "aiosmtpd", "mailer.cli.serve", "mailer.cli.spool.ls"} & loaded
    assert not {"msgspec", "mailer.cli.setup"} & loaded


@pytest.mark.parametrize("words", [[], ["spool"], ["hosts"], ["dkim"], ["auth"], ["events"]])
def test_a_list_of_commands_says_of_each_what_its_own_help_says(words: list[str]) -> None:
    group: click.Command | None = cli
    for word in words:
        assert isinstance(group, LazyGroup)
        group = group.get_command(click.Context(group), word)
    assert isinstance(group, LazyGroup)
    context = click.Context(group)
    listed = group._listed(context).commands
    assert list(listed) == group.list_commands(context)
    assert set(listed) == set(group._summaries), "a listing must import no command"
    for name, brief in listed.items():
        command = group.get_command(context, name)
        assert command is not None
        assert brief.hidden == command.hidden
        for width in () if brief.hidden else (30, 45, 57, 75):
            assert brief.get_short_help_str(width) == command.get_short_help_str(width), name


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["serve", "--help"],
        ["up", "--help"],
        ["monitor", "--help"],
        ["user", "--help"],
        ["doctor", "--help"],
        ["config", "check"],
        ["providers"],
        ["log"],
        ["spool", "ls"],
        ["spool", "stats"],
    ],
)
def test_only_the_receiver_loads_what_receives(relay: Relay, command: list[str]) -> None:
    """aiosmtpd alone takes 20 to 70 ms; `up`, which starts the receiver, does without it too."""
    source = (
        "import sys\nfrom mailer.cli import main\n"
        "try:\n    main()\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    )
    queue(relay.spool)
    argv = [sys.executable, "-c", source, *command]
    done = relay._run(argv)
    assert done.returncode in {0, 1}, done.stderr
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "mailer.cli.main" in loaded
    assert not {"aiosmtpd", "mailer.receive.server", "aiohttp", "dkim"} & loaded


def test_serve_says_which_port_the_system_chose(relay: Relay) -> None:
    with relay._start([*MAILER, "serve", "--port", "0"], "serve") as process:

        def listens() -> bool:
            assert process.running, process.output()
            return "listening on 127.0.0.1:" in process.output()

        until(listens, "serve to say where it listens")
        port = int(process.output().split("listening on 127.0.0.1:")[1].split()[0].rstrip(","))
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            assert client.recv(100).startswith(b"220 ")
        assert process.stop() == 0


def test_a_port_in_use_is_one_sentence_and_69(relay: Relay) -> None:
    with socket.create_server(("127.0.0.1", relay.port)):
        done = relay.mailer("serve")
    assert done.returncode == 69
    assert f"cannot listen on 127.0.0.1:{relay.port}: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_ends_both_programs_at_one_signal(relay: Relay, number: signal.Signals) -> None:
    with relay.up() as process:
        until(lambda: "watching the spool" in process.output(), "the runner to watch")
        pids = children(process.pid)
        assert len(pids) == 2
        process.signal(number)
        assert process.wait() == 0
    assert all(map(gone, pids))
    assert process.output().count("ended") == 2


def test_up_that_gets_sigterm_while_it_starts_its_programs_ends_them_too(relay: Relay) -> None:
    with relay.starting("up") as process:
        pids = until(lambda: children(process.pid), "the first of them")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert all(map(gone, pids))


@pytest.mark.parametrize("victim", [0, 1])
def test_up_ends_when_one_of_its_programs_dies(relay: Relay, victim: int) -> None:
    with relay.up() as process:
        pids = children(process.pid)
        os.kill(pids[victim], signal.SIGKILL)
        assert process.wait() == 70
    assert all(map(gone, pids))
    assert "was ended by SIGKILL" in process.output()


def test_up_that_is_killed_leaves_no_orphan(relay: Relay) -> None:
    with relay.up() as process:
        until(lambda: "watching the spool" in process.output(), "the runner to watch")
        pids = children(process.pid)
        process.kill()
        until(lambda: all(map(gone, pids)), "the children to end")


def test_up_passes_on_why_its_receiver_could_not_start(relay: Relay) -> None:
    with socket.create_server(("127.0.0.1", relay.port)):
        done = relay.mailer("up")
    assert done.returncode == 69
    assert "Address already in use" in done.stderr
    assert "mailer serve ended with exit code 69" in done.stderr
