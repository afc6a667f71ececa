"""Submission by HTTP through the real programs: the guide's curl, kills, memory, a reload."""

import json
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from inbound.submitting import BEARER, ENVELOPE, MAIL, MESSAGE, MESSAGES, RAW, ask, told
from testbed.ports import free_port
from testbed.relay import Relay
from testbed.tools import program
from testbed.waiting import until

from mailer.config.checks import refuse_to_serve
from mailer.config.load import load

GUIDE = Path(__file__).parents[2] / "mailer" / "guide" / "http.md"


@pytest.fixture
def door(relay: Relay) -> int:
    """The port of its HTTP door, switched on."""
    port = free_port()
    relay.configure({"submitHttp": {"enabled": True, "port": port}})
    return port


def token_of(relay: Relay, user: str) -> dict[str, str]:
    made = relay.mailer("user", "token", user, "--allow", "*")
    assert made.returncode == 0, made.stderr
    return {"Authorization": f"Bearer {made.stdout.strip()}"}


def test_the_guides_curl_lines_submit_and_their_user_learns_what_became_of_the_mail(
    relay: Relay, door: int
) -> None:
    lines = [line.strip() for line in GUIDE.read_text().splitlines() if "8026/v1/messages" in line]
    lines = [
        line.replace("localhost:8026", f"localhost:{door}") for line in lines if line.startswith("curl ")
    ]
    assert len(lines) == 2
    shop, other = token_of(relay, "shop"), token_of(relay, "other")
    (relay.directory / "shop.header").write_text(f"Authorization: {shop['Authorization']}\n")
    (relay.directory / "mail.eml").write_bytes(MESSAGE)
    with relay.serve() as serving:
        serving.await_port(door)
        ids = [json.loads(in_shell(line, relay.directory))["id"] for line in lines]
        for each in ids:
            state = told(ask(door, f"{MESSAGES}/{each}", headers=shop))
            assert (state["state"], state["recipients"][0]["status"]) == ("new", "pending")
        found = json.loads(relay.mailer("spool", "show", "--json", ids[1]).stdout)
        assert {key: found[key] for key in ("id", "state", "sender", "size", "received")} == {
            key: state[key] for key in ("id", "state", "sender", "size", "received")
        }
        assert "the receiver answers: submitHttp" in relay.mailer("doctor", "--offline", "--all").stdout
        assert relay.mailer_send("--once").returncode == 0
        for each in ids:
            state = told(ask(door, f"{MESSAGES}/{each}", headers=shop))
            assert (state["state"], state["recipients"][0]["status"]) == ("delivered", "sent")
            assert ask(door, f"{MESSAGES}/{each}", headers=other).status == 404
        assert ask(door, f"{MESSAGES}/{'0' * 26}", headers=shop).status == 404
    assert len(relay.delivered()) == 2


def in_shell(line: str, directory: Path) -> str:
    assert shlex.split(line)[0] == "curl"
    quiet = line.replace("curl ", f"{program('curl')} --silent --show-error --max-time 300 ", 1)
    return subprocess.run(quiet, shell=True, check=True, capture_output=True, text=True, cwd=directory).stdout


def test_every_202_of_a_receiver_that_is_killed_is_in_the_spool_and_keys_double_nothing(
    relay: Relay, door: int
) -> None:
    """Each client submits until its mail is taken; the receiver dies while they do, three times."""
    headers = token_of(relay, "shop")
    taken: dict[str, str] = {}
    ending = threading.Event()

    def submit(name: int) -> None:
        at = 0
        while not ending.is_set():
            key = f"{name}-{at}"
            with suppress(OSError, ValueError, EOFError):
                mail = json.dumps(MAIL | {"subject": key}).encode()
                keyed = headers | {"Content-Type": "application/json", "Idempotency-Key": key}
                answer = ask(door, MESSAGES, "POST", keyed, mail)
                if answer.status == 202:
                    taken[key] = told(answer)["id"]
                    at += 1

    clients = [threading.Thread(target=submit, args=(name,)) for name in range(4)]
    for client in clients:
        client.start()
    try:
        for _ in range(3):
            with relay.serve() as serving:
                before = len(taken)
                until(lambda before=before: len(taken) >= before + 12, "mail to be taken")  # type: ignore[misc]
                serving.kill()
        with relay.serve():
            until(lambda: len(taken) >= before + 12, "mail to be taken")
            ending.set()
            for client in clients:
                client.join()
    finally:
        ending.set()
        for client in clients:
            client.join()
    queued = {path.name: path.read_bytes() for path in (relay.spool / "new").iterdir()}
    assert set(taken.values()) <= queued.keys()
    subjects = [
        line for each in queued.values() for line in each.split(b"\r\n") if line.startswith(b"Subject")
    ]
    assert len(set(subjects)) == len(subjects)
    # What was taken and not told is at most one mail of each client.
    assert len(queued) <= len(taken) + len(clients)


def test_memory_does_not_grow_with_the_messages_that_are_under_way(relay: Relay, door: int) -> None:
    headers = token_of(relay, "shop") | RAW
    lines, clients = 120_000, 8

    def body() -> Iterator[bytes]:
        yield MESSAGE
        for _ in range(lines // 500):
            yield (b"x" * 98 + b"\r\n") * 500

    with relay.serve() as serving:
        serving.await_port(door)
        assert ask(door, ENVELOPE, "POST", headers, MESSAGE).status == 202
        before = peak(serving.pid)
        answers: list[int] = []

        def submit(chunked: bool) -> None:  # noqa: FBT001 - of a thread
            whole = body() if chunked else b"".join(body())
            answers.append(ask(door, ENVELOPE, "POST", headers, whole).status)

        threads = [threading.Thread(target=submit, args=(at % 2 == 0,)) for at in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [202] * clients
        # All of them at once are 96 MB. Each may have a megabyte in buffers.
        assert peak(serving.pid) - before < 48 * 2**20


def peak(pid: int) -> int:
    """The most memory that a process has had, in octets."""
    [line] = [each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmHWM" in each]
    return int(line.split()[1]) * 1024


def test_a_reload_says_that_the_place_changes_with_a_restart_alone(relay: Relay, door: int) -> None:
    with relay.serve() as serving:
        serving.await_port(door)
        relay.configure({"submitHttp": {"enabled": True, "port": door, "names": ["mail.example"]}})
        done = relay.mailer("reload", "--json")
        assert json.loads(done.stdout)["restart"] == []
        named = BEARER | {"Host": "mail.example"}
        assert ask(door, "/v1/openapi.json", headers=named).status == 200
        relay.configure({"submitHttp": {"enabled": False, "port": door}})
        done = relay.mailer("reload", "--json")
        assert json.loads(done.stdout)["restart"] == ["submitHttp"]
        assert ask(door, "/v1/openapi.json", headers=named).status == 403


@pytest.mark.parametrize(
    ("keys", "problems"),
    [
        ({"submitHttp": {"enabled": True}}, []),
        ({"submitHttp": {"enabled": True, "host": "::1"}}, []),
        ({"submitHttp": {"enabled": True, "host": "0.0.0.0"}}, ["$.submitHttp.host", "$.submitHttp.tls"]),
        ({"submitHttp": {"enabled": False, "host": "0.0.0.0"}}, []),
        ({"submitHttp": {"enabled": True, "tls": True}}, ["$.submitHttp.tls"]),
        (
            {"submitHttp": {"enabled": True, "host": ""}, "security": {"allowLocalOnly": False}},
            ["$.submitHttp.tls"],
        ),
        ({"submitHttp": {"enabled": True}, "listeners": [{"name": "http"}]}, ["$.listeners[0].name"]),
    ],
)
def test_config_check_refuses_a_door_that_would_show_tokens_or_be_out_of_reach(
    keys: dict[str, Any], problems: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.touch(mode=0o600)
    login = {"defaultUsername": "app@example.com", "defaultPassword": "correct horse battery"}
    path.write_text(json.dumps(login | keys))
    assert [found.path for found in refuse_to_serve(load(path, {}))] == problems


def test_who_does_not_ask_for_http_pays_nothing_for_it() -> None:
    code = "import sys, mailer.cli.receiving.daemon; print({'aiohttp', 'email.policy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
