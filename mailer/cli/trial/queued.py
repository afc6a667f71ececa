"""Submit a test mail to `mailer serve` like an application, and follow it while a runner delivers it."""

import smtplib
import ssl
import sys
import time

import click

from mailer.cli.exits import Exit, Failure
from mailer.cli.outlook import outlook
from mailer.cli.receiving.peer_user import PRIVILEGED, stranger
from mailer.cli.setup import command_context
from mailer.cli.trial import Order, mail
from mailer.config.load import Loaded
from mailer.config.model import Config
from mailer.mail.reply import printable
from mailer.monitor import message_story
from mailer.monitor.message_story import Story
from mailer.spool.layout import Place
from mailer.spool.state.pause import is_paused

_POLL_INTERVAL = 0.1
"""Seconds between two looks at the message's state."""
_TIMEOUT = 60.0


def submit(config: Config, order: Order, sender: str) -> str:
    """Submit the mail as an application does; return its id.

    Raises:
        Failure: the receiver does not answer, or refused something; the text has its reply.
    """
    host = config.bind_address if config.bind_address not in {"", "0.0.0.0", "::"} else "127.0.0.1"  # noqa: S104
    where = f"{host}:{config.smtp_port}"
    try:
        with smtplib.SMTP(host, config.smtp_port, timeout=_TIMEOUT) as session:
            _refuse_strangers(session, config, where)
            session.ehlo()
            if not session.has_extn("auth") and session.has_extn("starttls"):
                # Not verified: this is the same host, and its certificate is for another name.
                session.starttls(context=_unverified())
                session.ehlo()
            _log_in(session, config, order)
            return _hand_over(session, order, sender)
    except smtplib.SMTPResponseException as error:
        said = error.smtp_error
        words = printable(said.decode(errors="replace") if isinstance(said, bytes) else said)
        raise Failure(Exit.FINDINGS, f"mailer serve at {where} says: {error.smtp_code} {words}") from error
    except (OSError, smtplib.SMTPException) as error:
        raise Failure(
            Exit.UNAVAILABLE,
            f"mailer serve does not answer at {where}: {printable(str(error))}. Start it: mailer up, or as a "
            "service systemctl start mailer (journalctl -u mailer says why it ended). Or test delivery "
            "without it: mailer test --dialogue",
        ) from error


def _refuse_strangers(session: smtplib.SMTP, config: Config, where: str) -> None:
    """Keep the password from another user's program that listens on the port while the receiver is down."""
    assert session.sock is not None
    user = stranger(session.sock, config.spool_dir)
    if user is not None:
        session.close()  # Otherwise the context manager would send QUIT, and raise for its reply.
        raise Failure(
            Exit.UNAVAILABLE,
            f"a program of user id {user} answers at {where}, not mailer serve; it was sent no password. "
            f"Stop it (`ss -ltnp` names it), or set smtpPort; a port below {PRIVILEGED} is root's alone",
        )


def _log_in(session: smtplib.SMTP, config: Config, order: Order) -> None:
    if not config.auth_required and not order.user:
        return
    name = order.user or config.default_username
    if not name:
        raise Failure(Exit.USAGE, "there is no defaultUsername: name a user: --user NAME (mailer user ls)")
    password = config.default_password.reveal() if name == config.default_username else _ask(name)
    session.login(name, password)


def _ask(name: str) -> str:
    if not sys.stdin.isatty():
        if given := sys.stdin.readline().rstrip("\n"):
            return given
        raise Failure(
            Exit.USAGE, f"--user {printable(name)}: its password is read from standard input, which has none"
        )
    asked: str = click.prompt(f"Password of {name}", hide_input=True, err=True)
    return asked


def _hand_over(session: smtplib.SMTP, order: Order, sender: str) -> str:
    session.ehlo_or_helo_if_needed()
    options = [] if (sender + order.to).isascii() else ["SMTPUTF8"]
    for code, text in (session.mail(sender, options), session.rcpt(order.to)):
        if code // 100 != 2:
            raise smtplib.SMTPResponseException(code, text)
    code, text = session.data(mail.text(sender, order.to, time.time()))
    if code != 250:
        raise smtplib.SMTPResponseException(code, text)
    return text.decode().split()[-1]


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def watch(loaded: Loaded, message_id: str, patience: float) -> Story:
    """Return the message's story once its first attempt is over, or after `patience` seconds."""
    deadline = time.monotonic() + patience
    with command_context(loaded) as context:
        while True:
            try:
                told = message_story.tell(
                    context.spool, message_id, outlook(context.config, context.spool, time.time())
                )
            except message_story.Moving:
                pass
            else:
                if _is_over(told) or is_paused(context.spool) or time.monotonic() > deadline:
                    return told
            time.sleep(_POLL_INTERVAL)


def _is_over(told: Story) -> bool:
    seen = told.seen
    if seen is None or seen.entry is None or seen.spot.place in {Place.HOLD, Place.FAILED, Place.SENT}:
        return True
    return seen.spot.place is not Place.CUR and seen.entry.state.attempts > 0
