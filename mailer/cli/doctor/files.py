"""Check the configuration and the files that it names: valid, and readable by this user and no other."""

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from mailer.cli.file_access import unreadable
from mailer.config import checks
from mailer.config.load import Loaded
from mailer.config.model import Config, DkimKey
from mailer.config.problem import ConfigError
from mailer.config.trust import chmod, read_trusted
from mailer.config.users import read_users
from mailer.config.warnings import warnings
from mailer.mail.finding import Finding, Grade
from mailer.mail.reply import printable
from mailer.receive.listen.certificate import load_context

_MAX_CHAIN = 2**20
"""The most bytes to read of a certificate chain, so that a wrong path does not fill the memory."""
_RENEWAL_DAYS = 14
"""Days before its expiry by which a certificate should have been renewed."""
_SENDMAIL = Path("/usr/sbin/sendmail")


def broken_configuration(error: ConfigError) -> list[Finding]:
    """Report why the configuration cannot be loaded."""
    return [
        Finding(problem.path, "config", Grade.PROBLEM, problem.message, "see mailer config check")
        for problem in error.problems
    ]


def configuration_findings(loaded: Loaded) -> Iterator[Finding]:
    """Report what keeps the programs from starting, and their warnings."""
    refusals = checks.refuse_to_serve(loaded)
    for problem in refusals:
        yield Finding(problem.path, "config", Grade.PROBLEM, problem.message)
    for problem in warnings(loaded):
        if problem not in refusals:
            yield Finding(problem.path, "config", Grade.WARNING, problem.message)
    if not refusals:
        yield Finding(str(loaded.path), "config", Grade.OK, "can be used")


def file_findings(loaded: Loaded) -> Iterator[Finding]:
    """Check the files, as the user that the programs run as."""
    config = loaded.config
    home = loaded.path.parent
    yield _readable(loaded.path)
    yield from _users(config, home)
    yield from _keys(config, home)
    yield from _certificate(config, home)
    yield from sendmail_findings(config)


def _readable(path: Path) -> Finding:
    if os.access(path, os.R_OK):
        mode = stat.S_IMODE(path.stat().st_mode)
        return Finding(str(path), "config", Grade.OK, f"user {os.geteuid()} can read it; mode {mode:04o}")
    return Finding(
        str(path),
        "config",
        Grade.PROBLEM,
        f"user {os.geteuid()} cannot read it",
        unreadable(path, path.parent) or chmod(path),
    )


def _users(config: Config, home: Path) -> Iterator[Finding]:
    path = config.users_file
    try:
        users = read_users(path)
        mode = path.stat().st_mode if users else 0  # Only for the report.
    except ConfigError as error:
        for problem in error.problems:
            yield Finding(
                problem.path,
                "users",
                Grade.PROBLEM,
                problem.message,
                "correct it, or restore it from a backup",
            )
        return
    except OSError as error:
        todo = unreadable(path, home) or f"make it readable for the programs: chgrp, then {chmod(path)}"
        yield Finding(str(path), "users", Grade.PROBLEM, f"cannot be read: {error.strerror}", todo)
        return
    if users:
        yield Finding(str(path), "users", Grade.OK, f"holds {len(users)}; mode {stat.S_IMODE(mode):04o}")
    else:
        yield Finding(str(path), "users", Grade.SKIPPED, "has no users; defaultUsername is the only login")


def _signing_keys(config: Config) -> tuple[DkimKey, ...]:
    return config.dkim.signing_keys if config.dkim.enabled else ()


def _keys(config: Config, home: Path) -> Iterator[Finding]:
    from mailer.send.dkim.key_files import KeyFile, KeyTrouble  # noqa: PLC0415 - slow to import

    for key in _signing_keys(config):
        if key.private_key_path is None:
            continue  # Reported with the configuration.
        try:
            KeyFile(key.private_key_path).key()
        except KeyTrouble as trouble:
            yield Finding(str(key.private_key_path), "key", Grade.PROBLEM, str(trouble), _key_todo(key, home))
        else:
            yield Finding(
                str(key.private_key_path), "key", Grade.OK, "can sign, and no other user can read it"
            )


def _key_todo(key: DkimKey, home: Path) -> str:
    """Advise what to do about an unusable key, but never to make another where a key file exists."""
    path = key.private_key_path
    assert path is not None
    if closed := unreadable(path, home):
        return f"until then mail waits: {closed}"
    if path.exists():
        return "until then mail waits: put the right key there (its record is published), from a backup"
    return f"until then mail waits: mailer dkim keygen --domain {key.domain} --selector {key.selector}"


def _certificate(config: Config, home: Path) -> Iterator[Finding]:
    certificate, key = config.tls.certificate_path, config.tls.private_key_path
    if certificate is None or key is None:
        return
    try:
        load_context(certificate, key, None)
        days = _days_left(read_trusted(certificate, _MAX_CHAIN)[0])
    except (OSError, ValueError) as error:
        words = f"cannot be used: {getattr(error, 'strerror', None) or error}"
        closed = unreadable(certificate, home) or unreadable(key, home)
        todo = closed or (
            "see tls.certificatePath and tls.privateKeyPath: PEM, of one pair, without a passphrase"
        )
        yield Finding(str(certificate), "tls", Grade.PROBLEM, printable(words), todo)
        return
    grade = Grade.PROBLEM if days < 0 else Grade.WARNING if days < _RENEWAL_DAYS else Grade.OK
    words = f"expired {-days} days ago" if days < 0 else f"belongs to its key; expires in {days} days"
    todo = "" if grade is Grade.OK else "renew it; the receiver loads the new one without a restart"
    yield Finding(str(certificate), "tls", grade, words, todo)


def _days_left(pem: bytes) -> int:
    """Return the whole days until the first certificate in a PEM file expires, negative after that.

    Python's `ssl` can read the expiry only of a peer's certificate.

    Raises:
        ValueError: the file has no certificate.
    """
    certificate = x509.load_pem_x509_certificate(pem)
    return (certificate.not_valid_after_utc - datetime.now(UTC)).days


def sendmail_findings(config: Config, path: Path = _SENDMAIL) -> Iterator[Finding]:
    """Report which program /usr/sbin/sendmail is, if local programs may submit here (`submitSocket`)."""
    if config.submit_socket is None:
        return
    about, todo = str(path), "scripts/install --sendmail puts mailer-sendmail there"
    try:
        program = path.resolve(strict=True)
        with program.open("rb") as file:
            compiled = file.read(4) == b"\x7fELF"
    except OSError as error:
        words = f"programs cannot call it: {error.strerror}"
        yield Finding(about, "sendmail", Grade.SKIPPED, words, todo)
        return
    if program.name != "mailer-sendmail":
        yield Finding(
            about, "sendmail", Grade.SKIPPED, f"is another program: {printable(str(program))}", todo
        )
    elif compiled:
        yield Finding(about, "sendmail", Grade.OK, "is mailer-sendmail, compiled")
    else:
        words = "is mailer-sendmail, which starts Python for each mail; scripts/front compiles a faster one"
        yield Finding(about, "sendmail", Grade.OK, words)
