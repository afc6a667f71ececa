"""`mailer hosts`, as operators of several hosts type it: real programs on machines of their own.

A machine is a mount namespace with its own /etc/machine-id; the directory that they share is a local one.
"""

import json
import signal
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from outbound.hostile import HANG, Server, reached
from testbed.hosts import Host, deliveries, send
from testbed.http_client import ask
from testbed.machines import machine
from testbed.ports import LOOPBACK
from testbed.waiting import until

from mailer.cli.exits import Exit


@pytest.fixture
def a(tmp_path: Path, shared: Path, hop: Server) -> Host:
    return Host(tmp_path / "a", "a", shared, hop.port)


@pytest.fixture
def b(tmp_path: Path, shared: Path, hop: Server) -> Host:
    return Host(tmp_path / "b", "b", shared, hop.port)


def begun(host: Host) -> int:
    """Return the code of the reply to MAIL."""
    with host.connect() as client:
        return client.mail("app@example.com")[0]


def test_no_program_works_on_a_directory_that_its_host_has_not_joined(a: Host, b: Host, shared: Path) -> None:
    for program in (("serve",), ("send", "--once")):
        done = a.mailer(*program, under=a.here)
        assert done.returncode in {Exit.UNAVAILABLE, Exit.TEMPORARY}
        assert "is its filesystem mounted?" in done.stderr
        assert "mailer hosts join" in done.stderr
    assert list(shared.iterdir()) == [], "an empty mount point stays empty"
    assert b.hosts("join") == (0, f"this is host b, and its spool is {b.spool}\n", "")
    done = a.mailer("serve", under=a.here)
    assert done.returncode == Exit.UNAVAILABLE
    assert "host a has not joined the others: type: mailer hosts join" in done.stderr
    assert not a.spool.exists()
    assert a.hosts("join")[0] == 0
    assert {name: row["state"] for name, row in b.rows().items()} == {"a": "in use", "b": "in use"}
    assert [name for name, row in b.rows().items() if row["here"]] == ["b"]


def test_a_machine_that_takes_a_name_over_waits_for_the_leases_of_the_last_one(
    a: Host, tmp_path: Path, shared: Path, hop: Server
) -> None:
    assert a.hosts("join")[0] == 0
    assert a.hosts("leave")[0] == 0
    code, _, said = a.hosts("join")
    assert (code, said) == (0, ""), "its own leases it knows"
    assert a.hosts("leave")[0] == 0
    (tmp_path / "new").mkdir()
    successor = Host(tmp_path / "new" / "a", "a", shared, hop.port)
    successor.here = machine(successor.directory, "another")
    code, _, said = successor.hosts("join", fast=True)
    assert (code, "waiting 35 s" in said) == (0, True)


def test_when_the_adopting_host_dies_a_machine_of_its_name_continues(
    a: Host, b: Host, tmp_path: Path, shared: Path, hop: Server
) -> None:
    assert (a.hosts("join")[0], b.hosts("join")[0]) == (0, 0)
    with a.serve(under=a.here):
        assert all(send(a, f"m{number}") for number in range(3))
    with b.starting("hosts", "adopt", "a", "--off", under=b.here) as adopting:
        until(lambda: "waiting" in adopting.output(), "the adoption to begin")
        adopting.kill()
    (tmp_path / "new").mkdir()
    successor = Host(tmp_path / "new" / "b", "b", shared, hop.port)
    successor.here = machine(successor.directory, "another")
    assert successor.hosts("join", "--off", fast=True)[0] == 0
    assert successor.hosts("adopt", "a")[0] == Exit.UNAVAILABLE, "without a word"
    code, _, said = successor.hosts("adopt", "a", "--off", fast=True)
    assert code == 0, said
    assert successor.mailer_send("--once", under=successor.here).returncode == 0
    assert deliveries(hop) == Counter(["m0", "m1", "m2"])


def test_a_damaged_epoch_is_named_and_hides_no_other_host(a: Host, b: Host, shared: Path) -> None:
    assert (a.hosts("join")[0], b.hosts("join")[0]) == (0, 0)
    (shared / ".hosts" / "a.1").write_bytes(b"{")
    code, said, error = b.hosts()
    assert code == 0
    assert "a  its epoch is damaged" in said
    assert "b  in use" in said
    assert "restore it from a backup" in error
    assert [row["state"] for row in b.rows().values()] == ["damaged", "in use"]


def test_a_damaged_message_keeps_no_host_from_joining_again(a: Host, b: Host, hop: Server) -> None:
    assert (a.hosts("join")[0], b.hosts("join")[0]) == (0, 0)
    with a.serve(under=a.here):
        assert send(a, "whole")
        assert send(a, "torn")
    torn = sorted((a.spool / "new").iterdir())[1]
    torn.write_bytes(torn.read_bytes()[:-200])
    code, _, said = b.hosts("adopt", "a", "--off", fast=True)
    assert code == Exit.DATA, said
    assert "1 message cannot be moved" in said
    assert a.hosts("join")[0] == 0
    assert a.mailer_send("--once", under=a.here).returncode == 0
    assert [each.name for each in (a.spool / "corrupt").iterdir()] == [torn.name]
    assert b.mailer_send("--once", under=b.here).returncode == 0
    assert deliveries(hop) == Counter(["whole"])


@pytest.mark.parametrize("name", ["..", "a/b", ".hosts", "a b", "", "x" * 64, "a..b", "A"])
def test_a_host_is_named_as_a_directory_may_be(a: Host, name: str) -> None:
    a.configure({"host": name})
    done = a.mailer("hosts", under=a.here)
    assert done.returncode == Exit.CONFIG
    assert "host" in done.stderr


def test_what_reads_shows_all_hosts_as_one(a: Host, b: Host) -> None:
    assert (a.hosts("join")[0], b.hosts("join")[0]) == (0, 0)
    for host, mark in ((a, "from a"), (b, "from b"), (a, "from a too")):
        with host.serve(under=host.here):
            assert send(host, mark)
    listed = b.mailer("spool", "ls", under=b.here).stdout.splitlines()
    assert [line[line.index("[") : line.index("]") + 1] for line in listed[1:]] == ["[a]", "[b]", "[a]"]
    rows = [json.loads(line) for line in b.mailer("spool", "ls", "--json", under=b.here).stdout.splitlines()]
    assert [row["host"] for row in rows] == ["a", "b", "a"]
    ids = [row["id"] for row in rows]
    assert ids == sorted(ids)
    for number, host in enumerate("aba"):
        why = b.mailer("spool", "why", ids[number], under=b.here).stdout
        assert f"In the spool of host {host}." in why
        assert ids[number] in b.mailer("spool", "show", ids[number], under=b.here).stdout
    assert json.loads(b.mailer("spool", "stats", "--json", under=b.here).stdout)["new"]["count"] == 3
    log = b.mailer("log", "--json", under=b.here).stdout.splitlines()
    accepted = [json.loads(line) for line in log]
    assert [(line["host"], line["subject"]) for line in accepted if line["event"] == "accepted"] == [
        ("a", "from a"),
        ("b", "from b"),
        ("a", "from a too"),
    ]
    assert b.mailer("log", "--id", ids[0], under=b.here).stdout.startswith("a  ")
    there = b.mailer("spool", "hold", ids[0], under=b.here)
    assert there.returncode == Exit.NO_INPUT
    assert "is in the spool of host a: give the command on that host" in there.stderr
    assert a.mailer("spool", "hold", ids[0], under=a.here).returncode == 0


def test_a_senders_limit_counts_what_all_hosts_accept(a: Host, b: Host) -> None:
    assert (a.hosts("join")[0], b.hosts("join")[0]) == (0, 0)
    for host in (a, b):
        host.configure({"rateLimits": {"enabled": True, "maxPerHour": 5}})
    with a.serve(under=a.here):
        assert send(a, "1")
        assert send(a, "2")
        with b.serve(under=b.here):
            # From the ledger of a at the start, and then as a accepts more.
            assert [send(b, mark) for mark in ("3", "4")] == [True, True]
            assert send(a, "5")
            until(lambda: begun(b) == 451, "b to hear of it", 60)
            until(lambda: begun(a) == 451, "a to hear of the others", 60)
    (limit,) = map(json.loads, a.mailer("limits", "--json", under=a.here).stdout.splitlines())
    assert limit["hour"] == 5


def test_health_names_a_host_that_has_gone_silent_with_mail(a: Host, b: Host) -> None:
    assert (a.hosts("join")[0], b.hosts("join")[0]) == (0, 0)
    with a.serve(under=a.here) as receiver, b.monitor(under=b.here), b.serve(under=b.here):
        assert send(a, "waits")
        check = ask(b.http_port, "/health").json["checks"]["hosts"]
        assert check["status"] == "ok"
        receiver.kill()
        (record,) = (a.spool / "state").glob("lease-*")
        record.write_bytes(b"2026-01-01T00:00:00.000000Z 1.0 1\n")
        answer = ask(b.http_port, "/health")
        assert answer.status == 503
        check = answer.json["checks"]["hosts"]
        assert check["status"] == "failing"
        assert "a has been silent for" in check["message"]
        assert "mail waits there" in check["message"]


def test_another_machine_of_the_same_name_stays_out(
    a: Host, tmp_path: Path, shared: Path, hop: Server
) -> None:
    assert a.hosts("join")[0] == 0
    (tmp_path / "new").mkdir()
    twin = Host(tmp_path / "new" / "a", "a", shared, hop.port)
    twin.here = machine(twin.directory, "another")
    with a.serve(under=a.here):
        done = twin.mailer("serve", under=twin.here)
        assert done.returncode == Exit.UNAVAILABLE
        assert "host a is another machine" in done.stderr
        code, _, said = twin.hosts("join")
        assert code == Exit.UNAVAILABLE
        assert "is in use by" in said
        assert send(a, "m1")
    assert [row["messages"] for row in a.rows().values()] == [1]


def test_a_host_that_is_declared_off_and_is_not_stops_by_itself(a: Host, b: Host, hop: Server) -> None:
    """Everything that a host said 250 to is delivered once, by it or by the one that took its mail over."""
    assert (a.hosts("join")[0], b.hosts("join")[0]) == (0, 0)
    accepted: list[str] = []
    with a.serve(under=a.here) as receiver, a.watch(under=a.here) as runner:
        code, _, said = b.hosts("adopt", "a")
        assert (code, "is in use by" in said) == (Exit.UNAVAILABLE, True)

        def submit() -> None:
            number = 0
            while send(a, f"m{number}"):
                accepted.append(f"m{number}")
                number += 1

        submitting = threading.Thread(target=submit)
        submitting.start()
        until(lambda: len(deliveries(hop)) > 20, "the runner of a to be at work")
        code, _, said = b.hosts("adopt", "a", "--off")
        submitting.join()
        assert code == 0, said
        for program in (receiver, runner):
            assert program.wait() == Exit.TEMPORARY
            assert "the spool of a was taken over by b" in program.output().splitlines()[-1]
    assert b.mailer_send("--once", under=b.here).returncode == 0
    # The last one was refused; it may have been durable already, in a spool that was then b's.
    in_flight = Counter([f"m{len(accepted)}"])
    assert deliveries(hop) in (Counter(accepted), Counter(accepted) + in_flight)
    rows = b.rows()
    assert (rows["a"]["state"], rows["a"]["messages"], rows["b"]["messages"]) == ("left", 0, 0)
    assert rows["a"]["evidence"] == ""
    refused = a.mailer("serve", under=a.here)
    assert "host a has left" in refused.stderr
    assert a.hosts("join")[0] == 0
    with a.serve(under=a.here):
        assert send(a, "back")


def test_a_stopped_runner_begins_no_final_dot_when_it_goes_on(
    a: Host, b: Host, hop: Server, shared: Path
) -> None:
    """What was at its final dot is uncertain; what was not is sent by the new owner alone."""
    assert (a.hosts("join")[0], b.hosts("join")[0]) == (0, 0)
    dotted = threading.Event()
    a.configure({"sending": {"concurrency": 1}})
    with a.serve(under=a.here) as receiver:
        assert all(send(a, mark) for mark in ("first", "second", "third"))
        with Server({"dot": reached(dotted, HANG)}) as silent:
            a.configure({"forwardProviders": [{"host": LOOPBACK, "port": silent.port}]})
            with a.watch(under=a.here) as runner:
                assert dotted.wait(60)
                runner.signal(signal.SIGSTOP)
                receiver.kill()
                code, _, said = b.hosts("adopt", "a", "--off")
                assert code == Exit.TEMPORARY, said
                assert " busy" in said
                assert "1 message left" in said
                assert b.rows()["a"]["state"] == "adopted"
                assert b.mailer_send("--once", under=b.here).returncode == 0
                (doubtful,) = deliveries(silent, accepted=False)
                others = Counter({"first", "second", "third"} - {doubtful})
                assert deliveries(hop) == others
                runner.signal(signal.SIGCONT)
                until(lambda: "taken over by b" in runner.output(), "the runner to see it")
                with suppress(ProcessLookupError):
                    runner.signal(signal.SIGKILL)  # It would wait for the reply to the first one.
                runner.wait()
            assert deliveries(silent, accepted=False) == Counter([doubtful])
    code, _, said = b.hosts("adopt", "a", fast=True)
    assert code == 0, said
    done = b.mailer("spool", "ls", "--json", under=b.here)
    (left,) = map(json.loads, done.stdout.splitlines())
    assert left["recipients"][0]["status"] == "uncertain"
    assert b.rows()["a"]["messages"] == 0


def test_a_host_is_taken_down_and_comes_back(a: Host, b: Host, hop: Server) -> None:
    assert (a.hosts("join")[0], b.hosts("join")[0]) == (0, 0)
    with a.monitor(under=a.here), a.serve(under=a.here):
        assert send(a, "m1")
        assert a.hosts("leave")[0] == Exit.TEMPORARY, "the receiver runs"
        code, said, _ = a.hosts("drain")
        assert (code, said) == (0, "new mail is refused; `mailer hosts` shows what is left\n")
        until(lambda: begun(a) == 451, "the receiver to refuse mail", 20)
        assert not send(a, "late")
        answer = ask(a.http_port, "/readyz")
        assert (answer.status, "taken down" in answer.error) == (503, True)
        assert b.rows()["a"]["state"] == "draining"
    code, said, _ = a.hosts("leave")
    assert code == 0
    assert "1 message left in its spool: on another host, type: mailer hosts adopt a" in said
    assert a.mailer("send", "--once", under=a.here).returncode == Exit.TEMPORARY
    code, _, said = b.hosts("adopt", "a", "--json", fast=True)
    assert code == 0, said
    assert b.mailer_send("--once", under=b.here).returncode == 0
    assert deliveries(hop) == Counter(["m1"])
    assert a.hosts("join")[0] == 0
    with a.serve(under=a.here):
        assert send(a, "m2")
