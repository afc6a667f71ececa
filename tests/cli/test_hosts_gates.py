"""Programs and commands of a host that is not, or no longer, the one that may use a spool: they stay out."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from outbound.hostile import Server
from spools.file_trees import NOBODY, give_away
from testbed.ci import only_root
from testbed.hosts import Host, send
from testbed.http_client import ask
from testbed.relay import Relay
from testbed.waiting import until

from mailer.cli.exits import Exit
from mailer.spool.hosts.adoption import claim
from mailer.spool.hosts.epochs import Grounds, Hosts, Machine

TAKEN = "was taken over by b"


@pytest.fixture
def a(tmp_path: Path, shared: Path, hop: Server) -> Host:
    host = Host(tmp_path / "a", "a", shared, hop.port)
    assert host.hosts("join")[0] == 0
    return host


def taken_over(host: Host, by: str = "b") -> None:
    """Begin the epoch in which another machine owns the spool of a host."""
    with Hosts.open(host.spool.parent) as hosts:
        claim(hosts, host.name, Machine(by, "w" * 20), Grounds("ann", "switched off"), 0.0)


def queued(host: Host) -> str:
    """Have a host accept a message; return its id."""
    with host.serve(under=host.here):
        assert send(host, "m1")
    (name,) = (each.name for each in (host.spool / "new").iterdir())
    return name


def files(host: Host) -> list[tuple[str, bytes]]:
    """What is in a host's spool, except for its ledger and its state."""
    return [
        (str(each.relative_to(host.spool)), each.read_bytes())
        for each in sorted(host.spool.rglob("*"))
        if each.is_file() and each.relative_to(host.spool).parts[0] not in {"log", "state"}
    ]


@pytest.mark.parametrize(
    "command",
    [
        ("hold", "{id}"),
        ("release", "--all"),
        ("retry", "--all"),
        ("rm", "{id}"),
        ("sweep",),
        ("move", "--all", "--to-spool", "{other}"),
        ("replay", "{id}", "--to", "eve@example.org"),
        ("receive-moved",),
    ],
    ids=" ".join,
)
def test_no_command_changes_mail_in_a_spool_that_was_lost(
    a: Host, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Another host may be moving the same message just now, and its locks may mean nothing here."""
    name = queued(a)
    taken_over(a)
    before = files(a)
    done = a.mailer(
        "spool", *(each.format(id=name, other=tmp_path / "other") for each in command), under=a.here
    )
    assert done.returncode != 0
    assert TAKEN in done.stderr
    assert files(a) == before
    assert not (tmp_path / "other" / "new").exists() or not list((tmp_path / "other" / "new").iterdir())
    assert name in a.mailer("spool", "ls", under=a.here).stdout
    assert a.mailer("spool", "rm", name, "--dry-run", under=a.here).returncode == 0


def test_the_monitor_of_a_host_that_lost_its_spool_ends(a: Host) -> None:
    with a.monitor(under=a.here) as monitor:
        assert ask(a.http_port, "/livez").status == 200
        taken_over(a)
        assert monitor.wait() == Exit.TEMPORARY
        assert TAKEN in monitor.output()


@pytest.mark.parametrize("program", [("serve",), ("send", "--once"), ("spool", "rm", "--all"), ("monitor",)])
def test_the_spool_of_a_host_is_used_by_no_program_that_does_not_name_the_host(
    a: Host, tmp_path: Path, program: tuple[str, ...]
) -> None:
    queued(a)
    (tmp_path / "alone").mkdir()
    alone = Relay(tmp_path / "alone", {"spoolDir": str(a.spool), "enableHealthCheck": True})
    done = alone.mailer(*program, under=a.here)
    assert done.returncode == Exit.CONFIG
    assert '"host": "a"' in done.stderr
    assert len(files(a)) == 2  # The message, and the mark.


def test_mail_is_not_moved_into_the_spool_of_another_host(a: Host, tmp_path: Path, hop: Server) -> None:
    b = Host(tmp_path / "b", "b", a.spool.parent, hop.port)
    assert b.hosts("join")[0] == 0
    name = queued(a)
    done = a.mailer("spool", "move", "--all", "--to-spool", str(b.spool), under=a.here)
    assert done.returncode == Exit.UNAVAILABLE
    assert '"host": "b"' in done.stderr
    assert (a.spool / "new" / name).exists()


def test_a_session_for_a_local_program_renews_its_lease(a: Host) -> None:
    """It lasts for as long as its client takes, and so do the mails of it."""
    me = pwd.getpwuid(os.getuid()).pw_name
    a.configure({"localUsers": [{"login": me, "user": "app@example.com"}]})
    ours, theirs = socket.socketpair()
    argv = [*a.here, "mailer", "session", "--config", str(a.config)]
    with ours, subprocess.Popen(argv, stdin=theirs, stdout=subprocess.DEVNULL) as session:
        theirs.close()
        lines = ours.makefile("rwb", buffering=0)
        assert lines.readline().startswith(b"220")

        def said(command: bytes) -> bytes:
            lines.write(command + b"\r\n")
            while (line := lines.readline())[3:4] == b"-":
                pass
            return line

        said(b"EHLO localhost")
        assert a.hosts("drain")[0] == 0
        (record,) = (a.spool / "state").glob("lease-*")
        for _ in range(
            2
        ):  # It writes the record first: the second one is written when the first look is over.
            before = record.read_bytes()
            until(lambda: record.read_bytes() not in {before, b""}, "the session to renew its lease", 20)  # noqa: B023
        assert said(b"MAIL FROM:<app@example.com>").startswith(b"451 4.3.2")
        session.send_signal(signal.SIGTERM)


def test_a_host_that_adopts_stops_when_another_one_adopts_instead(
    a: Host, tmp_path: Path, hop: Server
) -> None:
    b = Host(tmp_path / "b", "b", a.spool.parent, hop.port)
    assert b.hosts("join")[0] == 0
    name = queued(a)
    with b.starting("hosts", "adopt", "a", "--off", under=b.here) as adopting:
        until(lambda: "waiting" in adopting.output(), "the adoption to begin")
        taken_over(a, "c")
        assert adopting.wait() == Exit.UNAVAILABLE
        assert "was taken over by c" in adopting.output()
    assert (a.spool / "new" / name).exists()


def test_mail_of_a_host_alone_is_moved_into_its_part_of_the_shared_directory(a: Host, tmp_path: Path) -> None:
    """As the guide shows, with the configuration that names the host."""
    (tmp_path / "alone").mkdir()
    alone = Relay(tmp_path / "alone")
    with alone.serve():
        send(alone, "m1")
    receiving = f"mailer spool receive-moved --config {a.config}"
    done = alone.mailer("spool", "move", "--all", "--via", receiving, under=a.here)
    assert done.returncode == 0, done.stderr
    assert len(list((a.spool / "retry").rglob("*"))) + len(list((a.spool / "new").iterdir())) >= 1
    assert not list((alone.spool / "new").iterdir())


def test_a_spool_of_one_host_is_not_taken_for_a_directory_of_several(tmp_path: Path, hop: Server) -> None:
    """Its mail would wait beside the new spools, and no program would send it."""
    (tmp_path / "alone").mkdir()
    alone = Relay(tmp_path / "alone")
    with alone.serve():
        send(alone, "m1")
    joining = Host(tmp_path / "a", "a", alone.spool, hop.port)
    code, _, said = joining.hosts("join")
    assert code == Exit.CONFIG
    assert "is the spool of one host" in said
    assert not (alone.spool / ".hosts").exists()


def test_one_host_that_cannot_be_examined_hides_no_other(a: Host, tmp_path: Path, hop: Server) -> None:
    b = Host(tmp_path / "b", "b", a.spool.parent, hop.port)
    assert b.hosts("join")[0] == 0
    queued(a)
    assert a.hosts("leave")[0] == 0
    with Hosts.open(a.spool.parent) as hosts:
        claim(hosts, "gone", Machine("gone", "w" * 20), Grounds("ann"), 0.0, again=True)
    with b.monitor(under=b.here):
        check = ask(b.http_port, "/health").json["checks"]["hosts"]
        assert "a has left, and mail waits there: mailer hosts adopt a" in check["message"]
        assert "gone has joined, and its spool" in check["message"]
    doctor = b.mailer("doctor", "--offline", "--all", under=b.here).stdout
    assert "this is host b, since " in doctor
    assert "a has left, and mail waits there: mailer hosts adopt a" in doctor
    doctor = a.mailer("doctor", "--offline", under=a.here).stdout
    assert "no program of this host starts: host a has left" in doctor


def test_a_spool_that_the_first_start_completes_keeps_no_program_from_starting(a: Host) -> None:
    """`mailer hosts join` was interrupted between the epoch and the spool."""
    shutil.rmtree(a.spool)
    a.spool.mkdir(0o700)
    said = a.mailer("doctor", "--offline", "--all", under=a.here).stdout
    assert "this is host a, since " in said
    assert "no program starts here" not in said
    with a.serve(under=a.here):
        assert send(a, "m1")


@only_root("only root can become another user")
def test_root_learns_that_the_host_has_not_joined(tmp_path: Path, hop: Server) -> None:
    """Root becomes the spool's owner; of this host there is none yet."""
    with TemporaryDirectory(prefix="mailer-test-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        (shared := directory / "shared").mkdir()
        give_away(shared)
        a, b = (Host(directory / host, host, shared, hop.port) for host in "ab")
        assert a.hosts("join")[0] == 0
        assert {each.stat().st_uid for each in shared.rglob("*")} == {NOBODY.pw_uid}
        b.configure({"enableHealthCheck": True})
        for program in (("serve",), ("send", "--once"), ("monitor",)):
            done = b.mailer(*program, under=b.here)
            assert "host b has not joined the others: type: mailer hosts join" in done.stderr
            assert not b.spool.exists()
