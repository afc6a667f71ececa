"""What `mailer doctor` prints: problems first, what to do, and progress on a terminal."""

import os
import subprocess
import sys

from outbound.examined import EGRESS, through
from outbound.hostile import HANG, Server
from outbound.signing import DOMAIN
from testbed.name_server import NameServer
from testbed.relay import Relay
from testbed.terminal import Terminal


def test_text_says_what_was_checked_what_was_found_and_what_to_do(direct: Relay, server: NameServer) -> None:
    del server.zone["25.2.0.192.in-addr.arpa", "PTR"]
    done = direct.mailer("doctor", "--all", "--resolver", str(server), "--egress", EGRESS)
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if " ptr " in line)
    assert lines[at] == f"  problem ptr        {EGRESS}: no PTR record: large receivers refuse mail from it"
    assert lines[at + 1].strip().startswith("to do: ask the owner of the address")
    assert lines[-1].startswith("1 problem, ")
    assert [line for line in lines if not line.startswith(" ")][:-1] == [
        "configuration",
        "files",
        "spool",
        "queue",
        "clock",
        "ports",
        "direct delivery",
        f"domain {DOMAIN}",
        "signing",
    ]


def test_on_a_terminal_it_says_what_it_waits_for(relay: Relay) -> None:
    with Server({"banner": HANG}) as server:
        through(relay, server.port)
        argv = [sys.executable, "-m", "mailer", "doctor", "--all", "--config", str(relay.config)]
        with Terminal(argv, env={}, cwd=relay.directory) as terminal:
            terminal.await_text("... provider p")
            assert "clock" in terminal.screen()


def test_a_reader_may_close_the_pipe_before_the_end(relay: Relay) -> None:
    """Its probe's files are removed, and sessions ended, although the reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    argv = [sys.executable, "-m", "mailer", "doctor", "--offline", "--config", str(relay.config)]
    done = subprocess.run(argv, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    assert list(relay.directory.iterdir()) == [relay.config]


def test_problems_come_first_and_all_that_is_ok_is_one_line(direct: Relay, server: NameServer) -> None:
    del server.zone["25.2.0.192.in-addr.arpa", "PTR"]
    done = direct.mailer("doctor", "--resolver", str(server), "--egress", EGRESS)
    lines = done.stdout.splitlines()
    assert lines[0] == f"  problem ptr        {EGRESS}: no PTR record: large receivers refuse mail from it"
    [fine] = [line for line in lines if line.startswith("  ok")]
    assert fine == lines[-2]
    assert " checks: configuration, " in fine


def test_a_dead_name_server_is_one_problem_that_names_it(direct: Relay, free_port: int) -> None:
    """Not six symptoms, and no order to try again."""
    dead = f"127.0.0.1:{free_port}"
    direct.configure({"dns": {"nameservers": [dead], "timeout": "1s"}})
    done = direct.mailer("doctor", "--egress", EGRESS)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"  problem dns        {dead}: gave no usable answer, and so ")
    assert f"to do: repair {dead}, or set another one in dns.nameservers" in lines[1]
    assert done.stdout.count("did not answer in time") == 1
    assert "try again" not in done.stdout
