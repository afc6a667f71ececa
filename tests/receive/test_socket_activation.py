"""Sockets that a service manager opens and passes on: each has its listener, and outlives the receiver."""

import os
import re
import signal
import smtplib
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from inbound.receiving import CLOSED, OPEN, running
from testbed.clients import Submission, with_smtplib
from testbed.notify import NotifySocket
from testbed.ports import free_port
from testbed.process import ServerProcess
from testbed.relay import PASSWORD, USERNAME, Relay
from testbed.tools import program
from testbed.waiting import until

from mailer.cli.exits import Failure
from mailer.cli.service.activation import inherited, passed_on
from mailer.config.checks import refuse_to_serve
from mailer.config.load import load
from mailer.receive.listen.inherited import Inherited, NotConfiguredError, Waiting
from mailer.receive.listen.sockets import UnsafeSettingsError
from mailer.receive.settings import Address, Endpoint

MESSAGE = b"From: <app@example.com>\r\nSubject: hello\r\n\r\nOne line.\r\n"
MAIL = Submission(USERNAME, ("bob@example.net",), MESSAGE)


@contextmanager
def listening(*addresses: Address) -> Iterator[list[socket.socket]]:
    """Sockets as a manager has them; port 0 of a path is its own, of a host any that is free."""
    with ExitStack() as opened:
        sockets = []
        for host, port in addresses:
            family = socket.AF_UNIX if "/" in host else socket.AF_INET6 if ":" in host else socket.AF_INET
            each = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
            each.bind(host.replace("@", "\0") if "/" in host else (host, port))
            each.listen()
            sockets.append(each)
        yield sockets


@pytest.mark.parametrize(
    ("address", "name", "taken"),
    [
        # By address: a unit's own name means nothing.
        (("127.0.0.1", 0), "mailer.socket", ["smtp"]),
        # Who listens at 127.0.0.1 listens at ::1.
        (("::1", 0), "mailer.socket", ["smtp"]),
        (("127.0.0.2", 0), "mailer.socket", []),
        # By name, wherever that is.
        (("127.0.0.2", 0), "smtp", ["smtp"]),
        (("127.0.0.1", 0), "submissions", ["submissions"]),
        (("DIRECTORY/submit.sock", 0), "", ["submit"]),
        (("DIRECTORY//./submit.sock", 0), "", ["submit"]),
        (("DIRECTORY/other.sock", 0), "submit", ["submit"]),
        (("DIRECTORY/other.sock", 0), "", []),
        # The kernel knows no users of the network.
        (("127.0.0.1", 0), "submit", []),
        (("DIRECTORY/other.sock", 0), "smtp", []),
        (("@DIRECTORY", 0), "", []),
        (("@DIRECTORY", 0), "submit", ["submit"]),
    ],
)
def test_a_socket_is_the_listeners_that_has_its_name_or_else_its_address(
    address: Address, name: str, taken: list[str], tmp_path: Path
) -> None:
    host, port = address[0].replace("DIRECTORY", str(tmp_path)), address[1]
    with listening((host, port)) as sockets:
        mine = Inherited(sockets[0], name)
        waiting = Waiting([mine], ["smtp", "submissions", "submit"])
        found = [
            listener
            for listener, wanted in (
                ("smtp", ("127.0.0.1", mine.address[1])),
                ("submissions", ("192.0.2.1", 465)),
                ("submit", (f"{tmp_path}/submit.sock", 0)),
            )
            if waiting.pop(listener, [wanted], unix=listener == "submit")
        ]
        assert found == taken
        if taken:
            waiting.refuse_rest(["there"])
        else:
            with pytest.raises(
                NotConfiguredError, match=f"{re.escape(mine.written)}.*but at there: set Listen"
            ):
                waiting.refuse_rest(["there"])


def test_variables_that_mean_another_process_are_ignored_and_not_passed_on() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "smtp", "HOME": "/"}
    assert inherited(environ, parent=None) == ()
    assert environ == {"HOME": "/"}
    assert passed_on({"LISTEN_PID": "7", "LISTEN_FDS": "2"}, 6, 7) == 2
    with pytest.raises(Failure, match="not a number"):
        passed_on({"LISTEN_PID": "7", "LISTEN_FDS": "-1"}, 7)


@pytest.mark.parametrize(
    ("settings", "words"),
    [(CLOSED, "allowLocalOnly is on"), (replace(OPEN, local_only=False), "")],
    ids=["local only", "open"],
)
def test_a_socket_beyond_this_host_is_as_unsafe_as_a_listener(settings, words, tmp_path):
    with (
        listening(("0.0.0.0", 0)) as sockets,
        pytest.raises(UnsafeSettingsError, match=words or "open relay"),
        running(tmp_path, settings, inherited=(Inherited(sockets[0], "smtp"),)),
    ):
        pass


def test_a_listener_binds_only_what_was_not_passed_on(tmp_path):
    extra = Endpoint(port=0, name="extra")
    with listening(("127.0.0.1", 0)) as sockets:
        given = Inherited(sockets[0].dup(), "extra")
        with running(tmp_path, replace(OPEN, endpoints=(extra,)), inherited=(given,)) as server:
            host, port = given.address
            assert server.server.addresses.count((host, port)) == 1
            with smtplib.SMTP(host, port, timeout=60) as client:
                assert client.noop()[0] == 250
        # It outlives us.
        with socket.create_connection((host, port)):
            pass


@contextmanager
def stopping(directory: Path, quiet: float):
    """A client of a receiver that is ending, at a socket that outlives it."""
    settings = replace(OPEN, drain_quiet=quiet)
    with (
        listening(("127.0.0.1", 0)) as sockets,
        running(directory, settings, inherited=(Inherited(sockets[0].dup(), "smtp"),)) as server,
        socket.create_connection(server.address, timeout=60) as client,
        client.makefile("rb") as replies,
    ):
        assert replies.readline()[:3] == b"220"
        stop = threading.Thread(target=server.stop, args=(60,))
        stop.start()
        until(lambda: not server.server._listeners, "the receiver to stop listening")
        yield client, replies
        stop.join()


def test_a_client_in_the_middle_of_its_message_finishes_it(tmp_path):
    with stopping(tmp_path, quiet=60) as (client, replies):
        for command in (b"HELO x", b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.net>", b"DATA"):
            client.sendall(command + b"\r\n")
            assert replies.readline()[:3] in {b"250", b"354"}
        client.sendall(b"Subject: hello\r\n\r\nhello\r\n.\r\n")
        assert [reply[:9] for reply in replies.readlines()] == [b"250 2.0.0", b"421 4.3.2"]


def test_an_idle_client_is_notified_that_the_receiver_ends(tmp_path):
    with stopping(tmp_path, quiet=0) as (_, replies):
        assert [reply[:9] for reply in replies.readlines()] == [b"421 4.3.2"]


def test_two_listeners_of_one_name_are_refused(tmp_path: Path) -> None:
    relay = Relay(tmp_path, {"listeners": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]})
    relay.configure(
        {"listeners": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}, {"port": 3, "name": "submit"}]}
    )
    refused = [str(each) for each in refuse_to_serve(load(relay.config, {}))]
    assert [each.partition(":")[0] for each in refused] == ["$.listeners[1].name", "$.listeners[2].name"]


def activated(relay: Relay, *sockets: str, names: str = "", run: str = "serve") -> ServerProcess:
    """Start a program as systemd does when somebody connects."""
    environ = [f"-E{name}" for name in os.environ if name not in {"PATH", "TERM", "USER", "HOME"}]
    listen = [f"--listen={each}" for each in sockets]
    named = [f"--fdname={names}"] if names else []
    argv = [program("systemd-socket-activate"), *environ, *listen, *named, sys.executable, "-m", "mailer"]
    return ServerProcess([*argv, run, "--config", str(relay.config)], relay.directory / f"{run}.log")


def test_a_connection_starts_everything_and_is_served(tmp_path: Path) -> None:
    """`mailer up` passes the sockets on to the receiver, which finds each one's listener."""
    path = tmp_path / "submit.sock"
    relay = Relay(tmp_path, {"submitSocket": str(path), "localUsers": [{"login": "*", "user": USERNAME}]})
    with activated(relay, f"127.0.0.1:{relay.port}", str(path), names="mailer.socket:submit", run="up") as up:
        until(path.exists, "systemd-socket-activate to listen")
        assert with_smtplib(relay.server, MAIL, tmp_path).startswith("250")
        client = smtplib.SMTP()
        client.sock = socket.socket(socket.AF_UNIX)
        client.sock.connect(str(path))
        with client:
            assert client.getreply()[0] == 220
            client.sendmail(USERNAME, ["bob@example.net"], MESSAGE)
        until(lambda: len(relay.delivered()) == 2, "both in the Maildir")
    assert f"listening on 127.0.0.1:{relay.port}, {path}" in up.output()
    # The name is the manager's.
    assert path.exists()


def test_a_socket_that_no_listener_claims_is_refused_with_the_reason(tmp_path: Path) -> None:
    relay, other = Relay(tmp_path), free_port()
    with activated(relay, f"127.0.0.1:{other}") as program:
        program.await_port(other)
        assert program.wait() == 78
    said = program.output()
    assert f"listens at 127.0.0.1:{other}" in said
    assert f"but at 127.0.0.1:{relay.port}: set ListenStream=" in said


@pytest.mark.parametrize(
    ("what", "words"),
    [("</dev/null", "is not a socket"), ("<>/dev/udp/127.0.0.1/9", "does not listen for streams")],
)
def test_a_descriptor_that_does_not_listen_is_refused_in_words(what: str, words: str, relay: Relay) -> None:
    under = ["bash", "-c", f'export LISTEN_PID=$$ LISTEN_FDS=1; exec 3{what}; exec "$@"', "bash"]
    done = relay.mailer("serve", under=under)
    assert done.returncode == 78
    assert f"descriptor 3, which the service manager passed on, {words}" in done.stderr


SUPERVISOR = 'while (export LISTEN_PID=$BASHPID; exec "$@"); do :; done'


def test_a_restart_under_load_refuses_no_client_and_loses_nothing(tmp_path: Path) -> None:
    relay = Relay(tmp_path)
    restarted, failures, sent = threading.Event(), [], []

    def submit() -> None:
        while not restarted.is_set():
            try:
                client = smtplib.SMTP("127.0.0.1", relay.port, timeout=120)
                client.login(USERNAME, PASSWORD)
                client.sendmail(USERNAME, ["bob@example.net"], MESSAGE)
            except OSError as error:
                failures.append(repr(error))
                return
            sent.append(1)
            # The message is taken, so that this is not a loss.
            with suppress(OSError):
                client.quit()

    with NotifySocket(tmp_path) as notify, listening(("127.0.0.1", relay.port)) as sockets:
        held = sockets[0].fileno()
        os.set_inheritable(held, True)
        start = f"exec 3<&{held}; export LISTEN_FDS=1 NOTIFY_SOCKET={notify.address}; {SUPERVISOR}"
        argv = [
            "bash",
            "-c",
            start,
            "bash",
            sys.executable,
            "-m",
            "mailer",
            "serve",
            "--config",
            str(relay.config),
        ]
        clients = [threading.Thread(target=submit) for _ in range(4)]
        with ServerProcess(argv, tmp_path / "serve.log", pass_fds=[held]) as supervisor:
            for client in clients:
                client.start()
            pids = []
            for _ in range(3):
                ready = notify.next_with("READY=1")
                pids.append(int(ready.partition("MAINPID=")[2].partition("\n")[0]))
                before = len(sent)
                until(lambda before=before: failures or len(sent) > before + 8, "mail to be taken")
                if len(pids) < 3:
                    os.kill(pids[-1], signal.SIGTERM)
            restarted.set()
            for client in clients:
                client.join()
            supervisor.signal(signal.SIGKILL)
            os.kill(pids[-1], signal.SIGTERM)
    assert failures == []
    assert len(set(pids)) == 3
    assert len(list((relay.spool / "new").iterdir())) == len(sent)
