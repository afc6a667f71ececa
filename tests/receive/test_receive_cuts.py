"""How a client's bytes are cut into pieces changes nothing: not a reply, a file, or a line of the ledger.

Most pieces in real life are one command or one message, and are served in one call. What comes otherwise is
gathered, held or read on. Both must be one behaviour.
`MAILER_CUTS=1000000 pytest tests/receive/test_receive_cuts.py` tries more of them.
"""

import os
import random

import pytest
from inbound.conversation import Conversations

from mailer.config.receiving import LongLines
from mailer.receive.settings import Settings

DIALOGUES = int(os.environ.get("MAILER_CUTS", "120"))
SMALL = 400
"""Octets of a dialogue that is sent one by one, too."""
OTHERS = (
    *(
        b"NOOP",
        b"RSET",
        b"EHLO client.example",
        b"HELO client",
        b"VRFY bob",
        b"NONSENSE",
        b"RCPT TO:bob",
        b"",
    ),
    *(b"MAIL FROM:<no address", b"MAIL FROM:<b@example.com> SIZE=20000000", b"HELP MAIL", b"AUTH PLAIN bad"),
    *(b"AUTH PLAIN AGFwcABzZWNyZXQ=", b"AUTH LOGIN\r\nYXBw\r\nc2VjcmV0", b"BDAT 3\r\nabc", b"BDAT 0 LAST"),
    *(b"x" * 600, b"NOOP \0", b"NOOP\rNOOP", b"NOOP\nNOOP", b"STARTTLS", b"QUIT now"),
)
SENDERS = (b"<app@example.com>", b"<>", b"<app@example.com> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=x", b"app")
RECIPIENTS = (
    b"<bob@example.net>",
    b"<eve@example.org> NOTIFY=FAILURE",
    b"<bob@EXAMPLE.net>",
    b"<@odd",
    b"<root>",
)
HEADERS = (
    b"Subject: x",
    b"From: a@example.com",
    b"Bcc: secret@example.net",
    b"Date: now",
    b"no field",
    b" more",
)
LINES = (b"", b".", b"..", b".x", b"text", b"x" * 1100, b"\xff\xfe")
FAULTS = (b"\0", b"bare\rreturn", b"bare\nfeed", b"\r", b"\n")


def message(draw: random.Random) -> bytes:
    lines = draw.choices(HEADERS, k=draw.randrange(5))
    # Of two faults the one that is found first counts, which may depend on the pieces.
    lines += [b"", *draw.choices([*LINES, draw.choice(FAULTS)], k=draw.randrange(6))]
    if draw.random() < 0.03:
        lines += [b"long message " * 5] * 2000
    return b"".join(line + b"\r\n" for line in lines)


def stuffed(text: bytes) -> bytes:
    return (b"\r\n" + text).replace(b"\r\n.", b"\r\n..")[2:]


def dialogue(draw: random.Random) -> bytes:
    """Commands in any order; DATA where it is taken, as what follows a refusal depends on what is there."""
    said = [b"EHLO client.example"]
    for _ in range(draw.randint(1, 4)):
        said += draw.choices(OTHERS, k=draw.choice([0, 0, 1, 2]))
        said += [
            b"EHLO client.example",
            b"MAIL FROM:" + draw.choice(SENDERS[:3]),
            b"RCPT TO:<first@example.net>",
        ]
        said += [b"RCPT TO:" + each for each in draw.choices(RECIPIENTS, k=draw.randrange(3))]
        text = message(draw)
        if draw.random() < 0.7:
            said += [b"DATA", stuffed(text) + b"."]
        else:
            cut = draw.randrange(len(text) + 1)
            said += [b"BDAT %d\r\n%bBDAT %d LAST" % (cut, text[:cut], len(text) - cut)]
            said.append(text[cut:] + b"NOOP")
    return b"\r\n".join([*said, draw.choice([b"QUIT", b"MAIL FROM:<>\r\nDATA"])]) + b"\r\n"


def pieces(draw: random.Random, said: bytes) -> list[bytes]:
    cuts = sorted(draw.randrange(len(said)) for _ in range(draw.randint(1, 12)))
    return [said[start:end] for start, end in zip([0, *cuts], [*cuts, len(said)], strict=True)]


def lines(said: bytes) -> list[bytes]:
    return said.splitlines(keepends=True)


@pytest.mark.exhaustive
def test_pieces_of_any_size_come_to_the_same() -> None:
    settings = Settings(
        require_auth=False, max_message_size=150_000, max_errors=1000, long_lines=LongLines.QUOTED_PRINTABLE
    )
    conversations = Conversations(settings)
    accepted = 0
    for seed in range(DIALOGUES):
        draw = random.Random(seed)
        said = dialogue(draw)
        whole = conversations.hold([said])
        accepted += len(whole.files)
        for cut in (pieces(draw, said), lines(said), [said[i : i + 1] for i in range(len(said))]):
            if len(cut) <= SMALL or draw.random() < 0.05:
                again = conversations.hold(cut)
                assert again == whole, (seed, said)
        assert not whole.leftovers
    assert accepted > DIALOGUES / 2
    conversations.close()
