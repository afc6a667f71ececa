"""`mailer-sendmail` while no receiver runs, one restarts, or another program answers at its socket."""

import json
import os
import pwd
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from inbound.sendmail_door import CRON, STRANGER, Door, envelope, header, start
from testbed.ci import only_root
from testbed.http_client import ask
from testbed.relay import Relay
from testbed.sendmail import write_sendmail
from testbed.waiting import until

as_root = only_root("only root can become another user")


@contextmanager
def answering(path: Path, *scripts: bytes) -> Iterator[None]:
    """Something else at the socket: for each connection in turn it says this and hangs up."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            for script in scripts:
                connection, _ = listening.accept()
                with connection, connection.makefile("rb") as lines:
                    for reply in script.split(b"|"):
                        if not reply:
                            break
                        connection.sendall(reply + b"\r\n")
                        while reply.startswith(b"354") and lines.readline() not in {b".\r\n", b""}:
                            pass
                        if not reply.startswith(b"354"):
                            lines.readline()

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


FINE = b"220 x|250 x|250 x|250 x|354 x|"


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        (b"220 x|250 x|250 x|452 4.3.1 full", os.EX_TEMPFAIL, "452"),
        (b"220 x|250 x|451 4.7.1 slow down", os.EX_TEMPFAIL, "451"),
        (b"421 4.3.2 shutting down", os.EX_TEMPFAIL, "421"),
        (b"", os.EX_TEMPFAIL, "closed"),
        (FINE + b"452 4.3.1 full", os.EX_TEMPFAIL, "452"),
        (FINE, os.EX_TEMPFAIL, "it may have it, or not"),
        (FINE + b"421 4.3.0 defect", os.EX_TEMPFAIL, "it may have it, or not"),
        (b"220 x|250 x|250 x|250 x|", os.EX_TEMPFAIL, "closed"),
        (b"hello", os.EX_PROTOCOL, "not a mail server"),
    ],
)
def test_only_a_final_250_is_success(tmp_path, script, code, words):
    path = tmp_path / "s"
    sendmail = write_sendmail(tmp_path, path)
    with answering(path, script):
        done = start([str(sendmail), "bob@example.net"], b"x\n", tmp_path)
    assert done.returncode == code, done
    assert words in done.stderr.decode()


@pytest.mark.parametrize("end", [b"", b"421 4.3.0 defect"])
def test_a_message_that_may_have_been_taken_is_not_handed_over_again(tmp_path, end):
    path = tmp_path / "s"
    sendmail = write_sendmail(tmp_path, path, patience=600)
    # A 421 before the message was sent is no reason to give up.
    with answering(path, b"220 x|250 x|250 x|250 x|421 4.3.2 restarting", FINE + end, FINE + b"250 x"):
        done = start([str(sendmail), "bob@example.net"], b"x\n", tmp_path)
        assert done.returncode == os.EX_TEMPFAIL, done
        assert b"it may have it, or not" in done.stderr
        # The third is still to be had.
        assert start([str(sendmail), "bob@example.net"], b"x\n", tmp_path).returncode == 0


def test_without_a_receiver_it_says_so_and_may_be_called_again(tmp_path):
    sendmail = write_sendmail(tmp_path, tmp_path / "s")
    done = start([str(sendmail), "bob@example.net"], b"x\n", tmp_path)
    assert done.returncode == os.EX_TEMPFAIL
    assert b"Is `mailer serve` running, with submitSocket set?" in done.stderr


@pytest.fixture
def down(tmp_path: Path) -> Iterator[Door]:
    """A receiver that is configured, and does not run."""
    with TemporaryDirectory(prefix="mailer-test-") as name:
        Path(name).chmod(0o711)
        found = Door(Path(name))
        found.relay.configure({"rateLimits": {"enabled": True, "maxPerHour": 2}})
        yield found


OURS = ("-f", "a@here.example", "root")


def test_the_spools_owner_writes_to_the_spool_when_no_receiver_runs(down):
    """With the same additions, limits and records as the receiver's."""
    env = {"MAILER_CONFIG": str(down.relay.config)}
    for number in (1, 2):
        done = down.run(*OURS, given=f"To: root\nSubject: down-{number}\n\nx\n", env=env)
        assert (done.returncode, done.stderr) == (0, b"")
    stored = down.taken("down-2")
    uid = os.getuid()
    assert f"Spool-User: app@example.com\r\nSpool-Peer: unix:{uid}\r\n".encode() in stored
    assert envelope(stored) == ["a@here.example", "ops@example.com"]
    assert f"local socket, uid {uid}".encode() in header(stored)
    assert b"To: root@here.example\r\n" in header(stored)
    done = down.run(*OURS, given="x\n", env=env)
    assert (done.returncode, b"451 4.7.1" in done.stderr) == (os.EX_TEMPFAIL, True)
    assert len(down.queued()) == 2
    told = [json.loads(line) for line in down.relay.mailer("log", "--json").stdout.splitlines()]
    assert [line["event"] for line in told] == ["accepted", "accepted", "limited"]
    with down.relay.serve():
        assert down.run(*OURS, given="x\n").returncode == os.EX_TEMPFAIL


def test_smtp_on_standard_input_needs_no_receiver_either(down):
    said = "EHLO x\r\nMAIL FROM:<a@here.example>\r\nRCPT TO:<root>\r\nDATA\r\n"
    rest = "Subject: bs-2\r\n\r\nx\r\n.\r\nQUIT\r\n"
    done = down.run("-bs", given=said + rest, env={"MAILER_CONFIG": str(down.relay.config)})
    assert done.returncode == 0, done
    assert b"250 2.0.0 Ok: queued as " in done.stdout
    assert down.taken("bs-2")


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"localUsers": []}, os.EX_NOPERM, b"localUsers maps it to no user"),
        ({"localUsers": [{"login": "*", "user": "gone"}]}, os.EX_NOPERM, b"gone, which is not a user here"),
        ({"maxMessageSize": 10}, os.EX_DATAERR, b"552 5.3.4"),
        ({"defaultPassword": ""}, os.EX_TEMPFAIL, b"defaultPassword: is empty"),
    ],
)
def test_without_a_receiver_the_same_is_refused(down, change, code, words):
    down.relay.configure(change)
    done = down.run(*OURS, given="x\n" * 100, env={"MAILER_CONFIG": str(down.relay.config)})
    assert done.returncode == code, done
    assert words in done.stderr
    assert not (down.relay.spool / "new").exists() or down.queued() == []


@as_root
def test_root_writes_as_the_spools_owner(down):
    down.relay.mailer("spool", "ls")
    with down.relay.serve():
        pass
    nobody = pwd.getpwnam("nobody")
    for path in (down.relay.spool, *down.relay.spool.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    env = {"MAILER_CONFIG": str(down.relay.config)}
    done = down.run(*OURS, given="Subject: owner-1\n\nx\n", env=env)
    assert done.returncode == 0, done
    assert down.taken("owner-1")
    assert {path.stat().st_uid for path in down.relay.spool.rglob("*")} == {nobody.pw_uid}


@as_root
def test_other_users_get_a_temporary_failure_when_no_receiver_runs(down):
    """A configuration that is not for them is not even looked for."""
    stranger = write_sendmail(down.directory, down.socket, name="stranger", uid=STRANGER)
    done = down.run(*OURS, under=stranger, given="x\n", env={"MAILER_CONFIG": str(down.relay.config)})
    assert (done.returncode, b"does not answer at" in done.stderr) == (os.EX_TEMPFAIL, True)
    assert not down.relay.spool.exists()


@as_root
@pytest.mark.security_case(135)
def test_other_users_leave_mail_in_the_drop_directory_as_themselves(down):
    """With real users: one that is mapped, one that may not send as another, and one that is not mapped."""
    down.close()
    drop, left = down.relay.spool / "drop", down.relay.directory
    ann = down.sendmail
    eve = write_sendmail(down.directory, down.socket, name="eve", uid=STRANGER, drop=drop)
    down.relay.configure({"localUsers": [{"login": str(CRON), "user": "cron"}]})
    added = down.relay.mailer("user", "add", "cron", "--allow", "here.example", given="a long password\n")
    assert added.returncode == 0
    for under, sender, subject in ((ann, "a@here.example", "hers"), (ann, "boss@example.com", "forged")):
        done = down.run("-f", sender, "root", under=under, given=f"Subject: {subject}\n\nx\n")
        assert (done.returncode, done.stderr) == (0, b"")
    assert down.run("-v", "root", under=eve, given="Subject: eve\n\nx\n").returncode == 0
    # She sees no names, and what she knows the name of she can neither read nor move.
    names = sorted(each.name for each in drop.iterdir())
    for command in (
        f"ls {drop}",
        f"cat {drop}/{names[0]}",
        f"mv {drop}/{names[0]} {left}/x",
        f"rm -f {drop}/{names[0]}",
        f"ln {drop}/{names[0]} {drop}/x",
        f"ls {down.relay.spool}/new",
    ):
        denied = start(
            ["setpriv", f"--reuid={STRANGER}", "--clear-groups", f"--regid={STRANGER}", "sh", "-c", command],
            b"",
            down.directory,
        )
        assert denied.returncode != 0, denied
    assert sorted(each.name for each in drop.iterdir()) == names
    with down.relay.serve() as receiver:
        until(
            lambda: all(each.suffix == ".refused" for each in drop.iterdir()), "each is taken in, or put by"
        )
        assert "User id 4712 may not submit here: localUsers maps it to no user" in receiver.output()
    first, _ = sorted(drop.iterdir())
    told = down.relay.mailer("spool", "ls")
    assert f"{drop}: 2 refused: mailer log --status drop-refused says why" in told.stderr
    assert (
        "cron may not send as boss@example.com" in down.relay.mailer("log", "--status", "drop-refused").stdout
    )
    assert "553 5.7.1" in down.relay.mailer("spool", "why", first.stem).stdout
    assert "2 refused" in down.relay.mailer("doctor").stdout
    with down.relay.monitor():
        health = ask(down.relay.http_port, "/health").json["checks"]["drop"]
        assert (health["status"], health["message"][:9]) == ("degraded", "2 refused")
    stored = down.taken("Subject: hers")
    assert b"Spool-User: cron\r\nSpool-Peer: unix:4711\r\n" in stored
    assert len(down.queued()) == 1


@as_root
@pytest.mark.parametrize("how", ["full", "closed", "not set up", "gone"])
def test_a_drop_that_cannot_be_written_leaves_nothing_behind(down, how):
    down.close()
    drop = down.relay.spool / "drop"
    match how:
        case "closed":
            drop.chmod(0o700)
        case "not set up":
            drop.chmod(0o777)
        case "gone":
            drop.rmdir()
    limit = ["prlimit", "--fsize=1000"] if how == "full" else []
    done = start([*limit, str(down.sendmail), "root"], b"x\n" * 2000, down.directory)
    assert done.returncode == os.EX_TEMPFAIL, done
    words = b"does not answer at" if how == "gone" else b"drop does not take the message: "
    assert words in done.stderr
    assert how == "gone" or list(drop.iterdir()) == []


def test_a_receiver_that_restarts_is_waited_for(relay: Relay, tmp_path: Path) -> None:
    path = tmp_path / "submit.sock"
    relay.configure({"submitSocket": str(path), "localUsers": [{"login": "*", "user": "app@example.com"}]})
    sendmail = write_sendmail(tmp_path, path, patience=600)
    argv = [str(sendmail), "-f", "a@example.com", "bob@example.net"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as client:
        assert client.stdin is not None
        client.stdin.write(b"Subject: late\n\nx\n")
        client.stdin.close()
        with relay.serve() as server:
            assert client.wait(300) == 0
            server.signal(signal.SIGKILL)
    (stored,) = [entry.read_bytes() for entry in (relay.spool / "new").iterdir()]
    assert b"Subject: late\r\n" in stored


def test_a_receiver_that_is_killed_again_and_again_loses_nothing_that_was_taken(
    relay: Relay, tmp_path: Path
) -> None:
    """Exit 0 is exactly one mail; whoever cannot know says so, and nothing is half there."""
    path = tmp_path / "submit.sock"
    relay.configure({"submitSocket": str(path), "localUsers": [{"login": "*", "user": "app@example.com"}]})
    argv = [str(write_sendmail(tmp_path, path, patience=600)), "-f", "a@example.com", "bob@example.net"]
    new = relay.spool / "new"

    def submit(number: int) -> subprocess.CompletedProcess[bytes]:
        text = f"Subject: kill-{number}.\n\n" + "x" * 70 + "\n"
        return start(argv, text.encode() + b"line\n" * 200_000 + b"end\n", tmp_path)

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(submit, number) for number in range(12)]
        for _ in range(3):
            with relay.serve() as server:
                before = len(list(new.iterdir()))
                until(
                    lambda: len(list(new.iterdir())) > before or all(each.done() for each in running),  # noqa: B023
                    "one more mail",
                )
                server.signal(signal.SIGKILL)
        with relay.serve():
            done = [each.result() for each in running]
    stored = [entry.read_bytes() for entry in new.iterdir()]
    assert all(b"\r\nend\r\n{" in each for each in stored)
    for number, each in enumerate(done):
        count = sum(f"Subject: kill-{number}.\r\n".encode() in entry for entry in stored)
        if each.returncode == 0:
            assert count == 1
        else:
            assert (each.returncode, count <= 1) == (os.EX_TEMPFAIL, True)
            assert b"it may have it, or not" in each.stderr
