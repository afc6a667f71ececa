"""That every security case is tried by some test; and the cases that no other file has."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from outbound.hostile import Server
from outbound.internet import Internet
from outbound.sending import MESSAGE, forward_to, found, queue
from security_cases import CASES
from testbed.http_client import ask
from testbed.proc import children
from testbed.process import ServerProcess
from testbed.relay import Relay
from testbed.tools import program
from testbed.waiting import until

TESTS = Path(__file__).parents[1]


def marked() -> Iterator[int]:
    """The numbers in the marks of tests, in names of tests, and in names of dialogues."""
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.security_case":
                yield from (each.value for each in node.args if isinstance(each, ast.Constant))  # type: ignore[misc]
            elif isinstance(node, ast.FunctionDef):
                yield from map(int, re.findall(r"^test_security_case_(\d+)", node.name))
    for path in (TESTS / "dialogues").glob("*.txt"):
        yield from map(int, re.findall(r"^(?:smuggling-)?(\d+)-", path.name))
        # One dialogue may try several: "# Case 37 and 39: ...".
        first = re.match(r"# Cases? ([\d, and]+)", path.read_text())
        yield from map(int, re.findall(r"\d+", first[1]) if first else [])


def test_every_security_case_is_tried_and_every_mark_names_one() -> None:
    tried = Counter(marked())
    assert list(CASES) == list(range(1, len(CASES) + 1))
    assert CASES.keys() - tried.keys() == set()
    assert tried.keys() - CASES.keys() == set()


def test_one_command_runs_them() -> None:
    """`-k security_case` finds marks and names alike."""
    names = ("receive/test_receive_dialogues.py", "send/test_send_staging.py", "send/test_dkim_signer.py")
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    argv += ["-k", "security_case", *(str(TESTS / name) for name in names)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=TESTS.parent)
    assert "test_the_dialogue_goes_as_written[03-nul-in-a-command]" in done.stdout
    assert "test_security_case_110_nothing_of_the_original_envelope_leaves" in done.stdout
    assert "test_a_signature_says_what_it_should_and_has_no_length" in done.stdout
    assert "test_the_dialogue_goes_as_written[rate-limit]" not in done.stdout


BARE = (
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\n",
    b"\r.\r\n",
    b"\n.\r",
    b"\r\n.\r",
    b"\r\n.\r\r\n",
)


def test_security_case_032_what_was_put_into_the_spool_by_hand_is_not_smuggled(relay: Relay) -> None:
    """The receiver refuses a bare CR or LF; a file may have one all the same, and the wire may not."""
    second = b"MAIL FROM:<smuggler@example.org>\r\nRCPT TO:<v@example.org>\r\nDATA\r\nx\r\n"
    with Server() as server:
        relay.configure(forward_to(server))
        for sequence in BARE:
            queue(relay.spool, message=MESSAGE + b"A" + sequence + second)
        assert relay.mailer_send("--once").returncode == 0
        server.wait()
        assert [message.sender for message in server.messages] == ["app@example.com"] * len(BARE)
        for session in server.sessions:
            received = bytes(session.received).replace(b"\r\n", b"")
            assert b"\r" not in received
            assert b"\n" not in received


PATHS = [
    "../../etc/passwd",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%5c",
    "a/b",
    "*",
    "%00",
    "\x7f",
    "01" * 13 + "/x",
]


def test_security_case_085_an_id_that_is_a_path_finds_no_file(relay: Relay) -> None:
    queue(relay.spool)
    for name in PATHS[:1] + PATHS[2:5]:
        assert relay.mailer("spool", "show", "--", name).returncode == 2
    with relay.monitor():
        for name in PATHS:
            for path in (f"/message/{name}", f"/message/{name}/rm"):
                answer = ask(relay.http_port, path.replace("\x7f", "%7f"))
                assert answer.status in {400, 404}, path
                assert b"root:" not in answer.body


SECRET, FROM_ENVIRONMENT = "kept-in-the-configuration", "kept-in-the-environment"


def test_security_case_096_no_process_log_or_traceback_shows_a_secret(relay: Relay, monkeypatch) -> None:
    """Neither of ours: while all programs run, somebody fails to log in, and one of them breaks."""
    monkeypatch.setenv("PROVIDER_PASSWORD", FROM_ENVIRONMENT)
    with Server({"auth": "535 5.7.8 no"}, auth="PLAIN") as server:
        login = {"username": "relay@example.com", "password": {"env": "PROVIDER_PASSWORD"}}
        relay.configure(
            {
                "defaultPassword": SECRET,
                "adminToken": f"{SECRET}-token-{SECRET}",
                "forwardSMTP": True,
                "forwardProviders": [{"host": "127.0.0.1", "port": server.port, **login}],
                "enableHealthCheck": True,
                "healthCheckPort": relay.http_port,
            }
        )
        queue(relay.spool)
        with relay.up() as process:
            until(lambda: server.sessions and "535" in process.output(), "the login to be refused")
            running = [process.pid, *children(process.pid)]
            shown = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in running).decode()
            assert process.running
            shown += process.output()
    assert len(running) == 4
    # A defect of ours that has the configuration in its hands prints a traceback.
    defect = """
import os, pathlib
from mailer.config.load import load
raise RuntimeError(load(pathlib.Path(os.environ["MAILER_CONFIG"]), os.environ).config)
"""
    crashed = relay._run([sys.executable, "-c", defect])
    assert "RuntimeError: Config(" in crashed.stderr
    ledger = "".join(path.read_text() for path in relay.spool.rglob("*.jsonl"))
    for text in (shown, crashed.stderr, ledger):
        assert FROM_ENVIRONMENT not in text
        assert SECRET not in text


SQUATTER = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    client, _ = server.accept()
    client.sendall(b"220 vm ESMTP mailer\\r\\n")
    for line in client.makefile("rb"):
        print(line, flush=True)
        client.sendall(b"250-vm\\r\\n250 AUTH PLAIN LOGIN\\r\\n" if line[:4] == b"ehlo" else b"235 ok\\r\\n")
print("told all", flush=True)
"""


def test_security_case_106_mailer_test_tells_another_users_program_no_password(relay: Relay) -> None:
    """It has taken the port of 127.0.0.1, too, while the receiver does not run; our own is believed."""
    nobody = (program("setpriv"), "--reuid", "65534", "--regid", "65534", "--clear-groups")
    # Of the system: the tests' own interpreter may be where nobody may look.
    argv = [*nobody, "/usr/bin/python3", "-c", SQUATTER, str(relay.port)]
    with ServerProcess(argv, relay.directory / "squatter", cwd=Path("/")) as squatter:
        until(lambda: listens(relay.port), "the other program to listen")
        done = relay.mailer("test", "--to", "bob@example.net", "--wait", "1s")
        assert done.returncode == 69, done.stderr
        assert "a program of user id 65534 answers at" in done.stderr
        until(lambda: "told all" in squatter.output(), "the other program to see the end")
        assert "AUTH" not in squatter.output().upper()
    with relay.up():
        done = relay.mailer("test", "--to", "bob@example.net")
    assert "accepted by mailer serve" in done.stdout, done.stderr


def test_security_case_106_doctor_believes_no_banner(relay: Relay) -> None:
    nobody = (program("setpriv"), "--reuid", "65534", "--regid", "65534", "--clear-groups")
    argv = [*nobody, "/usr/bin/python3", "-c", SQUATTER, str(relay.port)]
    with ServerProcess(argv, relay.directory / "squatter", cwd=Path("/")):
        until(lambda: listens(relay.port), "the other program to listen")
        examined = relay.mailer("doctor").stdout
    assert "another program answers, of user id 65534: 220 vm ESMTP mailer" in examined


def listens(port: int) -> bool:
    """Without connecting: it takes one client."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(f":{port:04X}" in line.split()[1] and line.split()[3] == "0A" for line in lines)


# As zone files write them: a literal without end, NUL, a quote, a dash, the longest label and name.
NAMES = [
    "[evil.test.",
    "\\000.test.",
    '\\".test.',
    "-.test.",
    f"{'a' * 63}.test.",
    f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}.",
]


@pytest.mark.parametrize("exchanger", NAMES)
def test_security_case_114_an_exchangers_name_that_is_none_is_that_destinations_trouble(
    relay: Relay, exchanger: str
) -> None:
    zone = {("one.test", "MX"): [f"10 {exchanger}"], ("two.test", "MX"): ["10 mx.two.test."]}
    zone |= {("mx.two.test", "A"): ["127.0.0.2"]}
    with Internet.of(zone) as internet:
        good = internet.server("127.0.0.2")
        relay.configure(internet.settings())
        message_id = queue(relay.spool, ["a@one.test", "b@two.test"])
        done = relay.mailer_send("--once")
        assert done.returncode == 0, done.stderr
        assert "defect" not in done.stderr
    assert good.delivered() == [("b@two.test", MESSAGE)]
    left = found(relay.spool, message_id)
    assert left is not None
    assert left.statuses["b@two.test"] == "sent"
    assert left.statuses["a@one.test"] in {"deferred", "bounced"}
