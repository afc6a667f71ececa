"""Which domain a From field names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.mail.author import mailboxes
from mailer.send.dkim.author import ascii_domain, author_domain


@pytest.mark.parametrize(
    ("value", "domain"),
    [
        (b" app@example.com", "example.com"),
        (b" App <app@Example.COM>\r\n", "example.com"),
        (b"\r\n\tApp\r\n <app@example.com>", "example.com"),
        (b' "x@evil.test, <y@evil.test>" <app@example.com>', "example.com"),
        (b' "quote \\" <y@evil.test>" <app@example.com>', "example.com"),
        (b" (x@evil.test) app@example.com (the (nested <z@evil.test>) app)", "example.com"),
        (b' "no (comment" <app@example.com>', "example.com"),
        (b" (with \\) inside <x@evil.test>) <app@example.com>", "example.com"),
        (b" a@example.com, b@example.net", "example.com"),
        (b" a@example.com, <b@example.net>", "example.com"),
        (b' "a b"@example.com', "example.com"),
        (b' "a@evil.test"@example.com', "example.com"),
        (b" app@ example.com", "example.com"),
        (b" app@example.com.", "example.com"),
        (" Ä <ä@bücher.example>".encode(), "xn--bcher-kva.example"),
        (b" app", None),
        (b" app@", None),
        (b" @example.com", None),
        (b" app@[127.0.0.1]", None),
        (b" <>", None),
        (b"", None),
        (b" \xff@\xff", None),
        (b" undisclosed-recipients:;", None),
    ],
)
def test_the_domain_is_that_of_the_first_address(value, domain):
    assert author_domain(value) == domain


_PIECES = [
    *(
        "a@b.example",
        "<c@d.example>",
        '"x, y" ',
        '"<q@r.example>" ',
        "(comment) ",
        "(a(b)c)",
        "(\\))",
        '"\\""',
        "Name ",
    ),
    *(
        ",",
        " ",
        "\r\n ",
        "<",
        ">",
        "@",
        '"',
        "(",
        ")",
        "\\",
        ";",
        ".",
        "\xe9",
        '<"l p"@e.example>',
        "[1.2.3.4]",
    ),
    *("<a@[1.2.3.4]>", "B.EXAMPLE", "x@y.example.", "z@b\xfccher.example"),
]


@given(st.lists(st.sampled_from(_PIECES), max_size=9).map("".join))
def test_the_signer_reads_the_author_that_the_receiver_has_checked(text):
    """Two readers that differ would sign for a domain for which nobody's permission was looked at."""
    if read := mailboxes(text.encode()):
        try:
            checked = ascii_domain(read[0][1].rpartition("@")[2])
        except ValueError:
            checked = None
        assert author_domain(text.encode()) == checked


@given(st.lists(st.sampled_from(list(b'"()\\<>@,. \r\nax\xe4'))).map(bytes))
def test_any_bytes_have_a_domain_or_none(value):
    domain = author_domain(value)
    assert domain is None or ascii_domain(domain) == domain


@pytest.mark.parametrize("value", [b'"', b'("', b"(", b"\\", b'(x"', b'"\\'])
def test_a_megabyte_of_openings_comes_to_an_end(value):
    assert author_domain(value * 2**20) is None


@pytest.mark.parametrize("name", ["", ".", "a..b", "a b", "a/b", "../x", "x" * 64, "-\u0301", "\ud800"])
def test_what_is_no_domain_is_refused(name):
    with pytest.raises(ValueError, match="not a domain name"):
        ascii_domain(name)
