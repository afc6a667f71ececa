"""Reading the ledger: the lines that count, by day, in the order in which they were written."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from mailer.maillog.ledger import Line

_decoder = msgspec.json.Decoder(Line)
START = b'{"at":'


def days(directory: Path) -> list[str]:
    """Name the days that have a ledger file, the earliest first."""
    return sorted(path.name.removesuffix(".jsonl") for path in directory.glob("????????.jsonl"))


def read_day(directory: Path, day: str, containing: bytes = b"") -> Iterator[Line]:
    """Stream one day's lines.

    Args:
        directory: the spool's `log/`.
        day: as in the file's name.
        containing: only lines with these bytes, which is found without decoding the others.
    """
    try:
        with (directory / f"{day}.jsonl").open("rb") as file:
            for raw in file:
                if containing in raw and (line := decode(raw)):
                    yield line
    except FileNotFoundError:
        return


def decode(raw: bytes) -> Line | None:
    """Read one line; None for what is none.

    A crash may leave a line torn, with the next one behind it on the same line: what starts last counts.
    """
    try:
        return _decoder.decode(raw[max(0, raw.rfind(START)) :])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # The last two are what msgspec lets through for bad UTF-8 and deep nesting.
        return None


def history(directory: Path, message_id: str, since: str) -> Iterator[Line]:
    """Stream one message's events, from the day of its arrival (`YYYYMMDD`) on."""
    key = f'"id":"{message_id}"'.encode()
    for day in days(directory):
        if day >= since:
            yield from read_day(directory, day, containing=key)
