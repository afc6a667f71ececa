"""`mailer import`: what other relays have queued is taken over once, whole, and nothing is lost."""

import base64
import json
import os
import signal
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed.capability import tracer
from testbed.postfix import Postfix
from testbed.relay import Relay
from testbed.tools import postfix_environment, postfix_root
from testbed.waiting import until

CONTENT = b"From: app@example.com\nTo: bob@example.net\nSubject: kept\n\none\n.two\n\xc3\xa9\n"


@pytest.fixture
def emails(tmp_path: Path) -> Path:
    """The Go relay's directory: one message that it gave up, and one that it kept, to two recipients."""
    directory = tmp_path / "emails"
    (directory / "failed").mkdir(parents=True)
    write(directory / "failed" / "20261129-1.json", "app@example.com", ["bob@example.net"])
    write(directory / "20261129-2.json", "app@example.com", ["ann@example.net", "joe@example.net"])
    return directory


def write(path: Path, sender: str, recipients: list[str], data: bytes = CONTENT) -> None:
    path.write_text(
        json.dumps(
            {"From": sender, "To": recipients, "Data": base64.b64encode(data).decode(), "ID": path.stem}
        )
    )


def queued(relay: Relay) -> list[tuple[str, tuple[str, ...]]]:
    listed = map(json.loads, relay.mailer("spool", "ls", "--json").stdout.splitlines())
    return sorted(
        (each["sender"], tuple(recipient["address"] for recipient in each["recipients"])) for each in listed
    )


def test_the_go_relays_files_are_taken_over_once(relay: Relay, emails: Path) -> None:
    relay.configure({"rateLimits": {"enabled": True, "maxPerHour": 1}})
    would = relay.mailer("import", "--from-go", str(emails), "--dry-run")
    assert (would.returncode, would.stdout.splitlines()[-1]) == (0, "2 would queue")
    assert queued(relay) == []
    done = relay.mailer("import", "--from-go", str(emails), "--json")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["action"] for line in done.stdout.splitlines()] == ["queued", "queued"]
    wanted = [
        ("app@example.com", ("ann@example.net", "joe@example.net")),
        ("app@example.com", ("bob@example.net",)),
    ]
    assert queued(relay) == wanted
    assert sorted(path.name for path in (emails / "imported").iterdir()) == [
        "20261129-1.json",
        "20261129-2.json",
    ]
    assert list((emails / "failed").iterdir()) == []
    again = relay.mailer("import", "--from-go", str(emails.parent))
    assert (again.returncode, again.stdout) == (0, "the queue is empty\n")
    assert queued(relay) == wanted
    assert list((relay.spool / "once").glob("drop-*")) == []
    # The sender's next mail of today is not refused because of what the other relay had accepted.
    assert relay.mailer("limits").stdout == ""
    with relay.serve(), relay.connect() as client:
        client.sendmail("app@example.com", ["bob@example.net"], CONTENT.replace(b"\n", b"\r\n"))


def test_the_content_is_what_was_kept(relay: Relay, emails: Path) -> None:
    assert relay.mailer("import", "--from-go", str(emails)).returncode == 0
    ident = json.loads(relay.mailer("spool", "ls", "--json").stdout.splitlines()[0])["id"]
    raw = relay.mailer("spool", "show", ident, "--raw").stdout
    head, _, body = raw.replace("\r\n", "\n").partition("\n\n")
    assert body == "one\n.two\né\n"
    assert "Subject: kept" in head
    assert relay.mailer("log", "--id", ident, "--json").stdout.count("import:") == 1


def test_what_cannot_be_imported_stays_and_is_named(relay: Relay, emails: Path) -> None:
    (emails / "failed" / "odd.json").write_text('{"From": "a@example.com"}')
    write(emails / "failed" / "nul.json", "app@example.com", ["bob@example.net"], b"Subject: x\n\n\x00\n")
    (emails / "failed" / "link.json").symlink_to("/etc/hostname")
    done = relay.mailer("import", "--from-go", str(emails))
    assert done.returncode == 65
    assert done.stdout.splitlines()[-1] == "2 queued, 2 refused"
    assert "failed/odd.json: refused: it is not a message of the Go relay" in done.stdout
    assert "NUL" in done.stdout
    assert sorted(path.name for path in (emails / "failed").iterdir()) == [
        "link.json",
        "nul.json",
        "odd.json",
    ]


def test_without_one_queue_it_says_which_there_are(relay: Relay, tmp_path: Path) -> None:
    assert "--from-go, --from-postfix, --from-nullmailer, --from-msmtpq" in relay.mailer("import").stderr
    absent = relay.mailer("import", "--from-go", str(tmp_path / "absent"))
    assert (absent.returncode, "absent" in absent.stderr) == (69, True)
    both = relay.mailer("import", "--from-go", str(tmp_path), "--from-postfix")
    assert both.returncode == 2


def test_nullmailers_queue(relay: Relay, tmp_path: Path) -> None:
    (tmp_path / "queue").mkdir()
    head = b"app@example.com\nbob@example.net\nann@example.net\n\n"
    (tmp_path / "queue" / "1764442000.4711").write_bytes(head + CONTENT)
    (tmp_path / "queue" / "1764442001.4712").write_bytes(b"\nbob@example.net\n\n" + CONTENT)
    assert relay.mailer("import", "--from-nullmailer", str(tmp_path)).returncode == 0
    assert queued(relay) == [
        ("", ("bob@example.net",)),
        ("app@example.com", ("bob@example.net", "ann@example.net")),
    ]


def test_msmtpqs_queue(relay: Relay, tmp_path: Path) -> None:
    for name, arguments in (
        ("2026-11-29-19.07.34", "-oi -f app@example.com -a work -- joe@example.net ann@example.net"),
        ("2026-11-29-19.07.35", "-t --from=other@example.com"),
        ("2026-11-29-19.07.36", "bob@example.net"),
        ("2026-11-29-19.07.38", "--account work --from one@example.com -oem -- eve@example.net"),
        ("2026-11-29-19.07.39", "--unheard-of work -- eve@example.net"),
    ):
        (tmp_path / f"{name}.mail").write_bytes(CONTENT)
        (tmp_path / f"{name}.msmtp").write_text(f"{arguments}\n")
    (tmp_path / "2026-11-29-19.07.37.mail").write_bytes(CONTENT)  # it is being written
    done = relay.mailer("import", "--from-msmtpq", str(tmp_path))
    assert (done.returncode, "option --unheard-of is not known" in done.stdout) == (65, True)
    assert queued(relay) == [
        ("app@example.com", ("bob@example.net",)),
        ("app@example.com", ("joe@example.net", "ann@example.net")),
        ("one@example.com", ("eve@example.net",)),
        ("other@example.com", ("bob@example.net",)),
    ]


@pytest.fixture
def postfix() -> Iterator[Postfix]:
    """It can deliver nothing, and lists its queue."""
    with Postfix({"defer_transports": "virtual"}, services="showq unix n - n - - showq\n") as server:
        yield server


def test_a_real_postfixs_queue(relay: Relay, postfix: Postfix) -> None:
    with smtplib.SMTP(postfix.host, postfix.port) as client:
        client.sendmail("app@example.com", ["bob@example.net", "ann@example.net"], CONTENT)
        client.sendmail("", ["joe@example.net"], CONTENT)
        client.sendmail("app@example.com", ["held@example.net"], CONTENT)
    until(lambda: len(deferred(postfix)) == 3, "all are deferred")
    environment = postfix_environment() | {"MAIL_CONFIG": str(postfix.configuration)}
    sbin = postfix_root() / "usr" / "sbin"
    under = ["env", *(f"{key}={value}" for key, value in environment.items() if key != "PATH")]
    under.append(f"PATH={sbin}:{os.environ['PATH']}")
    running = relay.mailer("import", "--from-postfix", under=under)
    assert (running.returncode, "postfix stop" in running.stderr) == (69, True)
    [held] = [path.name for path in deferred(postfix) if b"held@example.net" in path.read_bytes()]
    for command in (("postsuper", "-h", held), ("postfix", "stop")):
        subprocess.run(
            [sbin / command[0], *command[1:]],
            check=True,
            env={**os.environ, **environment},
            capture_output=True,
        )
    # Without postlogd each program writes there itself, as Postfix's own user.
    (postfix.queue.parent / "maillog").chmod(0o666)
    done = relay.mailer("import", "--from-postfix", under=under)
    assert (done.returncode, f"{held}: refused: it is on hold" in done.stdout) == (65, True), done
    assert queued(relay) == [
        ("", ("joe@example.net",)),
        ("app@example.com", ("ann@example.net", "bob@example.net")),
    ]
    again = relay.mailer("import", "--from-postfix", under=under)
    assert (again.returncode, again.stdout.splitlines()[-1]) == (65, "1 refused")


def deferred(postfix: Postfix) -> list[Path]:
    return [path for path in (postfix.queue / "deferred").rglob("*") if path.is_file()]


def test_whose_queue_it_is_cannot_have_other_files_moved_or_read(relay: Relay, tmp_path: Path) -> None:
    """Root imports from a directory of another user."""
    victim = tmp_path / "etc"
    victim.mkdir()
    (victim / "passwd").write_text("root:x:0:0\n")
    (victim / "secret").write_bytes(b"a@example.com\nb@example.net\n\n" + CONTENT)
    directory = tmp_path / "null"
    (directory / "queue").mkdir(parents=True)
    (directory / "queue" / "passwd").write_bytes(b"a@example.com\nb@example.net\n\n" + CONTENT)
    (directory / "queue" / "linked").hardlink_to(victim / "secret")
    (directory / "imported").symlink_to(victim)
    refused = relay.mailer("import", "--from-nullmailer", str(directory))
    assert refused.returncode == 69
    assert (victim / "passwd").read_text() == "root:x:0:0\n"
    assert queued(relay) == []
    (directory / "imported").unlink()
    done = relay.mailer("import", "--from-nullmailer", str(directory))
    assert (done.returncode, "queue/linked: refused" in done.stdout) == (65, True)
    assert (victim / "secret").exists()
    (directory / "imported").chmod(0o777)
    assert "another user" in relay.mailer("import", "--from-nullmailer", str(directory)).stderr
    (directory / "queue").rename(directory / "moved")
    (directory / "queue").symlink_to(victim)
    assert relay.mailer("import", "--from-nullmailer", str(directory)).returncode == 69


def test_what_is_kept_is_not_replaced_by_a_file_of_the_same_name(relay: Relay, emails: Path) -> None:
    write(emails / "same.json", "app@example.com", ["bob@example.net"])
    write(emails / "failed" / "same.json", "app@example.com", ["ann@example.net"])
    assert relay.mailer("import", "--from-go", str(emails)).returncode == 0
    kept = {path.name: json.loads(path.read_text())["To"] for path in (emails / "imported").glob("same*")}
    assert kept == {"same.json": ["ann@example.net"], "same.json.2": ["bob@example.net"]}


def test_more_recipients_than_are_taken_are_a_refusal(relay: Relay, emails: Path) -> None:
    write(emails / "many.json", "app@example.com", [f"n{number}@example.net" for number in range(1001)])
    done = relay.mailer("import", "--from-go", str(emails))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (65, "2 queued, 1 refused")


@pytest.mark.parametrize("call", ["rename,renameat", "unlinkat", "fsync", "renameat2"])
def test_killed_at_a_system_call_it_queues_nothing_twice_and_loses_nothing(
    relay: Relay, emails: Path, call: str
) -> None:
    deaths, dead = 0, True
    while dead:
        kill = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={deaths + 1}")
        done = relay.mailer(
            *("import", "--from-go", str(emails)), under=(tracer(), "-f", "-qq", *kill, "-o", os.devnull)
        )
        dead = done.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}
        deaths += dead
    assert deaths
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert queued(relay) == [
        ("app@example.com", ("ann@example.net", "joe@example.net")),
        ("app@example.com", ("bob@example.net",)),
    ]
