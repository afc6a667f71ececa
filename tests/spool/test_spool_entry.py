"""The spool file's format: what is written is what is read, and what is damaged is never taken for whole."""

import errno
import os
from email import message_from_bytes, policy
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from spools.strategies import NOW, accept, addresses, envelope, envelopes, messages, receive
from spools.walk import read

from mailer.config.model import Config
from mailer.mail.clock import rfc3339, seconds
from mailer.mail.envelope import Envelope, Recipient
from mailer.spool.directory import Spool
from mailer.spool.entry import Block, Corrupt, check_message, encode_block, parse_block, read_entry
from mailer.spool.ids import new_id

reuses_its_directory = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

blocks = st.builds(
    Block,
    id=st.floats(0, 2e9).map(new_id),
    # Microseconds, which is what the format keeps.
    received=st.floats(0, 4e9).map(lambda now: seconds(rfc3339(now))),
    user=addresses | st.sampled_from(["", "with: colon", " spaced "]),
    peer=st.sampled_from(["127.0.0.1", "::1", ""]),
    envelope=envelopes,
)


@given(blocks, st.integers(0, 9_999_999_999))
def test_a_block_reads_back_as_it_was_written(block: Block, length: int) -> None:
    text, _, digits = encode_block(block, length).rpartition(b"\r\nSpool-Length: ")
    assert parse_block(text) == block
    assert digits == b"%010d\r\n" % length


@given(blocks, st.integers(0, 9_999_999_999))
def test_the_length_does_not_change_where_anything_stands(block: Block, length: int) -> None:
    """It is written into its place when the message is complete."""
    assert len(encode_block(block, length)) == len(encode_block(block))


@given(
    blocks,
    st.sampled_from("\r\n\0\t\x1b\x7f"),
    st.sampled_from(["user", "peer", "sender", "recipient", "envid"]),
)
def test_a_control_character_is_refused_wherever_it_stands(block: Block, control: str, where: str) -> None:
    value = f"a{control}Spool-Recipient: <evil@example.org>"
    changed = {"recipients": (Recipient(value),)} if where == "recipient" else {where: value}
    if where not in {"user", "peer"}:
        changed = {"envelope": structs.replace(block.envelope, **changed)}
    bad = structs.replace(block, **changed)
    with pytest.raises(ValueError, match="control character"):
        encode_block(bad)


@reuses_its_directory
@given(envelopes, messages)
def test_a_file_holds_the_very_bytes_and_addresses_that_were_accepted(
    tmp_path: Path, envelope: Envelope, message: bytes
) -> None:
    """Also when the message is made of the parts of a spool file; read by our code, and by none of it."""
    root = tmp_path / "spool"
    with Spool.open(root, create=True) as spool:
        name = receive(spool, message, envelope)
    path = root / "new" / name
    seen = read(path, root)
    assert (seen.sender, seen.message, seen.intact) == (envelope.sender, message, True)
    assert seen.recipients == tuple(recipient.address for recipient in envelope.recipients)
    fd = os.open(path, os.O_RDONLY)
    try:
        entry = read_entry(fd, name)
        check_message(fd, entry)
        assert os.pread(fd, entry.length, entry.offset) == message
    finally:
        os.close(fd)
    assert (entry.envelope, entry.block.received, entry.block.user) == (envelope, NOW, "app")
    assert seen.kinds == ["accepted"]


@pytest.mark.parametrize("size", [0, 1, 16 * 1024, 128 * 1024 - 1, 128 * 1024, 128 * 1024 + 1, 3_000_000])
def test_messages_of_every_size_are_whole_however_they_arrived(tmp_path: Path, size: int) -> None:
    """Around the buffer and the first read, in one piece and in many."""
    message = os.urandom(size)
    root = tmp_path / "spool"
    with Spool.open(root, create=True) as spool:
        pieces = [message[at : at + 1000] for at in range(0, size, 1000)]
        for name in (receive(spool, message, envelope()), receive(spool, pieces, envelope())):
            seen = read(root / "new" / name, root)
            assert seen.intact
            assert seen.message == message


def test_a_spool_file_parses_as_a_message_of_rfc_5322(tmp_path: Path) -> None:
    name = accept(tmp_path / "spool", b"Subject: Invoice\r\nFrom: app@example.com\r\n\r\nPay.\r\n")
    parsed = message_from_bytes((tmp_path / "spool/new" / name).read_bytes(), policy=policy.default)
    assert parsed["Spool-Id"] == name
    assert parsed["Subject"] == "Invoice"
    assert parsed.get_content().startswith("Pay.\r\n{")
    assert not parsed.defects


def test_thousands_of_recipients_are_read_back(tmp_path: Path) -> None:
    """The block is longer than the first read."""
    many = [f"user{number}@example.net" for number in range(5000)]
    root = tmp_path / "spool"
    name = accept(root, b"x", *many)
    fd = os.open(root / "new" / name, os.O_RDONLY)
    try:
        entry = read_entry(fd, name)
    finally:
        os.close(fd)
    assert [recipient.address for recipient in entry.envelope.recipients] == many


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda raw: b"", "ends before Spool-Length"),
        (lambda raw: b"\0" * len(raw), "does not begin with a spool envelope"),
        (lambda raw: b"From: x\r\n\r\nhello\r\n", "does not begin with a spool envelope"),
        (lambda raw: raw.replace(b"Format: 1", b"Format: 2"), "format '2' is not known"),
        (lambda raw: raw.replace(b"Spool-Sender: ", b"Spool-Sander: "), "Spool-Sender is missing"),
        (lambda raw: raw.replace(b"Spool-Recipient: ", b"Spool-Recipeint: "), "no recipient"),
        (lambda raw: raw.replace(b"<bob@example.net>", b"(bob@example.net)"), "not in angle brackets"),
        (lambda raw: raw.replace(b"bob@", b"b\xffb@"), "not UTF-8"),
        (lambda raw: raw.replace(b"bob@", b"rob@"), "envelope's digest"),
        (lambda raw: raw[: raw.index(b'{"at"')], "incomplete"),
        (lambda raw: raw[: raw.index(b"}", raw.index(b'{"at"'))], "incomplete"),
        (lambda raw: raw.replace(b"Length: 000000002", b"Length: 000000001"), "incomplete|digest"),
    ],
)
def test_what_is_damaged_is_refused_with_its_reason(tmp_path: Path, damage: object, reason: str) -> None:
    root = tmp_path / "spool"
    name = accept(root)
    path = root / "new" / name
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    fd = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(Corrupt, match=reason):
            read_entry(fd, name)
    finally:
        os.close(fd)


def test_an_envelope_larger_than_is_ever_read_is_refused_before_it_is_acknowledged(tmp_path: Path) -> None:
    many = tuple(Recipient(f"{number}@example.net", orcpt="x" * 1000) for number in range(25_000))
    with Spool.open(tmp_path / "spool", create=True) as spool:
        with pytest.raises(OSError, match="the envelope is too large") as refused:
            receive(spool, b"x", Envelope("app@example.com", many))
        assert refused.value.errno == errno.E2BIG
        assert list((tmp_path / "spool/tmp").iterdir()) == []


def test_as_many_recipients_as_can_be_configured_fit_with_the_longest_rcpt(tmp_path: Path) -> None:
    most = 20_000
    assert msgspec.convert({"maxRecipients": most}, Config).max_recipients == most
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"maxRecipients": most + 1}, Config)
    # A RCPT command has 1112 octets at most, and our line for it 10 more.
    many = tuple(Recipient(f"{number:05}@example.net", orcpt="x" * 1080) for number in range(most))
    with Spool.open(tmp_path / "spool", create=True) as spool:
        name = receive(spool, b"x", Envelope("app@example.com", many))
        with (tmp_path / "spool/new" / name).open("rb") as file:
            assert read_entry(file.fileno(), name).envelope.recipients == many


def test_a_file_under_another_name_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    name = accept(root)
    fd = os.open(root / "new" / name, os.O_RDONLY)
    try:
        with pytest.raises(Corrupt, match=f"its Spool-Id is {name}"):
            read_entry(fd, new_id(NOW))
    finally:
        os.close(fd)
