"""Programs that call sendmail(8) while the receiver is down, restarts, or dies: each mail once, or they hear.

They all start `mailer-sendmail`, so that CI has some of them at some moments of the receiver's death; all at
every system call of the hand-over:

    MAILER_CLIENT_KILLS=all .venv/bin/pytest -n auto tests/sendmail/test_sendmail_restarts.py
"""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from inbound.sendmail_callers import BCC, CALLERS, TO, Call, cron
from spools.strace import attach
from testbed.ci import only_root
from testbed.process import ServerProcess
from testbed.relay import PASSWORD, USERNAME, Relay
from testbed.sendmail import unpacked, write_sendmail
from testbed.waiting import until

as_root = only_root("only root can become another user")
ANN = 4711
ALL = os.environ.get("MAILER_CLIENT_KILLS") == "all"
CALLS = (
    *("accept4", "openat", "flock", "write", "fsync", "renameat2"),
    # These change nothing that outlives the receiver, but each is a moment of its own.
    *("read", "close", "newfstatat", "epoll_pwait", "futex"),
)
KILLS = [(name, call, 1000) for name in CALLERS for call in CALLS]
"""Which program, at which of the receiver's system calls, and up to the how-manieth such call."""
DOWN = CALLERS.keys()
if not ALL:
    # The second fsync is that of the directory: the mail is there, and nobody has been told.
    KILLS = [("php", "renameat2", 1), ("mutt", "fsync", 2)]
    DOWN = {"php", "symfony", "symfony_by_smtp"}


class Host:
    """A relay with a `submitSocket`. Without a receiver root writes to the spool, and ann leaves mail."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "submit.sock"
        logins = [{"login": str(uid), "user": USERNAME} for uid in (os.getuid(), ANN)]
        self.relay = Relay(
            directory,
            {
                "submitSocket": str(self.socket),
                "localUsers": logins,
                "originDomain": "here.example",
                "aliases": {"root": "ops@example.com"},
            },
        )
        self.sendmail = write_sendmail(directory, self.socket, patience=600)

    def stored(self) -> list[bytes]:
        return [path.read_bytes() for path in (self.relay.spool / "new").iterdir()]

    def count(self, subject: str) -> int:
        """The whole messages of this subject, each to both."""
        found = [each for each in self.stored() if f"\r\nSubject: {subject}\r\n".encode() in each]
        for each in found:
            to = re.findall(rb"^Spool-Recipient: <(.*?)>", each, re.MULTILINE)
            assert sorted(to) == [TO.encode(), BCC.encode()]
            assert b'\r\n{"at":' in each
        return len(found)


@pytest.fixture
def host() -> Iterator[Host]:
    with TemporaryDirectory(prefix="mailer-test-") as name:
        Path(name).chmod(0o711)
        yield Host(Path(name))


def test_each_delivers_while_the_receiver_is_restarted_again_and_again(host: Host) -> None:
    with ThreadPoolExecutor(3) as pool:
        running = {
            name: pool.submit(caller(host.sendmail, name).run, host.directory)
            for name, caller in CALLERS.items()
        }
        restarts = 0
        while restarts < 2 or not all(each.done() for each in running.values()):
            with host.relay.serve():
                before = sum(each.done() for each in running.values())
                until(
                    lambda: (
                        (done := sum(each.done() for each in running.values())) > before  # noqa: B023
                        or done == len(running)
                    ),
                    "one more to be done",
                )
            restarts += 1
    for name, each in running.items():
        done = each.result()
        if name != "symfony_by_smtp":
            assert done.returncode == 0, (name, done)
        assert host.count(name) == (done.returncode == 0), (name, done)


@pytest.mark.parametrize(("name", "call", "most"), KILLS)
def test_each_mail_is_there_once_or_its_program_fails_whenever_the_receiver_is_killed(
    host: Host, name: str, call: str, most: int
) -> None:
    number, died = 0, True
    while died and number < most:
        number += 1
        subject = f"{name}-{number}"
        with ThreadPoolExecutor(1) as pool:
            with host.relay.serve() as receiver:
                inject = f"{call}:signal=KILL:when={number}"
                watcher = attach(
                    receiver.pid, host.directory / f"trace-{number}", inject=(inject,), trace=call
                )
                running = pool.submit(CALLERS[name](host.sendmail, subject).run, host.directory)
                until(lambda: running.done() or not receiver.running, "the mail, or the receiver's death")  # noqa: B023
                died = not receiver.running
                receiver.kill()
                watcher.communicate()
            with host.relay.serve():
                done = running.result()
        assert host.count(subject) in ({1} if done.returncode == 0 else {0, 1}), done
        # These do not show what sendmail says.
        if done.returncode and name not in {"php", "nodemailer", "symfony_by_smtp"}:
            assert b"it may have it, or not" in done.stderr + done.stdout, done
    assert number > 1 or died, "the hand-over needs this call"


@as_root
@pytest.mark.parametrize("whose", ["root's", "another user's"])
def test_each_delivers_while_no_receiver_runs(host: Host, whose: str) -> None:
    """Root's sendmail writes to the spool, and another user's leaves the mail in `drop/`."""
    with host.relay.serve():
        pass
    if whose == "root's":
        sendmail = write_sendmail(host.directory, host.socket)
    else:
        drop = host.relay.spool / "drop"
        sendmail = write_sendmail(host.directory, host.socket, uid=ANN, drop=drop)
    os.environ["MAILER_CONFIG"] = str(host.relay.config)
    try:
        done = {name: CALLERS[name](sendmail, name).run(host.directory) for name in DOWN}
    finally:
        del os.environ["MAILER_CONFIG"]
    assert host.relay.mailer("pause").returncode == 0
    assert host.relay.mailer_send("--once").returncode == 0
    for name, each in done.items():
        assert (each.returncode, host.count(name)) == (0, 1), each


@as_root
def test_what_needs_an_answer_gets_one_without_a_receiver_for_who_may_write_to_the_spool(host: Host) -> None:
    with host.relay.serve():
        pass
    drop = host.relay.spool / "drop"
    env = {"MAILER_CONFIG": str(host.relay.config)}
    roots = write_sendmail(host.directory, host.socket, name="roots")
    anns = write_sendmail(host.directory, host.socket, name="anns", uid=ANN, drop=drop)
    done = Call([str(roots), "-bv", "root"], env=env).run(host.directory)
    assert (done.returncode, b"250" in done.stdout) == (0, True), done
    done = Call([str(anns), "-bv", "root"], env=env).run(host.directory)
    assert (done.returncode, done.stdout) == (os.EX_TEMPFAIL, b"")
    assert b"Is `mailer serve` running, with submitSocket set?" in done.stderr


@as_root
@pytest.mark.parametrize("when", ["up", "down"])
def test_a_job_of_debians_cron_is_mailed(host: Host, when: str) -> None:
    text = f"hello-from-{when}"
    sendmail = write_sendmail(host.directory, host.socket)
    sendmail.write_text(
        sendmail.read_text().replace(
            "import ctypes",
            f"import os\nos.environ['MAILER_CONFIG'] = '{host.relay.config}'\nimport ctypes",
            1,
        )
    )
    with host.relay.serve() as receiver:
        if when == "down":
            receiver.stop()
        call = cron(sendmail, f"echo {text}")
        with ServerProcess(call.argv, host.directory / "cron.out", cwd=host.directory):
            until(lambda: any(text.encode() in each for each in host.stored()), "the job's mail")
    [stored] = host.stored()
    assert b"Spool-Recipient: <ops@example.com>" in stored
    assert b"\r\nSubject: Cron <root@" in stored
    assert b"\r\nFrom: root@here.example (Cron Daemon)\r\n" in stored
    assert f"\r\n\r\n{text}\r\n".encode() in stored


@contextmanager
def monit(host: Host) -> Iterator[None]:
    """It speaks SMTP, and has a queue of its own for alerts that nobody takes: `set eventqueue`."""
    place = host.directory
    lines = [
        "set daemon 1",
        f"set idfile {place}/id",
        f"set statefile {place}/state",
        f"set pidfile {place}/pid",
        f"set eventqueue basedir {place}/events",
        f'set mailserver 127.0.0.1 port {host.relay.port} username "{USERNAME}" password "{PASSWORD}"',
        f"set mail-format {{ from: {USERNAME} }}",
        "set alert bob@example.net only on { nonexist }",
        f"check file gone with path {place}/not-there",
    ]
    settings = place / "monitrc"
    settings.touch(mode=0o600)
    settings.write_text("\n".join(lines) + "\n")
    argv = [unpacked("monit", "usr/bin/monit"), "-I", "-c", str(settings)]
    with ServerProcess(argv, place / "monit.out", cwd=place):
        yield


def alerts(host: Host) -> int:
    """The whole alerts in the spool."""
    found = host.stored() if (host.relay.spool / "new").exists() else []
    assert all(b"Spool-Recipient: <bob@example.net>" in each for each in found)
    return sum(b"Does not exist gone" in each for each in found)


def test_monit_keeps_its_alerts_while_the_receiver_is_down(host: Host) -> None:
    with monit(host):
        until(lambda: any((host.directory / "events").glob("*")), "an alert to wait")
        with host.relay.serve():
            until(lambda: alerts(host) == 1, "the alert")


@pytest.mark.parametrize(
    "when",
    ["renameat2:1", "fsync:2"] if not ALL else [f"{call}:{number}" for call in CALLS for number in (1, 2, 3)],
)
def test_monit_loses_no_alert_whenever_the_receiver_is_killed(host: Host, when: str) -> None:
    call, number = when.split(":")
    with host.relay.serve() as receiver:
        inject = f"{call}:signal=KILL:when={number}"
        watcher = attach(receiver.pid, host.directory / "trace", inject=(inject,), trace=call)
        with monit(host):
            until(lambda: not receiver.running or alerts(host) > 0, "the alert, or the receiver's death")
            receiver.kill()
            watcher.communicate()
            with host.relay.serve():
                until(lambda: alerts(host) >= 1, "the alert")
