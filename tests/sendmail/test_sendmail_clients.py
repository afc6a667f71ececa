"""Programs that call sendmail(8), with `mailer-sendmail` in its place and a real receiver behind it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from inbound.sendmail_door import CRON, STRANGER, Door, envelope, header, start
from testbed.ci import only_root
from testbed.sendmail import unpacked, write_sendmail
from testbed.tools import node_modules, program

from mailer import __version__

as_root = only_root("only root can become another user")
TESTBED = Path(__file__).parents[1] / "testbed"


up_and_down = pytest.mark.parametrize("door", ["up", pytest.param("down", marks=as_root)], indirect=True)


@pytest.fixture(scope="module")
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    """A door with its receiver, or, for a parameter `down`, without."""
    with TemporaryDirectory(prefix="mailer-test-") as name:
        Path(name).chmod(0o711)
        found = Door(Path(name))
        if getattr(request, "param", "up") == "down":
            found.close()
            yield found
            return
        added = found.relay.mailer(
            "user", "add", "cron", "--allow", "here.example", given="a long password\n"
        )
        assert added.returncode == 0, added.stderr
        with found.relay.serve():
            yield found


@up_and_down
def test_php_mail(door):
    headers = "From: shop@example.com\\r\\nBcc: eve@example.org"
    script = f'exit(mail("bob@example.net", "php-1", "hello\\n.\\nworld", "{headers}") ? 0 : 1);'
    done = start(
        [program("php"), "-d", f"sendmail_path={door.sendmail} -t -i", "-r", script], b"", door.directory
    )
    assert done.returncode == 0, done
    stored = door.taken("Subject: php-1")
    assert envelope(stored)[1:] == ["bob@example.net", "eve@example.org"]
    assert b"Bcc" not in header(stored)
    assert b"\r\n\r\nhello\r\n.\r\nworld\r\n" in stored


@up_and_down
def test_git_send_email(door):
    patch = door.directory / "0001.patch"
    patch.write_text(
        "From 1234567890123456789012345678901234567890 Mon Sep 17 00:00:00 2001\n"
        "From: Ann <ann@example.com>\nDate: Sun, 29 Nov 2026 09:00:00 +0000\nSubject: [PATCH] git-1\n\n"
        "Why.\n---\n a | 1 +\n\ndiff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -0,0 +1 @@\n+.\n"
    )
    command = [unpacked("git-email", "usr/lib/git-core/git-send-email"), f"--sendmail-cmd={door.sendmail}"]
    command += ["--from=ann@example.com", "--to=bob@example.net", "--cc=eve@example.org", "--suppress-cc=all"]
    git = {"GIT_CONFIG_NOSYSTEM": "1"}
    git |= {
        f"GIT_{who}_{what}": "ann@example.com"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    done = start(["perl", *command, "--confirm=never", "--quiet", str(patch)], b"", door.directory, git)
    assert done.returncode == 0, done
    stored = door.taken("Subject: [PATCH] git-1")
    assert envelope(stored)[1:] == ["bob@example.net", "eve@example.org"]
    assert b"\r\n+.\r\n" in stored


@up_and_down
def test_mutt(door):
    settings = [
        f"set sendmail='{door.sendmail} -oem -oi'",
        "unset record",
        "set from='ann@example.com'",
        "unset use_domain",
    ]
    argv = [program("mutt"), "-n", "-F", "/dev/null"]
    argv += [word for setting in settings for word in ("-e", setting)]
    done = start(
        [*argv, "-s", "mutt-1", "-b", "eve@example.org", "--", "bob@example.net"],
        b"hello\n.\nlast\n",
        door.directory,
    )
    assert done.returncode == 0, done
    stored = door.taken("Subject: mutt-1")
    assert sorted(envelope(stored)[1:]) == ["bob@example.net", "eve@example.org"]
    assert b"\r\n.\r\nlast\r\n" in stored


@up_and_down
def test_mail_1(door):
    mailrc = door.directory / "mailrc"
    mailrc.write_text(f"set sendmail={door.sendmail}\n")
    mailx = unpacked("bsd-mailx", "usr/bin/bsd-mailx")
    done = start([mailx, "-s", "mailx-1", "root"], b"hello\n", door.directory, {"MAILRC": str(mailrc)})
    assert done.returncode == 0, done
    stored = door.taken("Subject: mailx-1")
    assert envelope(stored)[1:] == ["ops@example.com"]
    assert b"To: root@here.example\r\n" in header(stored)


@up_and_down
def test_nodemailers_sendmail_transport(door):
    order = {
        "modules": str(node_modules("nodemailer")),
        "path": str(door.sendmail),
        "from": "Ann <ann@example.com>",
    }
    order |= {"to": "bob@example.net", "bcc": "eve@example.org", "subject": "node-1"}
    script = TESTBED / "sendmail_with_nodemailer.cjs"
    done = start([program("node"), str(script)], json.dumps(order).encode(), door.directory)
    assert done.returncode == 0, done
    stored = door.taken("Subject: node-1")
    assert sorted(envelope(stored)[1:]) == ["bob@example.net", "eve@example.org"]
    assert b"\r\n\r\n.\r\n..two\r\nlast\r\n" in stored


@up_and_down
def test_pythons_email_through_a_pipe(door):
    """As Django's third-party back ends and countless scripts do it: `sendmail -t -oi`."""
    script = (
        "import subprocess, sys; from email.message import EmailMessage\n"
        "m = EmailMessage(); m['From'] = 'J\\u00f6rg <joerg@example.com>'; m['To'] = 'bob@example.net'\n"
        "m['Subject'] = 'python-1'; m.set_content('Gr\\u00fc\\u00dfe')\n"
        "sys.exit(subprocess.run([sys.argv[1], '-t', '-oi'], input=m.as_bytes()).returncode)"
    )
    done = start([sys.executable, "-c", script, str(door.sendmail)], b"", door.directory)
    assert done.returncode == 0, done
    assert envelope(door.taken("Subject: python-1"))[1:] == ["bob@example.net"]


CRON_MAIL = (
    "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@host> {}\nMIME-Version: 1.0\n"
    "Content-Type: text/plain; charset=UTF-8\nX-Cron-Env: <SHELL=/bin/sh>\n\nout\n"
)


@up_and_down
def test_cron(door):
    done = door.run("-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root", given=CRON_MAIL.format("cron-1"))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    stored = door.taken("Subject: Cron <root@host> cron-1")
    assert envelope(stored)[1:] == ["ops@example.com"]
    assert header(stored).count(b"\r\nDate: ") == header(stored).count(b"\r\nMessage-ID: ") == 1
    assert b"From: root@here.example (Cron Daemon)\r\nTo: root@here.example\r\n" in header(stored)


@up_and_down
def test_a_pipe_that_writes_no_header(door):
    done = door.run("-F", "Log Watch", "-v", "bob@example.net", given="pipe-1\nTo be read\n")
    assert done.returncode == 0, done
    assert any(words in done.stderr for words in (b"Ok: queued as ", b"the next one takes the message in"))
    stored = door.taken("pipe-1")
    sender, recipient = envelope(stored)
    assert sender.endswith("@here.example")
    assert recipient == "bob@example.net"
    assert f"From: Log Watch <{sender}>\r\n\r\npipe-1\r\nTo be read\r\n".encode() in stored


def test_resent_fields_decide_to_whom(door):
    text = (
        "From: ann@example.com\nTo: first@example.net\nResent-To: bob@example.net\n"
        "Resent-Bcc: eve@example.org\nSubject: resent-1\n\nx\n"
    )
    assert door.run("-t", given=text).returncode == 0
    stored = door.taken("resent-1")
    assert envelope(stored)[1:] == ["bob@example.net", "eve@example.org"]
    assert b"Resent-Bcc" not in header(stored)
    assert b"To: first@example.net\r\n" in header(stored)


@up_and_down
@pytest.mark.parametrize(
    ("arguments", "given", "code", "words"),
    [
        (["a@b.example", "bad@@b"], "Subject: x\n\nx\n", os.EX_NOUSER, "<bad@@b>: "),
        (["-t"], "To: a@b.example,\n c d@b.example\n\nx\n", os.EX_NOUSER, "<c d@b.example>: "),
        (["-f", "ann@@b.example", "a@b.example"], "Subject: x\n\nx\n", os.EX_DATAERR, "malformed label"),
        (["-V", "x" * 101, "a@b.example"], "Subject: x\n\nx\n", os.EX_DATAERR, "ENVID must be"),
        (["a@b.example"], "Subject: x\n\n\0\n", os.EX_DATAERR, "NUL character"),
        (["a@b.example"], "Subject: x\n\nx\rx\n", os.EX_DATAERR, "bare CR or LF"),
    ],
)
def test_invalid_mail_is_refused_with_and_without_a_receiver(door, arguments, given, code, words):
    before = door.queued()
    done = door.run(*arguments, given=given)
    assert (done.returncode, words in done.stderr.decode()) == (code, True), done
    assert (door.queued(), list((door.relay.spool / "drop").iterdir())) == (before, [])


def test_dsn_options_and_the_null_sender_arrive(door):
    options = ("-N", "success,failure", "-R", "hdrs", "-V", "id+1", "-f", "<>")
    assert door.run(*options, "bob@example.net", given="Subject: dsn-1\n\nx\n").returncode == 0
    stored = door.taken("dsn-1")
    assert b"Spool-Options: RET=HDRS ENVID=id+2B1\r\nSpool-Sender: <>\r\n" in stored
    assert b"Spool-Recipient: <bob@example.net> NOTIFY=SUCCESS,FAILURE\r\n" in stored


def test_eight_bits_and_addresses_beyond_ascii_arrive(door):
    done = door.run(
        "-f", "j\xf6rg@b\xfccher.example", "bob@example.net", given="Subject: utf-1\n\nGr\xfc\xdfe\n"
    )
    assert done.returncode == 0, done
    stored = door.taken("utf-1")
    assert (
        "Spool-Options: BODY=8BITMIME SMTPUTF8\r\nSpool-Sender: <j\xf6rg@b\xfccher.example>".encode()
        in stored
    )


@pytest.mark.parametrize(
    ("arguments", "given", "code", "words"),
    [
        ([], "x-1", os.EX_USAGE, "no recipients"),
        (["-t"], "Subject: x-2\n\nx\n", os.EX_DATAERR, "names no recipient"),
        (["-Z"], "x-3", os.EX_USAGE, "unknown option -Z"),
        (["bob@example.net", "no address"], "x-4", os.EX_NOUSER, "<no address>: the receiver says: 501"),
        (["bob@example.net"], "x-5\0", os.EX_DATAERR, "NUL character"),
        (["bob@example.net"], "x-6 a\rb\n", os.EX_DATAERR, "bare CR"),
        (["bob@example.net"], "x-7\n" + "x\n" * 60_000, os.EX_DATAERR, "552 5.3.4"),
        (["-f", "a@b@c", "bob@example.net"], "x-8", os.EX_DATAERR, "501 5.1.7"),
        (["-t"], 'To: "bob@example.net\n\nx-9\n', os.EX_DATAERR, "quote is not closed"),
        (["bob@example.net"], "From: a@x.example\nFrom: b@x.example\n\nx-10\n", os.EX_DATAERR, "From field"),
    ],
)  # fmt: skip
def test_a_refusal_is_reported_and_nothing_of_it_is_queued(door, arguments, given, code, words):
    before = len(door.queued())
    done = door.run(*arguments, given=given)
    assert done.returncode == code
    assert done.stderr.startswith(b"sendmail: ")
    assert words in done.stderr.decode()
    assert len(door.queued()) == before


def test_smtp_on_standard_input(door):
    before = len(door.queued())
    said = "EHLO x\r\nMAIL FROM:<a@here.example>\r\nRCPT TO:<root>\r\nDATA\r\n"
    rest = "Subject: bs-1\r\n\r\nx\r\n.\r\nQUIT\r\n"
    done = door.run("-bs", given=said + rest)
    assert done.returncode == 0, done
    assert done.stdout.startswith(b"220 ")
    assert b"354 " in done.stdout
    assert done.stdout.endswith(b"221 2.0.0 Bye\r\n")
    assert len(door.queued()) == before + 1


def test_smtp_in_a_file_that_no_buffer_holds(door, tmp_path):
    """Its replies are read while it is sent: they are more than the receiver keeps for who does not read."""
    before, mails, recipients = len(door.queued()), 40, 1000
    script = tmp_path / "script"
    mail = b"MAIL FROM:<a@here.example>\r\n"
    mail += b"RCPT TO:<root> NOTIFY=SUCCESS,FAILURE,DELAY\r\n" * recipients
    mail += b"DATA\r\nSubject: bs-3\r\n\r\nx\r\n.\r\n"
    script.write_bytes(b"EHLO x\r\n" + mail * mails + b"QUIT\r\n")
    with script.open("rb") as given:
        done = subprocess.run(
            [str(door.sendmail), "-bs"], stdin=given, capture_output=True, check=False, timeout=300
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(b"221 2.0.0 Bye\r\n")
    assert done.stdout.count(b"250 2.1.5 ") == mails * recipients
    assert len(door.queued()) == before + mails


def test_smtp_that_is_cut_off_says_why(door, tmp_path):
    script = tmp_path / "script"
    script.write_bytes(b"NOOP\r\n" * 200_000)
    with script.open("rb") as given:
        done = subprocess.run(
            [str(door.sendmail), "-bs"], stdin=given, capture_output=True, check=False, timeout=300
        )
    assert done.returncode == os.EX_TEMPFAIL
    assert b"421 4.7.0 Too many commands without a message" in done.stdout.splitlines()[-1]


def test_it_prints_its_usage(door):
    for argument in ("--help", "-h"):
        done = door.run(argument)
        assert (done.returncode, done.stderr) == (0, b"")
        text = done.stdout.decode()
        assert text.startswith("Usage: mailer-sendmail ")
        for word in (
            "-t ",
            "-i ",
            "-bs ",
            "/run/mailer/submit.sock",
            "MAILER_SUBMIT_SOCKET",
            "75 ",
            "Examples:",
        ):
            assert word in text
    assert door.run("--version").stdout.decode() == f"mailer-sendmail, version {__version__}\n"


def test_addresses_are_verified_and_nothing_is_sent(door):
    before = len(door.queued())
    done = door.run("-bv", "root", "bob@example.net")
    assert done.returncode == 0
    assert b"root: 250 2.1.5 Recipient ok, completed to ops@example.com" in done.stdout
    done = door.run("-bv", "root", "bob@-")
    assert done.returncode == os.EX_NOUSER
    assert b"bob@-: 501 5.1.3" in done.stdout
    assert len(door.queued()) == before


def test_mailq_lists_and_newaliases_has_nothing_to_make(door, tmp_path):
    listing = write_sendmail(door.directory, door.socket, name="mailq")
    evil = tmp_path / "mailer"
    evil.mkdir()
    (evil / "__init__.py").write_text("raise SystemExit(99)")
    env = {"MAILER_CONFIG": str(door.relay.config)}
    assert (
        door.run("-f", "a@here.example", "bob@example.net", given="Subject: mailq-1\n\nx\n").returncode == 0
    )
    for argv in ([str(listing)], [str(door.sendmail), "-bp"]):
        # Not the package that lies in the current directory.
        done = start(argv, b"", tmp_path, env)
        assert done.returncode == 0, done
        assert b"bob@example.net" in done.stdout
    done = door.run(under=write_sendmail(door.directory, door.socket, name="newaliases"))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@as_root
@pytest.mark.parametrize("option", ["-bp", "-q"])
@pytest.mark.parametrize("closed", ["file", "directory"])
def test_the_queue_is_not_shown_to_other_users_and_the_reason_is_printed(door, option, closed):
    stranger = write_sendmail(door.directory, door.socket, name="stranger", uid=STRANGER)
    private = door.directory / closed
    private.mkdir(exist_ok=True, mode=0o711 if closed == "file" else 0o700)
    config = private / "config.json"
    config.touch(mode=0o600)
    done = door.run(option, under=stranger, env={"MAILER_CONFIG": str(config)})
    assert (done.returncode, done.stdout) == (os.EX_NOPERM, b"")
    assert b"stranger: only root and the spool's owner see the queue" in done.stderr


@as_root
def test_each_program_submits_as_its_own_user(door):
    mapped = write_sendmail(door.directory, door.socket, name="mapped", uid=CRON)
    stranger = write_sendmail(door.directory, door.socket, name="stranger", uid=STRANGER)
    done = door.run("-t", under=mapped, given="To: root\nSubject: uid-1\n\nx\n")
    assert done.returncode == 0, done
    stored = door.taken("uid-1")
    assert b"Spool-User: cron\r\nSpool-Peer: unix:4711\r\n" in stored
    assert envelope(stored) == ["4711@here.example", "ops@example.com"]
    before = len(door.queued())
    # Neither in the envelope nor in the header is it somebody else.
    done = door.run("-f", "boss@example.com", "root", under=mapped, given="x\n")
    assert (done.returncode, b"553 5.7.1 cron may not send as boss@example.com" in done.stderr) == (
        os.EX_NOPERM,
        True,
    )
    done = door.run("-t", under=mapped, given="From: boss@example.com\nTo: root\n\nx\n")
    assert done.returncode == os.EX_NOPERM
    done = door.run("root", under=stranger, given="x\n")
    assert done.returncode == os.EX_NOPERM
    assert b"User id 4712 may not submit here: localUsers maps it to no user" in done.stderr
    assert len(door.queued()) == before


UNNEEDED = {
    *("asyncio", "click", "concurrent", "dataclasses", "email", "hashlib", "inspect", "json", "logging"),
    *("msgspec", "pathlib", "random", "ssl", "subprocess", "tempfile", "threading", "typing", "urllib"),
}


@pytest.mark.usefixtures("unmeasured")
def test_it_imports_next_to_nothing(door):
    """Each costs milliseconds, for each mail that cron sends."""
    program = f"""
import atexit, os, sys
before = set(sys.modules)
os.environ["MAILER_SUBMIT_SOCKET"] = {str(door.socket)!r}
from mailer.sendmail.main import main
code = main()
print(*sorted(set(sys.modules) - before))
sys.exit(code)
"""
    done = start(
        [sys.executable, "-I", "-c", program, "-t"],
        b"From: a@example.com\nTo: bob@example.net\nSubject: imports\n\nx\n",
        door.directory,
    )
    assert done.returncode == 0, done
    imported = set(done.stdout.decode().split())
    assert {name for name in imported if name.startswith("mailer.") and ".sendmail" not in name} == set()
    assert UNNEEDED & imported == set()
    assert len(imported) < 40, sorted(imported)
