"""JSON on standard output, for programs; what a terminal would obey is escaped."""

import msgspec

from mailer.mail.reply import printable_json


def json_line(value: object) -> str:
    """Write a value as one line of JSON."""
    return printable_json(msgspec.json.encode(value).decode()) + "\n"
