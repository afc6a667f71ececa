"""Real submission clients, all called the same way."""

import json
import smtplib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from testbed.tools import node_modules, program

_NODEMAILER = Path(__file__).with_name("submit_with_nodemailer.cjs")
# Seconds; a client that hangs fails its test instead of hanging the run.
_PATIENCE = 120


@dataclass(frozen=True, slots=True)
class Server:
    """Where to submit, and as whom; without a username, unauthenticated."""

    host: str
    port: int
    username: str = ""
    password: str = ""


@dataclass(frozen=True, slots=True)
class Submission:
    """What to submit. The message's lines end in CRLF; an empty sender is the null sender."""

    sender: str
    recipients: tuple[str, ...]
    message: bytes


class RefusedError(Exception):
    """The client ended with an error; the text is what it printed."""


Client = Callable[[Server, Submission, Path], str]
"""Submits one message, keeping its files in the given directory, and returns the client's transcript.

Raises RefusedError if the client says that the server did not take the message.
"""


def with_smtplib(server: Server, submission: Submission, directory: Path) -> str:
    """Python's own client; the transcript is the reply to the message."""
    del directory  # it keeps no files
    try:
        with smtplib.SMTP(server.host, server.port, timeout=_PATIENCE) as connection:
            if server.username:
                connection.login(server.username, server.password)
            else:
                connection.ehlo_or_helo_if_needed()
            eight_bit = not submission.message.isascii()
            beyond_ascii = not "".join((submission.sender, *submission.recipients)).isascii()
            options = ["SMTPUTF8"] * beyond_ascii + ["BODY=8BITMIME"] * eight_bit
            connection.command_encoding = "utf-8" if beyond_ascii else "ascii"
            _expect(250, connection.mail(submission.sender, options))
            for recipient in submission.recipients:
                _expect(250, connection.rcpt(recipient))
            return _expect(250, connection.data(submission.message))
    except smtplib.SMTPException as error:
        raise RefusedError(str(error)) from error


def with_swaks(server: Server, submission: Submission, directory: Path) -> str:
    """swaks ends the message with a line end of its own, always."""
    message = directory / "swaks.eml"
    message.write_bytes(submission.message.removesuffix(b"\r\n"))
    return _run(
        program("swaks"),
        f"--server={server.host}:{server.port}",
        *(("--auth-user", server.username, "--auth-password", server.password) if server.username else ()),
        *("--from", submission.sender or "<>", "--to", ",".join(submission.recipients)),
        *("--data", f"@{message}"),
    )


def with_curl(server: Server, submission: Submission, directory: Path) -> str:
    message = directory / "curl.eml"
    message.write_bytes(submission.message)
    return _run(
        program("curl"),
        *("--silent", "--show-error", "--verbose"),
        *("--url", f"smtp://{server.host}:{server.port}/client.test"),
        *(("--user", f"{server.username}:{server.password}") if server.username else ()),
        *("--mail-from", f"<{submission.sender}>"),
        *(argument for recipient in submission.recipients for argument in ("--mail-rcpt", f"<{recipient}>")),
        *("--upload-file", str(message)),
    )


def with_msmtp(server: Server, submission: Submission, directory: Path) -> str:
    """msmtp stands in for sendmail, so it reads Unix line ends; it is told to leave the header alone."""
    settings = directory / "msmtprc"
    settings.touch(mode=0o600)
    login = ""
    if server.username:
        login = f'auth plain\nuser {server.username}\npassword "{server.password}"\n'
    settings.write_text(
        f"account default\nhost {server.host}\nport {server.port}\ntls off\n{login}"
        "set_from_header off\nset_date_header off\nset_msgid_header off\nremove_bcc_headers off\n"
    )
    return _run(
        program("msmtp"),
        *("--file", str(settings), "--debug", f"--from={submission.sender}", "--"),
        *submission.recipients,
        given=submission.message.replace(b"\r\n", b"\n"),
    )


def with_nodemailer(server: Server, submission: Submission, directory: Path) -> str:
    message = directory / "nodemailer.eml"
    message.write_bytes(submission.message)
    order = {
        "host": server.host,
        "port": server.port,
        "user": server.username,
        "pass": server.password,
        "from": submission.sender,
        "to": submission.recipients,
        "message": str(message),
        "modules": str(node_modules("nodemailer")),
    }
    return _run(program("node"), str(_NODEMAILER), given=json.dumps(order).encode())


CLIENTS: dict[str, Client] = {
    "smtplib": with_smtplib,
    "swaks": with_swaks,
    "curl": with_curl,
    "msmtp": with_msmtp,
    "nodemailer": with_nodemailer,
}


def _run(*argv: str, given: bytes = b"") -> str:
    done = subprocess.run(
        argv, input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_PATIENCE, check=False
    )
    transcript = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise RefusedError(f"{argv[0]} ended with {done.returncode}:\n{transcript}")
    return transcript


def _expect(code: int, reply: tuple[int, bytes]) -> str:
    if reply[0] != code:
        raise smtplib.SMTPResponseException(*reply)
    return f"{reply[0]} {reply[1].decode(errors='replace')}"
