"""Paths of RFC 5321: what is taken is taken byte for byte, everything else has a reply."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailer.mail.address import (
    MAX_PATH,
    AddressError,
    Lenient,
    Path,
    check_address,
    forward_path,
    reverse_path,
)

GOOD = [
    "a@d.example",
    "a.b+c=d/e_f@d.example",
    "A@D.EXAMPLE",
    '"a b"@d.example',
    '"a\\"b"@d.example',
    '"a>b"@d.example',
    '"@"@d.example',
    '""@d.example',
    "-oQ/tmp@d.example",
    "|sh@d.example",
    "user%evil@local",
    "evil!u@d.example",
    "jörg@d.example",
    "a@bücher.example",
    "a@BÜCHER.example",
    "a@xn--bcher-kva.example",
    "用户@例子.广告",
    "a@[192.0.2.1]",
    "a@[IPv6:2001:db8::1]",
    "a@my_host",
    "x" * 64 + "@d.example",
    "a@" + "b" * 63 + ".example",
    "=?utf-8?q?a=0d=0a?=@d.example",
]
BAD = [
    "a",
    "@d.example",
    "a@",
    "a@@d.example",
    "a@b@d.example",
    ".a@d.example",
    "a.@d.example",
    "a..b@d.example",
    "a b@d.example",
    "(c)a@d.example",
    "a@d..example",
    "a@d.example.",
    "a@-d.example",
    "a@d-.example",
    "a@d example",
    "a@xn---.example",
    "a@xn--a.example",
    "a@b。example.org",
    "a@" + "b" * 64 + ".example",
    "x" * 65 + "@d.example",
    '"a@d.example',
    '"a"b@d.example',
    '"a\rb"@d.example',
    '"a\nb"@d.example',
    '"a\\\n"@d.example',
    "a\0b@d.example",
    "a\tb@d.example",
    "a\x7f@d.example",
    "a\x85@d.example",
    "a\u2028@d.example",
    "a\udcff@d.example",
    "a@\udcff.example",
    "a@[192.0.2.256]",
    "a@[192.0.2.1",
    "a@[IPv6:fe80::1%eth0]",
    "a@[tag:x]",
    "a@=?utf-8?q?evil.org?=",
    ",a@d.example",
    "a@d.example,b@d.example",
    "<a@d.example",
]


@pytest.mark.parametrize("address", GOOD)
def test_a_good_address_is_kept_byte_for_byte(address):
    assert forward_path(f"<{address}> NOTIFY=NEVER").address == address
    assert reverse_path(f"<{address}>").address == address


@pytest.mark.parametrize("address", BAD)
def test_a_bad_address_is_refused_with_501(address):
    with pytest.raises(AddressError) as refused:
        forward_path(f"<{address}>")
    assert (refused.value.code, refused.value.enhanced) == (501, "5.1.3")
    with pytest.raises(AddressError) as refused:
        reverse_path(f"<{address}>")
    assert (refused.value.code, refused.value.enhanced) == (501, "5.1.7")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a@d.example",
        "<a@d.example",
        "<<a@d.example>>",
        "<a@d.example>,<b@d.example>",
        "<a@d.example>BODY=7BIT",
        "<a@d.example>\tBODY=7BIT",
        "(c)<a@d.example>",
        "<@h1.example,@h2.example:u@d.example>",
        "Name <a@d.example>",
    ],
)
def test_what_is_no_path_is_refused(text):
    with pytest.raises(AddressError):
        forward_path(text)


ONLY_ODD = {"a", ".a@d.example", "a.@d.example", "a..b@d.example", "a@d.example."}
ODD = [
    ("a@d.example", "a@d.example"),
    ("a@d.example.", "a@d.example"),
    ("<a@d.example.>", "a@d.example"),
    ('"a b"@d.example', '"a b"@d.example'),
    ("root", "root@here.example"),
    ("<Root>", "Root@here.example"),
    ("<root.>", "root.@here.example"),
    ("<a..b.@d.example>", "a..b.@d.example"),
    ("<.a@d.example>", ".a@d.example"),
    ("jörg", "jörg@here.example"),
]


@pytest.mark.parametrize(("text", "address"), ODD)
@pytest.mark.parametrize("read", [forward_path, reverse_path])
def test_what_is_only_odd_is_taken_when_that_is_asked_for(read, text, address):
    lenient = Lenient("here.example")
    assert read(f" {text}", lenient) == Path(address, "")
    assert read(f"{text}  SIZE=1 X", lenient) == Path(address, "SIZE=1 X")
    if text != f"<{address}>":
        with pytest.raises(AddressError):
            read(text)


@pytest.mark.parametrize(
    "text",
    [
        *(f"<{bad}>" for bad in BAD if bad not in ONLY_ODD),
        "",
        ".",
        "..@d.example",
        "a@.",
        "a@d.example..",
        "user%d.example",
        "SIZE=9",
        "<d.example!user>",
        '"a b"',
        "Name <a@d.example>",
        "a@d.example>",
        "x" * 65,
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_all_the_same(text):
    for read in (forward_path, reverse_path):
        with pytest.raises(AddressError):
            read(text, Lenient("here.example"))


def test_a_completed_path_is_no_longer_than_others():
    assert forward_path("<" + "x" * 54 + ">", Lenient("b." * 99 + "b")).address.startswith("xxx")
    with pytest.raises(AddressError, match="longer than 256"):
        forward_path("<" + "x" * 56 + ">", Lenient("b." * 99 + "b"))


def test_parameters_are_what_follows_the_path():
    assert reverse_path(" <a@d.example>  SIZE=1 BODY=7BIT ").parameters == "SIZE=1 BODY=7BIT"
    assert reverse_path('<"> SIZE=1"@d.example>').parameters == ""


def test_the_null_path_is_a_sender_and_postmaster_is_a_recipient():
    assert reverse_path("<>").address == ""
    assert forward_path("<PostMaster>").address == "PostMaster"
    with pytest.raises(AddressError):
        forward_path("<>")
    with pytest.raises(AddressError):
        reverse_path("<postmaster>")


def test_a_path_counts_octets_with_its_brackets():
    domain = ".".join(["b" * 40] * 6)
    address = "x" * (MAX_PATH - 3 - len(domain)) + "@" + domain
    assert forward_path(f"<{address}>").address == address
    with pytest.raises(AddressError, match="longer than 256"):
        forward_path(f"<x{address}>")
    with pytest.raises(AddressError, match="longer than 64"):
        forward_path("<" + "ö" * 33 + "@d.example>")


# Characters that matter to the grammar, and whatever else Unicode has, surrogates too.
texts = st.text(st.sampled_from('<>@.",:[]\\ \t\r\n\0ab%') | st.characters(codec=None), max_size=80)


@given(texts, st.none() | st.just(Lenient("d.example")))
@example('<"' + "\\" * 70, None)
def test_any_text_is_a_path_or_an_address_error(text, lenient):
    try:
        path = forward_path(text, lenient)
    except AddressError:
        return
    if lenient is None:
        assert f"<{path.address}>" in text
    else:
        assert path.address.removesuffix("@d.example") in text
    assert not set("\r\n\0\t") & set(path.address)
    path.address.encode()


atoms = st.from_regex(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,10}", fullmatch=True)
quoted = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)
labels = st.from_regex(r"[a-z0-9]([a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)


@given(
    st.lists(atoms, min_size=1, max_size=4).map(".".join) | quoted,
    st.lists(labels, min_size=1, max_size=5).map(".".join),
)
def test_every_mailbox_of_the_grammar_round_trips(local_part, domain):
    address = f"{local_part}@{domain}"
    check_address(address)
    assert forward_path(f"<{address}>").address == address


@given(
    st.text('ab.-@_xXnN->< "[9é', max_size=14) | st.text("ab", min_size=62, max_size=66).map("{}@c.d".format)
)
@example("b" * 63 + "@" + "b" * 63 + "." + "b" * 64)
@example("a@" + ".".join(["b" * 50] * 5))
def test_the_quick_way_takes_nothing_that_the_rules_refuse(address):
    def taken():
        try:
            return forward_path(f"<{address}> NOTIFY=NEVER")
        except AddressError:
            return None

    with pytest.MonkeyPatch.context() as patch:
        quick = taken()
        patch.setattr("mailer.mail.address._COMMON", re.compile("(?!)"))
        assert quick == taken()
