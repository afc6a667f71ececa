"""The program `mailer-sendmail`, also installed as `mailq` and `newaliases`: command line to exit code."""

import os
import pwd
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep

from mailer import __version__
from mailer.sendmail.addresses import addresses
from mailer.sendmail.arguments import Order, parse, program
from mailer.sendmail.failure import Down, Failure, Unreachable
from mailer.sendmail.message import Message, from_field, read
from mailer.sendmail.submission import Receiver, check, commands

SOCKET = "/run/mailer/submit.sock"
"""The usual path of `submitSocket`; `$MAILER_SUBMIT_SOCKET` overrides it."""
_RESTART = 5.0
"""Seconds to wait for a receiver that may be restarting."""
_PAUSE = 0.1
"""Seconds between two attempts to connect to it."""


def main() -> int:
    """Run the program, and return its exit code (sysexits.h): 0 once the message is durable."""
    name = program(sys.argv)
    try:
        order = parse(sys.argv)
        return _MODES[order.mode](order)
    except Failure as failure:
        _say(f"{name}: {failure}")
        return failure.code
    except OSError as error:
        _say(f"{name}: {error.strerror or error}; try again later")
        return os.EX_TEMPFAIL
    except KeyboardInterrupt:
        return 130


def _send(order: Order) -> int:
    sender, recipients, message = prepared(order, read(0, dot_ends=order.dot_ends))
    queued = _handed_over(order, sender, recipients, message)
    if order.verbose:
        _say(queued)
    return os.EX_OK


def prepared(order: Order, data: bytes) -> tuple[str, list[str], Message]:
    """Return the sender, the recipients, and the message, with a From field added if it had none.

    Args:
        order: the parsed command line.
        data: the message from standard input.

    Raises:
        Failure: with EX_USAGE or EX_DATAERR.
    """
    recipients = [address for text in order.recipients for address in addresses(text)]
    message = Message(data)
    if order.from_header:
        recipients += message.recipients()
    if not recipients:
        if order.from_header:
            raise Failure(os.EX_DATAERR, "the header names no recipient (To, Cc, Bcc), nor does the command")
        raise Failure(os.EX_USAGE, "no recipients: name them, or use -t to take those of the header")
    sender = _sender(order)
    if not message.has(b"from"):
        message.fields.insert(0, _author(order, sender))
    return sender, recipients, message


def _handed_over(order: Order, sender: str, recipients: list[str], message: Message) -> str:
    """Submit the message, and wait for a receiver that restarts; or leave it in the drop directory."""
    wire = message.wire()
    deadline = monotonic() + _RESTART
    while True:
        try:
            return _submit(order, sender, recipients, wire)
        except Unreachable as trouble:
            if isinstance(trouble, Down) and (name := _drop(order, sender, recipients, message)):
                return name
            if monotonic() >= deadline:
                raise
            sleep(_PAUSE)


def _drop(order: Order, sender: str, recipients: list[str], message: Message) -> str:
    """Leave the message in the drop directory; return a report, empty if this user has none to use."""
    from mailer.sendmail import drop  # noqa: PLC0415 - only without a receiver

    if (place := drop.place()) is None:
        return ""
    if not message.has(b"date"):
        message.fields.insert(0, drop.dated())
    text = message.text()
    _check_form(order, sender, recipients, text)
    envelope = commands(sender, recipients, _parameters(order, text), order.notify)
    name = drop.hand_over(place, envelope, text)
    return f"no receiver runs: the next one takes the message in from {place}/{name}"


def _check_form(order: Order, sender: str, recipients: list[str], text: bytes) -> None:
    """Refuse a message that every receiver would refuse: the caller would not learn of that later."""
    from mailer.sendmail.syntax import (  # noqa: PLC0415 - only without a receiver
        wrong_address,
        wrong_parameters,
        wrong_text,
    )

    if sender and (wrong := wrong_address(sender)):
        raise Failure(os.EX_DATAERR, f"the sender <{_shown(sender)}>: {wrong}")
    if wrong := wrong_parameters(_parameters(order, text)) or wrong_text(text):
        raise Failure(os.EX_DATAERR, wrong)
    for recipient in recipients:
        if wrong := wrong_address(recipient):
            raise Failure(os.EX_NOUSER, f"<{_shown(recipient)}>: {wrong}; nothing was sent to anybody")


def _parameters(order: Order, text: bytes) -> list[str]:
    """Return the parameters of MAIL."""
    parameters = [f"SIZE={len(text)}"]
    if not text.isascii():
        parameters.append("BODY=8BITMIME")
    if order.ret:
        parameters.append(f"RET={order.ret}")
    if order.envid:
        parameters.append(f"ENVID={order.envid}")
    return parameters


def _submit(order: Order, sender: str, recipients: list[str], wire: bytes) -> str:
    with _connected() as connection:
        receiver = Receiver(connection)
        replies = receiver.envelope(sender, recipients, _parameters(order, wire), order.notify)
        for recipient, reply in zip(recipients, replies, strict=True):
            # All recipients or none: after a failure the caller may send the whole message again.
            _check_recipient(recipient, reply)
        return receiver.message(wire)


def _check_recipient(recipient: str, reply: tuple[int, str]) -> None:
    try:
        check(reply, os.EX_NOUSER)
    except Failure as failure:
        words = f"<{_shown(recipient)}>: {failure}; nothing was sent to anybody"
        raise type(failure)(failure.code, words) from None


def _shown(address: str) -> str:
    return address if address.isprintable() else ascii(address)


def _verify(order: Order) -> int:
    """Print for each recipient whether it would be accepted, and as which address; nothing is sent."""
    code = os.EX_OK
    with _connected() as connection:
        receiver = Receiver(connection)
        recipients = [address for text in order.recipients for address in addresses(text)]
        replies = receiver.envelope(_sender(order), recipients, [], "")
    for recipient, (number, text) in zip(recipients, replies, strict=True):
        sys.stdout.write(f"{recipient}: {number} {text}\n")
        if number // 100 != 2:
            code = os.EX_TEMPFAIL if number // 100 == 4 else os.EX_NOUSER
    return code


def _smtp(_: Order) -> int:
    """Speak SMTP on standard input and output: relay everything to the receiver, or leave drops."""
    try:
        with _connected() as connection:
            _pass_on(connection)
    except Down:
        from mailer.sendmail import drop  # noqa: PLC0415 - only without a receiver

        if (place := drop.place()) is None:
            raise
        from mailer.sendmail.session import Session  # noqa: PLC0415 - as above

        with suppress(BrokenPipeError):  # each message taken so far has had its reply
            Session(0, 1, place).serve()
    return os.EX_OK


def _pass_on(connection: socket.socket) -> None:
    from mailer.sendmail.relay import relay  # noqa: PLC0415 - rarely needed

    try:
        relay(connection, 0, 1)
    except ConnectionError as error:
        words = f"the receiver has closed the connection: {error.strerror}"
        raise Unreachable(os.EX_TEMPFAIL, words) from error


def _command(*arguments: str) -> Callable[[Order], int]:
    def run(_: Order) -> int:
        from mailer.sendmail.standin import interpreter, is_closed  # noqa: PLC0415 - not needed to send mail

        if is_closed():
            words = "only root and the spool's owner see the queue: this user may not read the configuration"
            raise Failure(os.EX_NOPERM, words)
        os.execv(sys.executable, [*interpreter(), "-m", "mailer", *arguments])  # noqa: S606 - no shell is the point

    return run


def _nothing(_: Order) -> int:
    """Do nothing: `aliases` are in the configuration, which the receiver reads at SIGHUP."""
    return os.EX_OK


def _help(_: Order) -> int:
    from mailer.sendmail.usage import HELP  # noqa: PLC0415 - not needed to send mail

    sys.stdout.write(HELP)
    return os.EX_OK


def _version(_: Order) -> int:
    sys.stdout.write(f"mailer-sendmail, version {__version__}\n")
    return os.EX_OK


_MODES: dict[str, Callable[[Order], int]] = {
    "send": _send,
    "smtp": _smtp,
    "verify": _verify,
    "mailq": _command("spool", "ls"),
    "flush": _command("send", "--once"),
    "newaliases": _nothing,
    "help": _help,
    "version": _version,
}


def _sender(order: Order) -> str:
    if order.sender is None:
        return _login()
    found = addresses(order.sender)
    if len(found) > 1:
        raise Failure(os.EX_USAGE, "-f needs one address")
    return found[0] if found else ""


def _login() -> str:
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _author(order: Order, sender: str) -> bytes:
    name = order.full_name
    if name is None:
        name = os.environ.get("NAME", "") or _real_name()
    return from_field(name.strip(), sender or _login())


def _real_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_gecos.partition(",")[0]
    except KeyError:
        return ""


@contextmanager
def _connected() -> Iterator[socket.socket]:
    path = os.environ.get("MAILER_SUBMIT_SOCKET") or SOCKET
    try:
        unconnected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise Unreachable(os.EX_TEMPFAIL, f"no socket can be opened: {error.strerror}") from error
    with unconnected as connection:
        down = _connect(connection, path)
        if down is None:
            yield connection
            return
    with _stand_in(down) as connection:
        yield connection


def _connect(connection: socket.socket, path: str) -> Down | None:
    """Connect to the receiver; return the failure if it does not answer, else None."""
    try:
        connection.connect(path)
    except OSError as error:
        words = (
            f"the receiver does not answer at {path}: {error.strerror}. "
            "Is `mailer serve` running, with submitSocket set?"
        )
        return Down(os.EX_TEMPFAIL, words)
    return None


@contextmanager
def _stand_in(down: Down) -> Iterator[socket.socket]:
    from mailer.sendmail import drop  # noqa: PLC0415 - only without a receiver
    from mailer.sendmail.standin import configuration, standing_in  # noqa: PLC0415 - as above

    config = configuration()
    if config is None or drop.place() is not None:
        raise down
    with standing_in(config) as connection:
        yield connection


def _say(text: str) -> None:
    try:
        sys.stderr.write(f"{text}\n")
    except (OSError, ValueError):
        return  # standard error is closed; the exit code still reports the result
