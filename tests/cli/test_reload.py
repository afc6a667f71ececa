"""A corrected configuration is taken up by every program that stays, by SIGHUP and by `mailer reload`."""

import os
import signal
import sys
import threading
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from outbound.hostile import Action, Server, Session
from outbound.sending import MESSAGE, SENDER, TO, forward_to, queue
from spools.walk import walk
from testbed.http_client import ask
from testbed.proc import children, gone
from testbed.relay import ADMIN_TOKEN, Relay
from testbed.terminal import Terminal
from testbed.tools import program
from testbed.waiting import until

READ = "the configuration was read again"
RIGHT = "the right one"


def provider(server: Server, password: str) -> dict[str, Any]:
    login = {"name": "Acme", "host": "127.0.0.1", "port": server.port, "username": "relay"}
    return forward_to(forwardProviders=[{**login, "password": password}])


def picky() -> Server:
    """A server that takes one password alone."""
    proof = b64encode(f"\0relay\0{RIGHT}".encode())

    def judge(_: Session, line: bytes) -> Action:
        return None if proof in line else "535 5.7.8 Username and Password not accepted"

    return Server({"auth": judge}, auth="PLAIN")


@pytest.mark.parametrize("program", ["watch", "up"])
def test_the_advice_that_why_gives_for_a_refused_login_mends_it(program: str, relay: Relay) -> None:
    """Followed to the letter: the password, `mailer reload`, `mailer spool retry --all`."""
    with picky() as server:
        relay.configure(provider(server, "a wrong one"))
        message = queue(relay.spool)
        with relay.watch() if program == "watch" else relay.up() as running:
            until(lambda: list(relay.spool.glob(f"retry/*/{message}")), "the first attempt")
            told = relay.mailer("spool", "why", message).stdout
            assert "correct `username` and `password` in $.forwardProviders" in told
            assert "`mailer reload`" in told
            relay.configure(provider(server, RIGHT))
            done = relay.mailer("reload")
            assert done.returncode == 0, done.stdout + done.stderr
            assert f"read {relay.config} again" in done.stdout
            assert done.stdout.count("(pid ") == (1 if program == "watch" else 2)
            assert READ in running.output()
            assert relay.mailer("spool", "retry", "--all").returncode == 0
            until(lambda: walk(relay.spool) == {}, "the mail to be sent")
        assert [to for to, _ in server.delivered()] == [TO]


def test_sighup_ends_none_of_them(relay: Relay) -> None:
    """Each alone, and `up`, which passes it on to all three."""
    relay.configure({"enableHealthCheck": True, "healthCheckPort": relay.http_port})
    with relay.up() as up:
        up.signal(signal.SIGHUP)
        until(lambda: up.output().count(READ) == 3, "all three to read it")
        with relay.connect() as client:
            client.sendmail(SENDER, [TO], MESSAGE)
        until(lambda: len(relay.delivered()) == 1, "mail")
        assert up.stop() == 0
    assert not list(relay.spool.glob("state/program-*"))


def test_what_is_in_hand_is_finished_by_the_runner_that_has_it(relay: Relay) -> None:
    """One message is at the dot when the new runner takes over; it is sent once, and nothing waits for it."""
    at_the_dot, answer = threading.Event(), threading.Event()

    def hesitate(*_: object) -> str:
        at_the_dot.set()
        answer.wait(60)
        return "250 2.0.0 queued"

    with Server({"dot": hesitate}) as old, Server() as new:
        relay.configure(forward_to(old))
        first = queue(relay.spool)
        with relay.watch() as runner:
            assert at_the_dot.wait(60)
            relay.configure(forward_to(new))
            assert relay.mailer("reload").returncode == 0
            second = queue(relay.spool, ["eve@example.org"])
            until(new.delivered, "the second message, by the new runner")
            until(lambda: second not in walk(relay.spool), "the second message to be gone")
            assert first in walk(relay.spool)
            answer.set()
            until(lambda: walk(relay.spool) == {}, "the first message")
            assert runner.stop() == 0
        assert [to for to, _ in old.delivered()] == [TO]
        assert [to for to, _ in new.delivered()] == ["eve@example.org"]


def test_a_configuration_that_cannot_be_used_changes_nothing_and_ends_with_78(relay: Relay) -> None:
    with relay.watch() as runner:
        until(lambda: list(relay.spool.glob("state/program-*")), "the runner")
        good = relay.config.read_text()
        relay.config.write_text('{"retry": {"shedule": ["1m"]}}')
        done = relay.mailer("reload")
        assert done.returncode == 78
        assert "shedule" in done.stderr
        assert READ not in runner.output()
        runner.signal(signal.SIGHUP)
        until(lambda: "the old one stays" in runner.output(), "the refusal")
        relay.config.write_text(good)
        queue(relay.spool)
        until(lambda: len(relay.delivered()) == 1, "mail")


def test_health_names_what_the_next_start_would_refuse(relay: Relay) -> None:
    """The mistake was found when the host had rebooted at night and mailer did not start."""

    def judged() -> dict[str, str]:
        told = ask(relay.http_port, "/health").json
        assert told["status"] in {"ok", "degraded"}
        return dict(told["checks"]["configuration"])

    with relay.monitor():
        good = relay.config.read_text()
        assert judged()["status"] == "ok"
        relay.config.write_text('{"retry": {"shedule": ["1m"]}, "smtpPort": "x"}')
        bad = judged()
        assert bad["status"] == "degraded"
        assert "$.smtpPort" in bad["message"]
        assert "and 1 more" in bad["message"]
        relay.config.unlink()
        assert "No such file" in judged()["message"]
        relay.config.write_text(good)
        relay.config.chmod(0o600)
        assert judged()["status"] == "ok"


def test_what_counts_after_a_restart_alone_is_said(relay: Relay, tmp_path: Path) -> None:
    relay.configure({"alerts": {"failedMoreThan": 5}})
    with relay.monitor(), relay.serve() as receiver:
        changed = {"smtpPort": 1, "healthCheckPort": 2, "submitSocket": str(tmp_path / "submit.sock")}
        relay.configure(changed | {"adminToken": "another-token-that-is-good"})
        done = relay.mailer("reload")
        assert done.returncode == 0, done.stdout
        assert "restart it for submitSocket, smtpPort\n" in done.stdout
        assert "restart it for healthCheckPort" in done.stdout
        assert "the changed listen addresses take effect only after a restart" in receiver.output()
        old, new = ({"Authorization": f"Bearer {t}"} for t in (ADMIN_TOKEN, "another-token-that-is-good"))
        assert ask(relay.http_port, "/admin/config", headers=old).status in {401, 403}
        assert ask(relay.http_port, "/admin/config", headers=new).status == 200


def test_without_a_program_there_is_nothing_to_reload(relay: Relay) -> None:
    queue(relay.spool)
    dead = relay.spool / "state" / "program-1-1"
    dead.write_text("{}")
    done = relay.mailer("reload")
    assert done.returncode == 69
    assert "there is nothing to reload" in done.stderr
    assert not dead.exists()


@pytest.mark.parametrize("program", ["up", "serve", "mailer-send"])
def test_a_terminal_that_closes_ends_what_runs_in_it(relay: Relay, program: str) -> None:
    """SIGHUP means both: to read the configuration again, and, once the terminal has gone, to end."""
    with Terminal(command(program, relay), env={}, cwd=relay.directory) as terminal:
        terminal.await_text(*(said for by, said in WORKS if program in {"up", by}))
        started = children(terminal.pid)
        os.kill(terminal.pid, signal.SIGHUP)
        terminal.await_text(READ)
        terminal.close()
        assert terminal.await_end() == 0
        until(lambda: all(map(gone, started)), "its children to end")


def test_nohup_keeps_programs_working_when_their_terminal_closes(relay: Relay) -> None:
    argv = [program("nohup"), *command("up", relay)]
    shown = relay.directory / "nohup.out"
    with Terminal(argv, env={}, cwd=relay.directory) as terminal:
        until(lambda: shown.exists() and all(said in shown.read_text() for _, said in WORKS), "all to work")
        started = children(terminal.pid)
        terminal.close()
        os.kill(terminal.pid, signal.SIGHUP)
        until(lambda: shown.read_text().count(READ) >= len(started), "each to read its configuration again")
        assert not any(map(gone, started))
        with relay.connect() as client:
            assert client.noop()[0] == 250
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.await_end() == 0


WORKS = (("serve", "listening on"), ("mailer-send", "watching the spool"))


def command(name: str, relay: Relay) -> list[str]:
    named = ["--config", str(relay.config)]
    if name == "mailer-send":
        return [sys.executable, "-m", "mailer.cli.send", "--watch", *named]
    return [sys.executable, "-m", "mailer", name, *named]
