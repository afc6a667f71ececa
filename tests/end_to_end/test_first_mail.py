"""A newcomer's first mail: `mailer init` writes what is needed, and `mailer test` tells what came of it."""

import json
import os
import ssl
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from outbound.hostile import Server
from outbound.sending import SENDER, TO, forward_to
from testbed.ports import free_port as draw_port
from testbed.process import ServerProcess
from testbed.relay import Relay
from testbed.terminal import Terminal
from testbed.tools import program
from testbed.waiting import until

from mailer.config.load import OVERRIDES

PASSWORD = "correct horse at the provider"
APPLICATIONS = Path(__file__).resolve().parents[2] / "mailer" / "guide" / "applications.md"
MAILER = str(Path(sys.executable).with_name("mailer"))


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """A certificate authority that this host trusts."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return made


@pytest.fixture
def provider(authority: trustme.CA) -> Iterator[Server]:
    """A provider as most are: STARTTLS with a good certificate, and a login."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with Server(tls=context, auth="PLAIN") as server:
        yield server


class Newcomer:
    """Somebody in an empty directory, with mailer's programs and nothing else."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.config = directory / "config.json"
        self.environment = {name: value for name, value in os.environ.items() if name not in OVERRIDES}
        self.environment["MAILER_CONFIG"] = str(self.config)

    def types(self, *arguments: str, given: str = "", code: int = 0) -> str:
        """Run `mailer ARGUMENTS`; return all that it prints."""
        done = subprocess.run(
            [MAILER, *arguments],
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.directory,
            env=self.environment,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def up(self, port: int) -> ServerProcess:
        process = ServerProcess(
            [MAILER, "up"], self.directory / "up.log", env=self.environment, cwd=self.directory
        )
        process.await_port(port)
        return process


@pytest.fixture
def newcomer(tmp_path: Path, authority: trustme.CA) -> Newcomer:
    assert authority, "its programs are to trust it"
    return Newcomer(tmp_path / "home")


def test_init_up_and_test_end_with_a_mail_that_the_provider_took(
    newcomer: Newcomer, provider: Server, free_port: int
) -> None:
    shown = newcomer.types(
        "init",
        f"--sender={SENDER}",
        f"--port={free_port}",
        "--provider=localhost",
        f"--provider-port={provider.port}",
        given=f"{PASSWORD}\n",
    )
    written = json.loads(newcomer.config.read_text())
    assert newcomer.config.stat().st_mode & 0o777 == 0o600
    assert f"EMAIL_PORT={free_port}" in shown
    assert written["defaultPassword"] in shown
    assert PASSWORD not in shown
    with newcomer.up(free_port):
        told = newcomer.types("test", "--to", TO)
        assert f"Sent: localhost[127.0.0.1]:{provider.port} took it" in told
        assert "TLSv1.3" in told
        dialogue = newcomer.types("test", "--to", TO, "--dialogue")
    assert [to for to, _ in provider.delivered()] == [TO, TO]
    login = b64encode(f"\0{SENDER}\0{PASSWORD}".encode())
    assert all(login in session.received for session in provider.sessions)
    for line in ("C: STARTTLS", "C: AUTH PLAIN ***", f"C: RCPT TO:<{TO}>", "S: 354", "C: (the message and"):
        assert line in dialogue
    assert login.decode() not in dialogue
    assert PASSWORD not in dialogue
    # Both are in the ledger, as any other mail.
    assert newcomer.types("log", "--to", TO, "--status", "sent").count(" sent ") == 2


def test_init_asks_six_questions_at_a_terminal_and_shows_no_password(
    newcomer: Newcomer, free_port: int
) -> None:
    answers = (
        ("Address", "not an address\r"),
        ("not an address such as", f"{SENDER}\r"),
        ("Port on this host", f"{free_port}\r"),
        ("SMTP server", "smtp.example.net\r"),
        ("Its port", "465\r"),
        ("Login there", "\r"),
        ("Password there", f"{PASSWORD}\r"),
    )
    with Terminal([MAILER, "init"], env=newcomer.environment, cwd=newcomer.directory) as terminal:
        for question, answer in answers:
            until(lambda question=question: question in terminal.screen(), question)  # type: ignore[misc]
            terminal.press(answer)
        until(newcomer.config.exists, "the configuration")
        until(lambda: "config keys" in terminal.screen(), "the end")
        assert PASSWORD not in terminal.screen()
    written = json.loads(newcomer.config.read_text())
    assert written["forwardProviders"] == [
        {"host": "smtp.example.net", "ssl": True, "port": 465, "username": SENDER, "password": PASSWORD}
    ]
    assert newcomer.types("config", "check").endswith("can be used\n")


def test_the_guides_curl_line_takes_a_file_with_unix_line_ends(relay: Relay, tmp_path: Path) -> None:
    row = next(line for line in APPLICATIONS.read_text().splitlines() if line.startswith("| curl |"))
    mail = tmp_path / "mail"
    mail.write_text("From: <app@example.com>\nSubject: by curl\n\none\ntwo\n")
    login = f"{relay.server.username}:{relay.server.password}"
    meant = {"FILE": str(mail), "U:P": login, "A": SENDER, "B": TO}
    words = [meant.get(word, word) for word in row.split("`")[1].split()]
    with relay.serve():
        words = [word.replace("127.0.0.1:25", f"127.0.0.1:{relay.port}") for word in words]
        subprocess.run([program("curl"), "--silent", "--show-error", *words[1:]], check=True, timeout=300)
    assert len(list((relay.spool / "new").iterdir())) == 1


def test_init_does_not_touch_a_file_that_is_there(newcomer: Newcomer) -> None:
    newcomer.config.write_text("{}")
    assert "exists already" in newcomer.types("init", f"--sender={SENDER}", "--local", code=73)
    assert newcomer.config.read_text() == "{}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--local",), "--sender is needed"),
        ((f"--sender={SENDER}",), "--provider is needed"),
        (("--sender=app", "--local"), "not an address such as"),
        ((f"--sender={SENDER}", "--provider=smtp.example.net"), "is read from standard input"),
    ],
)
def test_init_without_a_terminal_says_which_answer_is_missing(
    newcomer: Newcomer, arguments: tuple[str, ...], said: str
) -> None:
    assert said in newcomer.types("init", *arguments, code=2)
    assert not newcomer.config.exists()


def test_a_test_mail_reports_a_missing_receiver_and_then_a_missing_runner(relay: Relay) -> None:
    done = relay.mailer("test", "--to", TO)
    assert done.returncode == 69
    assert "Start it: mailer up" in done.stderr
    with relay.serve():
        done = relay.mailer("test", "--to", TO, "--wait", "1")
        assert done.returncode == 75
        assert (
            "pending (not tried yet). If no runner is at work, start one: mailer-send --watch" in done.stdout
        )
        done = relay.mailer("test", "--to", TO, "--user", "shop")
        assert (done.returncode, "its password is read from standard input" in done.stderr) == (2, True)
        relay.mailer("pause")
        done = relay.mailer("test", "--to", TO)
        assert (done.returncode, "mailer resume" in done.stdout) == (75, True)


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ({"rcpt": "550 5.1.1 no such user"}, 1, "Refused permanently"),
        ({"rcpt": "451 4.7.1 come back"}, 75, "What it means: mailer spool why 0"),
    ],
)
def test_a_test_mail_through_one_provider_prints_its_reply_and_leaves_nothing(
    relay: Relay, script: dict[str, str], code: int, said: str
) -> None:
    with Server() as first, Server(script) as second:
        settings = forward_to(first, second)
        settings["forwardProviders"][1]["name"] = "backup"
        relay.configure(settings)
        with relay.serve():
            done = relay.mailer("test", "--to", TO, "--provider", "backup")
            told = json.loads(
                relay.mailer("test", "--to", TO, "--provider", "backup", "--dialogue", "--json").stdout
            )
        assert said in told["meaning"]
        assert told["status"] == told["events"][-1]["event"]
        assert (done.returncode, said in done.stdout) == (code, True), done.stdout + done.stderr
        assert not first.sessions
        assert script["rcpt"] in done.stdout
        assert "next attempt" not in done.stdout, "it is tried once"
    assert relay.mailer("spool", "ls").stdout == ""
    # The last line names a command that can be typed as it stands.
    told = relay.mailer(*done.stdout.split(": mailer ")[-1].split())
    assert (told.returncode, script["rcpt"] in told.stdout) == (0, True), told.stdout + told.stderr
    assert script["rcpt"] in relay.mailer("log", "--to", TO).stdout


def test_a_test_mail_names_the_providers_there_are(relay: Relay) -> None:
    relay.configure(forward_to(draw_port()))
    done = relay.mailer("test", "--to", TO, "--provider", "elsewhere")
    assert done.returncode == 2
    assert "there are: 127.0.0.1" in done.stderr
    # Nothing was queued, and no spool made.
    assert not relay.spool.exists()


def test_a_test_mail_by_direct_delivery_asks_the_name_server(relay: Relay, free_port: int) -> None:
    relay.configure({"dns": {"nameservers": [f"127.0.0.1:{free_port}"], "timeout": "1s"}})
    done = relay.mailer("test", "--to", TO, "--direct", "--dialogue")
    assert done.returncode == 75
    assert "example.net" in done.stdout
