"""Names in a header that have no domain get one, and no other byte changes."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailer.mail.author import mailboxes
from mailer.mail.unqualified import qualified


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("From: root (Cron Daemon)", "From: root@d.example (Cron Daemon)"),
        ("from :root", "from :root@d.example"),
        ("From: Cron <root>", "From: Cron <root@d.example>"),
        ('From: "Cron, Daemon" < root >', 'From: "Cron, Daemon" < root@d.example >'),
        (r'From: "Ann \"AJ\" \\ Doe" <ann>', r'From: "Ann \"AJ\" \\ Doe" <ann@d.example>'),
        ("To: root, bob@example.net, eve", "To: root@d.example, bob@example.net, eve@d.example"),
        ("To: root,\r\n\tBob <bob>,", "To: root@d.example,\r\n\tBob <bob@d.example>,"),
        ("Resent-Cc: www-data", "Resent-Cc: www-data@d.example"),
    ],
)
def test_a_bare_name_gets_the_domain(before, after):
    rest = "Subject: root\r\nX-From: root\r\n"
    assert qualified(f"{rest}{before}\r\n{rest}".encode(), "d.example").decode() == f"{rest}{after}\r\n{rest}"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a@example.com",
        "A <a@example.com>",
        "John Doe",
        "John Doe <>",
        "undisclosed-recipients:;",
        "Team: root, bob;",
        '"root"',
        "<root> <eve>",
        "<<root>>",
        "root (a (b))",
        "root (",
        "evil!root",
        "root%evil",
        '"root',
        "=?utf-8?q?root?=",
        "<@a:root>",
        "root\\",
        '"a\\" <root>',
        "[root]",
        "j\xc3\xb6rg",
    ],
)
def test_what_is_not_plainly_a_name_stays(value):
    head = f"From: {value}\r\nSubject: x\r\n".encode()
    assert qualified(head, "d.example") == head


@given(st.text(st.sampled_from('ab@<>,"() \\:;\r\n\t'), max_size=60))
@example("a," * 30)
def test_no_other_byte_changes_and_what_could_be_read_reads_the_same(text):
    value = text.encode()
    head = b"From:" + value + b"\r\n"
    after = qualified(head, "d.example")
    if b"@d.example" not in value:
        assert after.replace(b"@d.example", b"") == head
    if mailboxes(value) is not None and b"\n" not in value.replace(b"\r\n ", b"").replace(b"\r\n\t", b""):
        # Each of its elements has an address: there is nothing to complete.
        assert after == head
