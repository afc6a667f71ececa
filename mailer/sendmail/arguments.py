"""Parses the command line of sendmail(8), as programs of the last forty years write it.

Options end at the first argument that is not one, even without `--`: a later argument may be an address from
an untrusted source, and must not become an option.
"""

import os

from mailer.sendmail.failure import Failure

_FLAGS = "GIUcimntvx"
_WITH_VALUE = "ABCFLNORVXbdefhopqr"
"""Options with a value, attached to the letter or in the next argument."""
_VALUE_ATTACHED = "dq"
"""Options whose value must be attached to the letter, because it is optional."""
_MODES = {"m": "send", "s": "smtp", "p": "mailq", "v": "verify", "i": "newaliases"}
_QUESTIONS = {"--help": "help", "-h": "help", "--version": "version"}
"""Recognised only as the single argument: elsewhere -h is the hop count, and output might not be read."""
_NAMES = {"mailq": "mailq", "newaliases": "newaliases"}
_IGNORE_DOTS = {"ignoredots", "ignoredots=true", "ignoredots=yes"}
_NOTIFY = ("SUCCESS", "FAILURE", "DELAY")
_XTEXT_BYTES = range(33, 127)


class Order:
    """The parsed command line."""

    def __init__(self) -> None:
        self.mode = "send"
        """`send`, `smtp`, `mailq`, `verify`, `newaliases`, `flush`, `help` or `version`."""
        self.from_header = False
        """-t: take recipients from the header."""
        self.dot_ends = True
        """A line with only a dot ends the message, unless -i is given."""
        self.sender: str | None = None
        """The value of -f or -r; None: use the login name."""
        self.full_name: str | None = None
        self.notify = ""
        self.ret = ""
        self.envid = ""
        """The value of -V, encoded as xtext."""
        self.verbose = False
        self.recipients: list[str] = []


def program(argv: list[str]) -> str:
    """Return the name by which the program was started."""
    return argv[0].rpartition("/")[2]


def parse(argv: list[str]) -> Order:
    """Parse a command line, which begins with the program's name.

    Raises:
        Failure: with EX_USAGE.
    """
    order = Order()
    order.mode = _NAMES.get(program(argv), "send")
    rest = argv[1:]
    if len(rest) == 1 and rest[0] in _QUESTIONS:
        order.mode = _QUESTIONS[rest[0]]
        return order
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in _FLAGS:
                _flag(order, letter)
                continue
            if letter not in _WITH_VALUE:
                raise Failure(os.EX_USAGE, f"unknown option -{letter}")
            if not letters and letter not in _VALUE_ATTACHED and rest:
                letters = rest.pop(0)
            elif not letters and letter not in _VALUE_ATTACHED:
                raise Failure(os.EX_USAGE, f"option -{letter} needs a value")
            _option(order, letter, letters)
            letters = ""
    order.recipients = rest
    return order


def _flag(order: Order, letter: str) -> None:
    match letter:
        case "i":
            order.dot_ends = False
        case "t":
            order.from_header = True
        case "v":
            order.verbose = True
        case "I":
            order.mode = "newaliases"


def _option(order: Order, letter: str, value: str) -> None:
    """Apply an option with its value; options that other implementations ignore are ignored, too."""
    match letter:
        case "b":
            order.mode = _mode(value)
        case "f" | "r":
            order.sender = value
        case "F":
            order.full_name = value
        case "N":
            order.notify = _notify(value)
        case "R":
            order.ret = _ret(value)
        case "V":
            order.envid = _xtext(value)
        case "o" | "O":
            if value == "i" or value.lower() in _IGNORE_DOTS:
                order.dot_ends = False
        case "q":
            order.mode = "flush"


def _mode(letter: str) -> str:
    if letter not in _MODES:
        raise Failure(os.EX_USAGE, f"-b{letter} is not offered; `mailer serve` is the daemon")
    return _MODES[letter]


def _ret(value: str) -> str:
    if value.upper() not in {"FULL", "HDRS"}:
        raise Failure(os.EX_USAGE, "-R must be full or hdrs")
    return value.upper()


def _notify(value: str) -> str:
    kinds = value.upper().split(",")
    if kinds != ["NEVER"] and not all(kind in _NOTIFY for kind in kinds):
        raise Failure(os.EX_USAGE, "-N must be never, or a list of success, failure, delay")
    return ",".join(dict.fromkeys(kinds))


def _xtext(value: str) -> str:
    """Encode a value as xtext (RFC 3461 4)."""
    return "".join(
        chr(byte) if byte in _XTEXT_BYTES and byte not in b"+=" else f"+{byte:02X}"
        for byte in os.fsencode(value)
    )
