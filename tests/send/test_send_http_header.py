"""The copy for interfaces that send to whom the header names: exactly the envelope's recipients, always."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from outbound.header_fields import BOB, EVE, KNOWN, LITERAL, QUOTED, fields
from testbed.http_api import named

from mailer.send.http.addressed import addressed

HEADERS = [
    # What names the recipients alone is kept as it is.
    ("To: Bob <bob@example.net>|", [BOB], "To: Bob <bob@example.net>|"),
    (
        'Subject: x|to : "Doe, Bob" <bob@EXAMPLE.net>,| eve@example.org|',
        [BOB, EVE],
        'To: "Doe, Bob" <bob@EXAMPLE.net>,| eve@example.org|Subject: x|',
    ),
    (
        "To: =?utf-8?q?J=C3=B6rg?= <bob@example.net>|Cc: eve@example.org|",
        [EVE, BOB],
        "To: =?utf-8?q?J=C3=B6rg?= <bob@example.net>|Cc: eve@example.org|",
    ),
    # Blind copies are named where nobody sees them, and the original field goes nowhere.
    (
        "To: bob@example.net|Bcc: eve@example.org, x@example.com|",
        [BOB, EVE],
        "To: bob@example.net|Bcc: <eve@example.org>|",
    ),
    ("Bcc: x@example.com|", [BOB, EVE], "Bcc: <bob@example.net>,| <eve@example.org>|"),
    # Who is no recipient of this attempt is named no more.
    (
        "To: bob@example.net, eve@example.org|",
        [EVE],
        "To: <eve@example.org>|X-Original-To: bob@example.net, eve@example.org|",
    ),
    (
        "To: eve@example.org|Cc: x@example.com|",
        [BOB],
        "Bcc: <bob@example.net>|X-Original-To: eve@example.org|X-Original-Cc: x@example.com|",
    ),
    # The same person twice, two fields, a local part in another case.
    (
        "To: bob@example.net|To: B <bob@example.net>|",
        [BOB],
        "To: <bob@example.net>|X-Original-To: bob@example.net|X-Original-To: B <bob@example.net>|",
    ),
    (
        "To: bob@example.net|Cc: bob@example.net|",
        [BOB],
        "To: bob@example.net|X-Original-Cc: bob@example.net|",
    ),
    ("To: BOB@example.net|", [BOB], "Bcc: <bob@example.net>|X-Original-To: BOB@example.net|"),
    # Other fields that name recipients, and lines that some readers take for one.
    (
        "Resent-To: x@example.com|Resent-Bcc: y@example.com|Resent-From: z@example.com|",
        [BOB],
        "Bcc: <bob@example.net>|X-Original-Resent-To: x@example.com|Resent-From: z@example.com|",
    ),
    (
        "\x0bBcc: x@example.com|To\x0c: y@example.com|",
        [BOB],
        "Bcc: <bob@example.net>|X-Original-To: y@example.com|",
    ),
    (
        "Subject: x\rBcc: y@example.com\nCc: z@example.com|",
        [BOB],
        "Bcc: <bob@example.net>|X-Original-Cc: z@example.com|Subject: x|",
    ),
    (" mallory@example.com|Subject: x|", [BOB], "Bcc: <bob@example.net>|Subject: x|"),
    # Addresses that need their quotes.
    ("", [QUOTED, LITERAL], 'Bcc: <"a b,c"@example.net>,| <root@[192.0.2.1]>|'),
]
"""A header, recipients, and what becomes of it; `|` is the end of a line."""


@pytest.mark.parametrize(("header", "recipients", "expected"), HEADERS)
def test_what_becomes_of_a_header(header: str, recipients: list[str], expected: str) -> None:
    made = addressed(header.replace("|", "\r\n").encode(), recipients)
    assert made.decode().replace("\r\n", "|") == expected


@pytest.mark.parametrize(
    "value",
    [
        "bob@example.net (mallory@example.com)",
        "us: bob@example.net, eve@example.org;",
        '"mallory@example.com" <bob@example.net>',
        '"a\\"b" <bob@example.net>',
        "=?utf-8?q?mallory=40example=2Ecom=2C?= <bob@example.net>",
        "=?utf-8?z?x?= <bob@example.net>",
        "Jörg <bob@example.net>",
        "<@relay.example:bob@example.net>",
        "bob @ example.net",
        "bob@example.net,",
        "",
    ],
)
def test_what_another_parser_may_read_in_another_way_is_written_anew(value: str) -> None:
    made = addressed(f"To: {value}\r\n".encode(), [BOB]).decode()
    assert made == f"Bcc: <bob@example.net>\r\nX-Original-To: {value}\r\n"


@pytest.mark.exhaustive
@settings(max_examples=1000)
@given(
    st.lists(fields(), max_size=6).map(b"".join),
    st.lists(st.sampled_from(KNOWN), min_size=1, max_size=5, unique=True),
)
@example(b"To: bob@example.net\r\n", [BOB])
def test_another_parser_finds_the_envelopes_recipients_and_nobody_else(
    header: bytes, recipients: list[str]
) -> None:
    """Comments, groups, quotes, folds, 8-bit, encoded words, duplicates, Resent-, and what is no field."""
    made = addressed(header, recipients)
    found = named(made + b"\r\nTo: mallory@example.com\r\n")
    assert sorted(address.lower() for address in found) == sorted(recipients)
    assert len(made) < 2 * len(header) + 200 + sum(map(len, recipients))
