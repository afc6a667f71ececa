"""Replies in the encodings of their countries are readable wherever they are shown, or keep their octets."""

import json
import random
import re
from html import unescape
from pathlib import Path

import pytest
from outbound.hostile import Server, per_address
from outbound.sending import forward_to, found, queue
from testbed.http_client import ask
from testbed.relay import Relay

from mailer.send.replies.encoding import decode

TEXTS = json.loads((Path(__file__).parents[1] / "data" / "encodings.json").read_text(encoding="utf-8"))
READABLE: dict[str, list[str]] = TEXTS["readable"]
"""Texts by the encoding that their octets prove."""
UNCERTAIN: dict[str, list[str]] = TEXTS["uncertain"]
"""All of hangul's rows without the ending that only Korean has, Japanese without kana, and languages whose
letters are others' in another encoding."""
CASES = [(encoding, text) for encoding, texts in READABLE.items() for text in texts]


@pytest.mark.parametrize(("encoding", "text"), CASES)
def test_what_the_octets_prove_is_read(encoding: str, text: str) -> None:
    assert decode(text.encode(encoding)) == text
    assert (
        decode(f"5.1.1 <bob@example.net>: {text}. See https://example.com/a?b=c".encode(encoding)).count(text)
        == 1
    )


@pytest.mark.parametrize(
    ("encoding", "text"), [(encoding, text) for encoding, texts in UNCERTAIN.items() for text in texts]
)
def test_what_they_do_not_prove_keeps_its_octets(encoding: str, text: str) -> None:
    octets = text.encode(encoding)
    assert decode(octets).isascii()
    assert _back(decode(octets)) == octets


def test_a_character_that_the_end_of_a_line_cuts_stays_escaped_and_spoils_nothing() -> None:
    assert decode("您的邮件被拒收".encode("gb18030")[:-1]) == "您的邮件被拒\\xca"
    assert decode("Boîte du destinataire pleiné".encode()[:-1]) == "Boîte du destinataire plein\\xc3"


def test_a_bad_octet_in_utf_8_leaves_the_rest_readable() -> None:
    assert decode("Boîte pleine, désolé".encode() + b"\xff.") == "Boîte pleine, désolé\\xff."


def test_no_octets_raise_and_all_are_kept_or_read() -> None:
    random.seed(7)
    for _ in range(3000):
        octets = bytes(random.choices(range(0x20, 0x100), k=random.randrange(1, 40)))
        text = decode(octets)
        read = [text.encode(encoding, "replace") for encoding in ("utf-8", *READABLE)]
        assert octets in (_back(text), *read) or "\\x" in text


def test_the_operator_reads_them_everywhere(relay: Relay) -> None:
    """In the journal, by `why`, in the log, on standard error and on the page; many encodings in one run."""
    texts = {encoding: texts[0] for encoding, texts in READABLE.items() if encoding != "koi8-u"}
    replies = {
        f"{encoding.replace('_', '-')}@example.net": b"550 5.1.1 " + text.encode(encoding) + b"\r\n"
        for encoding, text in texts.items()
    }
    replies["unknown@example.net"] = b"550 5.1.1 Kullan\xfdc\xfd bulunamad\xfd\r\n"
    shown = {*texts.values(), "Kullan\\xfdc\\xfd bulunamad\\xfd"}
    with Server({"rcpt": per_address(replies)}) as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool, list(replies))
        done = relay.mailer_send("--once", "--verbose")
        assert done.returncode == 0
    left = found(relay.spool, message)
    assert left is not None
    assert {str(event["reply"])[10:] for event in left.events if event.get("reply")} == shown
    why = relay.mailer("spool", "why", message).stdout
    log = relay.mailer("log", "--id", message, "--json").stdout
    with relay.monitor():
        page = unescape(re.sub(r"<[^>]*>", " ", ask(relay.http_port, f"/message/{message}").body.decode()))
    assert {json.loads(line)["reply"][10:] for line in log.splitlines() if "reply" in line} == shown
    for text in shown:
        assert text in why
        assert text in page
        assert text in done.stderr or text.encode("unicode_escape").decode() in done.stderr


def _back(text: str) -> bytes:
    """The octets of a text in which those that could not be read are escaped."""
    parts = re.split(r"(\\x[89a-f][0-9a-f])", text)
    return b"".join(bytes.fromhex(part[2:]) if at % 2 else part.encode() for at, part in enumerate(parts))
