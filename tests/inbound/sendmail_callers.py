"""Programs that hand mail to sendmail(8), each as its users run it: one subject, the same two recipients."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from testbed.capability import with_own_mounts
from testbed.sendmail import unpacked
from testbed.tools import node_modules, program

_TESTBED = Path(__file__).parents[1] / "testbed"
TO, BCC = "bob@example.net", "eve@example.org"


@dataclass(frozen=True)
class Call:
    """What to start, and what it gets."""

    argv: list[str]
    given: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict)

    def run(self, directory: Path) -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, "HOME": str(directory), **self.env}
        return subprocess.run(
            self.argv,
            input=self.given,
            capture_output=True,
            check=False,
            timeout=300,
            env=environment,
            cwd=directory,
        )


def php(sendmail: Path, subject: str) -> Call:
    headers = f"From: shop@example.com\\r\\nBcc: {BCC}"
    script = f'exit(mail("{TO}", "{subject}", "hello", "{headers}") ? 0 : 1);'
    return Call([program("php"), "-d", f"sendmail_path={sendmail} -t -i", "-r", script])


def mutt(sendmail: Path, subject: str) -> Call:
    settings = (f"set sendmail='{sendmail} -oem -oi'", "unset record", "set from='ann@example.com'")
    words = [word for each in settings for word in ("-e", each)]
    return Call(
        [program("mutt"), "-n", "-F", "/dev/null", *words, "-s", subject, "-b", BCC, "--", TO], b"x\n"
    )


def mail(sendmail: Path, subject: str) -> Call:
    mailrc = sendmail.with_name("mailrc")
    mailrc.write_text(f"set sendmail={sendmail}\n")
    argv = [unpacked("bsd-mailx", "usr/bin/bsd-mailx"), "-s", subject, "-b", BCC, TO]
    return Call(argv, b"hello\n", {"MAILRC": str(mailrc)})


def git(sendmail: Path, subject: str) -> Call:
    patch = sendmail.with_name(f"{subject}.patch")
    patch.write_text(
        "From 1234567890123456789012345678901234567890 Mon Sep 17 00:00:00 2001\n"
        "From: Ann <ann@example.com>\nDate: Sun, 29 Nov 2026 09:00:00 +0000\n"
        f"Subject: {subject}\n\nWhy.\n---\n"
    )
    argv = [unpacked("git-email", "usr/lib/git-core/git-send-email"), f"--sendmail-cmd={sendmail}"]
    argv += ["--from=ann@example.com", f"--to={TO}", f"--cc={BCC}", "--suppress-cc=all", "--confirm=never"]
    whose = {
        f"GIT_{who}_{what}": "ann@example.com"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    return Call(["perl", *argv, "--quiet", str(patch)], env={"GIT_CONFIG_NOSYSTEM": "1", **whose})


def nodemailer(sendmail: Path, subject: str) -> Call:
    order = {"modules": str(node_modules()), "path": str(sendmail), "from": "Ann <ann@example.com>"}
    order |= {"to": TO, "bcc": BCC, "subject": subject}
    script = _TESTBED / "sendmail_with_nodemailer.cjs"
    return Call([program("node"), str(script)], json.dumps(order).encode())


def symfony(sendmail: Path, subject: str) -> Call:
    return Call([program("php"), str(_TESTBED / "sendmail_with_symfony.php"), f"{sendmail} -t -i", subject])


def symfony_by_smtp(sendmail: Path, subject: str) -> Call:
    """Its transport's default."""
    return Call([program("php"), str(_TESTBED / "sendmail_with_symfony.php"), f"{sendmail} -bs", subject])


def django(sendmail: Path, subject: str) -> Call:
    return Call(["/usr/bin/python3", str(_TESTBED / "sendmail_with_django.py"), str(sendmail), subject])


def python(sendmail: Path, subject: str) -> Call:
    """As countless scripts do it."""
    script = (
        "import subprocess, sys; from email.message import EmailMessage\n"
        f"m = EmailMessage(); m['From'] = 'ann@example.com'; m['To'] = '{TO}'; m['Bcc'] = '{BCC}'\n"
        "m['Subject'] = sys.argv[2]; m.set_content('hello')\n"
        "sys.exit(subprocess.run([sys.argv[1], '-t', '-oi'], input=m.as_bytes()).returncode)"
    )
    return Call([sys.executable, "-c", script, str(sendmail), subject])


def pipe(sendmail: Path, subject: str) -> Call:
    """As logwatch writes: a header and a report, into a shell's pipe."""
    text = f"To: {TO}\nFrom: root@here.example\nSubject: {subject}\n\n ### Logwatch ###\n"
    return Call(["/bin/sh", "-c", f"cat | {sendmail} -oi {TO} {BCC}"], text.encode())


CALLERS: dict[str, Callable[[Path, str], Call]] = {
    each.__name__: each
    for each in (php, mutt, mail, git, nodemailer, symfony, symfony_by_smtp, django, python, pipe)
}


def cron(sendmail: Path, job: str) -> Call:
    """Debian's cron, in a file system of its own where sendmail is ours, with a job for root at its start."""
    place = sendmail.with_name("cron")
    place.mkdir()
    (place / "sbin").mkdir()
    (place / "sbin" / "sendmail").symlink_to(sendmail)
    (place / "tab").write_text(f"@reboot {job}\n")
    steps = (
        "mount -t tmpfs tmpfs /var/spool",
        "mkdir -p /var/spool/cron/crontabs",
        f"install -m 600 {place}/tab /var/spool/cron/crontabs/root",
        "mount -t tmpfs tmpfs /run",
        f"mount --bind {place}/sbin /usr/sbin",
        f"exec {unpacked('cron', 'usr/sbin/cron')} -f",
    )
    return Call([*with_own_mounts(), "/bin/sh", "-c", " && ".join(steps)])
