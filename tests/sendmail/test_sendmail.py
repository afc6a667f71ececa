"""What mailer-sendmail makes of a command line and of the message on its standard input: plain values."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailer.sendmail.addresses import addresses
from mailer.sendmail.arguments import parse
from mailer.sendmail.failure import Failure
from mailer.sendmail.message import Message, from_field, read


def order(*arguments, program="/usr/sbin/sendmail"):
    return {
        name: value
        for name, value in vars(parse([program, *arguments])).items()
        if value != getattr(parse(["sendmail"]), name)
    }


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        # PHP, mutt, git, Debian's cron, mail(1), nodemailer, logwatch.
        ("-t -i", {"from_header": True, "dot_ends": False}),
        ("-ti", {"from_header": True, "dot_ends": False}),
        ("-oem -oi -- a@x b@x", {"dot_ends": False, "recipients": ["a@x", "b@x"]}),
        ("-i a@x", {"dot_ends": False, "recipients": ["a@x"]}),
        ("-FCron -i -B8BITMIME -oem root", {"full_name": "Cron", "dot_ends": False, "recipients": ["root"]}),
        ("-i -f a@x b@x", {"dot_ends": False, "sender": "a@x", "recipients": ["b@x"]}),
        ("-fa@x b@x", {"sender": "a@x", "recipients": ["b@x"]}),
        ("-r a@x b@x", {"sender": "a@x", "recipients": ["b@x"]}),
        ("-itf a@x", {"dot_ends": False, "from_header": True, "sender": "a@x"}),
        ("-odb -oep -oMrx -O DeliveryMode=b -OErrorMode=e -h 3 -p ESMTP -X /x -Ac -m -n -G -U -v root",
         {"verbose": True, "recipients": ["root"]}),
        ("-OIgnoreDots=True root", {"dot_ends": False, "recipients": ["root"]}),
        ("-N success,Failure -R hdrs -V a+b root",
         {"notify": "SUCCESS,FAILURE", "ret": "HDRS", "envid": "a+2Bb", "recipients": ["root"]}),
        ("-N never root", {"notify": "NEVER", "recipients": ["root"]}),
        ("-bm root", {"recipients": ["root"]}),
        ("-bs", {"mode": "smtp"}),
        ("-bp", {"mode": "mailq"}),
        ("-bv root", {"mode": "verify", "recipients": ["root"]}),
        ("-bi", {"mode": "newaliases"}),
        ("-I", {"mode": "newaliases"}),
        ("-q", {"mode": "flush"}),
        ("-q30m", {"mode": "flush"}),
        # What another may have chosen is not an option, with and without the --.
        ("-- -bp", {"recipients": ["-bp"]}),
        ("root -bp -Fx", {"recipients": ["root", "-bp", "-Fx"]}),
        ("--help", {"mode": "help"}),
        ("-h", {"mode": "help"}),
        ("--version", {"mode": "version"}),
        ("-h 3", {}),
        ("-- --help", {"recipients": ["--help"]}),
    ],
)  # fmt: skip
def test_the_command_line_is_read_as_others_write_it(arguments, meant):
    assert order(*arguments.split()) == meant


@pytest.mark.parametrize(
    "arguments", ["-bd", "-bt", "-Z root", "-f", "-N often root", "-R all root", "--help root", "-t -h"]
)
def test_what_is_not_offered_is_wrong_usage(arguments):
    with pytest.raises(Failure) as failed:
        order(*arguments.split())
    assert failed.value.code == os.EX_USAGE


def test_the_programs_name_says_what_to_do():
    assert order(program="/usr/bin/mailq") == {"mode": "mailq"}
    assert order(program="newaliases") == {"mode": "newaliases"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a@x", ["a@x"]),
        ("a@x, b@x,, c", ["a@x", "b@x", "c"]),
        ("Ann Bee <a@x>, <b@x>", ["a@x", "b@x"]),
        ('"Bee, Ann" <a@x>, "x\\"," <b@x>', ["a@x", "b@x"]),
        ("a@x (Ann, (of) Bee), (only this)", ["a@x"]),
        ("Team: a@x, B <b@x>; c@x", ["a@x", "b@x", "c@x"]),
        ("undisclosed-recipients:;", []),
        ('"a b"@x', ['"a b"@x']),
        ('"a,b@y"@x', ['"a,b@y"@x']),
        ("<>", [""]),
        ("a@[IPv6:2001:db8::1]", ["a@[IPv6:2001:db8::1]"]),
        ("=?utf-8?q?a=40evil=2Eexample=2C?= <b@x>", ["b@x"]),
        ("-oQ/tmp@x", ["-oQ/tmp@x"]),
        ("a@x <a@x>, A -> B <b@x>", ["a@x", "b@x"]),
        ("mailto:a@x, mailto:b@x", ["a@x", "b@x"]),
        ('"a@y": <b@x> (Bee);', ["b@x"]),
        ("", []),
    ],
)
def test_the_addresses_of_a_list_are_found(text, found):
    assert addresses(text) == found


@pytest.mark.parametrize("text", ['"a@x', "a@x (", "<a@x", "a\r@x", "a@x\0", "a\tb@x", "<a@x\nRCPT TO:<b@x>"])
def test_what_has_no_end_or_a_control_character_is_refused(text):
    """Nothing from a header becomes a command of its own."""
    with pytest.raises(Failure) as failed:
        addresses(text)
    assert failed.value.code == os.EX_DATAERR


UNCLEAR = [
    "Foo <a@x> <b@x>", "a@x:b@x", "<a@x>: b@x", "<a@x> b@x", "<a@x> root", "<a@x> (Ann) b@x, c@x",
    "a@x> <b@x>", "Team: a@x:b@x;", '<a@x> "b"@x', '"a"@x:b@x', "c@x, <><a@x>",
]  # fmt: skip


@pytest.mark.parametrize("text", UNCLEAR)
def test_no_address_of_an_unclear_list_is_lost(text):
    with pytest.raises(Failure, match="not clear which addresses are meant") as failed:
        addresses(text)
    assert failed.value.code == os.EX_DATAERR


@given(st.text("ab@<>,:; ", max_size=30))
@example("a@b:a@b")
@example("a@b <a@b> a@b")
def test_each_at_sign_is_in_an_address_or_in_the_name_of_one(text):
    try:
        found = addresses(text)
    except Failure:
        return
    names = re.sub(r"[^,;:]*(?=<)", "", text)
    assert names.count("@") <= sum(each.count("@") for each in found)


@given(st.text(st.sampled_from('ab@<>,;:"()\\ \r\n\t\0') | st.characters(codec="utf-8"), max_size=60))
@example("(" * 1000)
def test_no_address_of_any_text_ends_a_command(text):
    try:
        found = addresses(text)
    except Failure:
        return
    for address in found:
        assert address in text or '"' not in text
        assert not set("\r\n\0") & set(address)


@pytest.mark.parametrize(
    ("data", "wire"),
    [
        (b"To: a\n\nhello\n", b"To: a\r\n\r\nhello\r\n.\r\n"),
        (b"To: a\r\n\r\nhello\r\n", b"To: a\r\n\r\nhello\r\n.\r\n"),
        # PHP: the header's lines end in CRLF, the body's in LF, and some end in CRCRLF.
        (b"To: a\r\r\nX: b\r\n\nhello\n", b"To: a\r\nX: b\r\n\r\nhello\r\n.\r\n"),
        (b"hello\nworld", b"\r\nhello\r\nworld\r\n.\r\n"),
        (b"To: a\nhello\n", b"To: a\r\n\r\nhello\r\n.\r\n"),
        (b"To: a", b"To: a\r\n\r\n.\r\n"),
        (b"", b"\r\n.\r\n"),
        (b"From a@x Sun Nov 29 09:00:00 2026\nTo: a\n\nx\n", b"To: a\r\n\r\nx\r\n.\r\n"),
        (b"\n.\n..\n.x\n", b"\r\n..\r\n...\r\n..x\r\n.\r\n"),
        (b".X: y\n\nz\n", b"..X: y\r\n\r\nz\r\n.\r\n"),
        (b"Subject: a\n b\n\n\xff\n", b"Subject: a\r\n b\r\n\r\n\xff\r\n.\r\n"),
        (b" a\nTo: b\n", b"\r\n a\r\nTo: b\r\n.\r\n"),
        (b"a: b\r\r\r\n\r\r\n\rc\r\n", b"a: b\r\n\r\n\rc\r\n.\r\n"),
    ],
)
def test_a_message_goes_as_smtp_wants_it(data, wire):
    assert Message(data).wire() == wire


@pytest.mark.parametrize(
    ("data", "fields", "body"),
    [
        # Where the time is the square of the length, these do not end.
        (b"A: b\n\n" + b"\r" * 3_000_000 + b"\nx", 1, b"\nx"),
        (b"A: b\n\n" + b"\r\r\n" * 1_000_000, 1, b"\n" * 1_000_000),
        (b"A: b\n" + b" " * 79 + b"\n" + b" c\n" * 3_000_000 + b"B: d\n\n", 2, b""),
    ],
    ids=["carriage returns", "lines", "folds"],
)
def test_a_message_is_read_in_one_pass(data, fields, body):
    message = Message(data)
    assert (len(message.fields), message.body == body) == (fields, True)


@given(st.text("a:\r\n \t", max_size=40).map(str.encode))
def test_lines_and_fields_are_those_of_the_plain_reading(data):
    while b"\r\n" in data:
        data = data.replace(b"\r\n", b"\n")
    message = Message(data)
    gap = data[len(b"".join(message.fields)) : len(data) - len(message.body)]
    assert data == b"".join(message.fields) + gap + message.body
    assert gap in {b"", b"\n"}
    for field in message.fields:
        first, *folds = field.splitlines(keepends=True) if b"\r" not in field else [field]
        assert b":" in first
        assert all(fold[:1] in {b" ", b"\t"} for fold in folds)


@given(
    st.binary(max_size=80).map(lambda data: data.replace(b"\r", b""))
    | st.text("a:. \n", max_size=40).map(str.encode)
)
def test_stuffing_is_undone_by_the_reader_of_smtp(data):
    wire = Message(data).wire()
    assert wire.endswith(b"\r\n.\r\n")
    assert b"\r\n.\r\n" not in wire[:-3]
    lines = wire[:-3].split(b"\r\n")
    unstuffed = b"\n".join(line.removeprefix(b".") if line.startswith(b".") else line for line in lines)
    for line in data.split(b"\n"):
        if not line.startswith((b"From ", b">From ")):
            assert line in unstuffed


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("To: a@x\nCc: B <b@x>,\n c@x\nBcc: d@x\nX-To: e@x\n", ["a@x", "b@x", "c@x", "d@x"]),
        ("to :a@x\n", ["a@x"]),
        ("To: a@x\nResent-To: b@x\nResent-Bcc: c@x\n", ["b@x", "c@x"]),
        ("Subject: x\n\nTo: a@x\n", []),
    ],
)
def test_the_header_says_to_whom(header, found):
    assert Message(header.encode()).recipients() == found


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("", b"From: a@x\n"),
        ("Cron Daemon", b"From: Cron Daemon <a@x>\n"),
        ('A. "B", C\\', b'From: "A. \\"B\\", C\\\\" <a@x>\n'),
        ("J\xf6rg", b"From: =?utf-8?b?SsO2cmc=?= <a@x>\n"),
        ("A\nBcc: b@x", b"From: =?utf-8?b?QQpCY2M6IGJAeA==?= <a@x>\n"),
    ],
)
def test_a_name_makes_no_field_of_its_own(name, field):
    assert from_field(name, "a@x") == field


@pytest.mark.parametrize(
    ("pieces", "with_dot", "without"),
    [
        ([b"a\n.\nb\n"], b"a\n", b"a\n.\nb\n"),
        ([b"a\n", b".", b"\n", b"b\n"], b"a\n", b"a\n.\nb\n"),
        ([b"a\r\n.\r", b"\nb"], b"a\r\n", b"a\r\n.\r\nb"),
        ([b".\nb"], b"", b".\nb"),
        ([b"a\n."], b"a\n", b"a\n."),
        ([b"a\n.b\n"], b"a\n.b\n", b"a\n.b\n"),
    ],
)
def test_a_dot_alone_ends_the_message_unless_it_is_ignored(pieces, with_dot, without):
    for dot_ends, wanted in ((True, with_dot), (False, without)):
        ours, theirs = os.pipe()
        for piece in pieces:
            os.write(theirs, piece)
        os.close(theirs)
        assert read(ours, dot_ends=dot_ends) == wanted
        os.close(ours)


def test_the_console_script_is_this_program():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert 'mailer-sendmail = "mailer.sendmail.main:main"' in text


def run_after(preparation, *arguments):
    """Run the program in a process that was prepared for a fault once all was imported."""
    program = f"""
import os, resource, sys
from mailer.sendmail import drop, main, standin
main._RESTART = 0
{preparation}
sys.exit(main.main())
"""
    argv = [sys.executable, "-c", program, *arguments]
    return subprocess.run(argv, input="Subject: x\n\nx\n", capture_output=True, text=True, check=False)


@pytest.mark.parametrize("mode", ["-i", "-bs", "-bv"])
def test_no_descriptor_for_a_socket_is_a_temporary_fault(mode):
    """Cron and libraries try again after 75; a traceback ends with 1, which is final."""
    done = run_after("resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))", mode, "ann@example.net")
    assert (done.returncode, done.stdout) == (os.EX_TEMPFAIL, "")
    assert "Too many open files" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_standard_input_that_cannot_be_read_is_a_temporary_fault():
    done = run_after('os.dup2(os.open("/", os.O_RDONLY), 0)', "ann@example.net")
    assert done.returncode == os.EX_TEMPFAIL
    assert len(done.stderr.splitlines()) == 1
