"""JSON for standard output, with characters that could control a terminal escaped."""

import msgspec

from mailer.mail.reply import printable_json


def json_line(value: object) -> str:
    """Encode a value as one line of JSON."""
    return printable_json(msgspec.json.encode(value).decode()) + "\n"
