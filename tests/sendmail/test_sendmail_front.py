"""The compiled front and the Python program do the same; a front that is in doubt gives way to Python."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from inbound.sendmail_front import GAVE_WAY, REPOSITORY, SANITIZERS, Peer, by_python, compiled, recorder, run
from spools.strace import attach, calls_in, points
from testbed.capability import tracer, with_own_mounts
from testbed.modules import module_command
from testbed.relay import Relay
from testbed.sendmail import write_sendmail

from mailer.sendmail import main, message, submission

EXAMPLES = int(os.environ.get("MAILER_FRONT_EXAMPLES", "250"))
ENVIRONMENT = Path(sys.executable).parents[1]
MAIL = b"From: a@here.example\nTo: bob@example.net\nSubject: x\n\nhello\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `recording/sendmail`, which has a recorder for its Python, and sanitizers."""
    directory = tmp_path_factory.mktemp("front")
    compiled(directory / "recording", recorder(directory / "environment"), *SANITIZERS)
    return directory


USUAL = [
    # PHP, cron, git, nodemailer, mail(1).
    (["-t", "-i"], MAIL),
    (["-ti"], b"From: a@x\r\nTo: Bob Bee <bob@x>,\r\n eve@x\r\nBcc: ann@x\r\n\r\nlines of PHP\nend here\n"),
    (["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"], b"From: root (Cron Daemon)\nTo: root\n\n\xc3\xbc"),
    (["-i", "-f", "ann@x", "--", "bob@x", "eve@x"], MAIL),
    (["-i", "-f", "<>", "bob@x"], MAIL),
    (["-oi", "-bm", "-odb", "-r", "Ann <ann@x>", "bob@x"], MAIL + b".\n..\n.x"),
    (["-i", "a@x, B <b@x>"], MAIL * 30_000),
    (["-i", *(f"{number}@x" for number in range(100))], MAIL),
]


@pytest.mark.parametrize(("arguments", "given"), USUAL, ids=range(len(USUAL)))
def test_the_usual_mail_needs_no_python(made, tmp_path, arguments, given):
    with Peer(tmp_path / "s").listening() as peer:
        done = run(made / "recording/sendmail", peer.path, arguments, given)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert peer.taken == [by_python(arguments, given)]


@pytest.mark.parametrize("variable", ["PYTHONPATH", "PYTHONHOME"])
def test_the_python_of_the_application_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """The package of django-mailer is called `mailer`, too."""
    foreign = tmp_path / "application" / "mailer"
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").touch()
    monkeypatch.setenv(variable, str(foreign.parent))
    with Peer(tmp_path / "s").listening() as peer:
        # Without -i only the Python program looks for the dot that ends it.
        done = run(compiled(tmp_path / "made", ENVIRONMENT), peer.path, ["bob@x"], MAIL)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert len(peer.taken) == 1


@pytest.mark.parametrize("text", ["Foo <a@x> <b@x>", "a@x:b@x", "<a@x> b@x", "a@x b@x", "a@y <a@x>"])
def test_a_list_without_one_reading_is_for_python(made, tmp_path, text):
    with Peer(tmp_path / "s").listening() as peer:
        done = run(
            made / "recording/sendmail", peer.path, ["-t", "-i"], f"From: a@x\nTo: {text}\n\n".encode()
        )
    assert (done.returncode, peer.taken) == (GAVE_WAY, [])


def mostly(usual: list[str], odd: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """One of the usual ones, and one time in twelve something else."""
    return st.integers(0, 11).flatmap(lambda number: odd if number == 11 else st.sampled_from(usual))


ADDRESSES = mostly(
    ["a@x", "Bob Bee <b@x>", "<c@x>", "root", "=?utf-8?q?A=2C?= <d@x>", "a@x,b@x", "A.\tB. <e@x> "],
    st.sampled_from(['"Q, q" <q@x>', "a@x (Ann)", "T: a@x;", "a@x,", "", "e@[1.2.3.4]", "j\xf6rg@x", "a b@x"])
    | st.sampled_from(
        ["<a@x> b", "a@x;b@x", "<@r:a@x>", "a@x\0", "<>", "< a@x>", "<a@x", "a>", "-bp", "x" * 321]
    )
    | st.text('ab@<>,;:"()\\ .\t\n', max_size=12),
)
ENDS = mostly(["\n", "\r\n", ",\n a@x\n"], st.sampled_from(["\r\r\n", "\r", "\n ", "\n\t", "\0\n"]))
NAMES = mostly(
    ["To", "Cc", "Bcc", "Subject", "tO", "X-To", "FROM"], st.sampled_from(["Resent-To", "To ", "", "a b"])
)
FIELDS = st.tuples(NAMES, st.sampled_from([": ", ":"]), ADDRESSES, ENDS).map("".join)
LINES = mostly(["hello", ".", "..", ".x", "\xfc", "", "x" * 1200], st.text("a.\r\n\0", max_size=5))
MESSAGES = st.tuples(
    mostly(["From: a@x\n", "From: a@x\r\n"], st.sampled_from(["", "From a@x\n", ">From : x\n", " x\n"])),
    st.lists(FIELDS, max_size=3).map("".join),
    mostly(["To: b@x\n\n", ".: b@x\r\n\r\n"], st.sampled_from(["", "\n"])),
    st.lists(LINES, max_size=5).map("\n".join),
    ENDS,
).map("".join).map(os.fsencode)  # fmt: skip
OPTIONS = mostly(
    ["-t -i", "-ti", "-oi", "-i", "-oem -i", "-i -f a@x", "-FX -t -i", "-i -f <>", "-i -bm -t", "-i -odb"],
    st.sampled_from(
        ["-t", "-v -i", "-i -fa@x,b@x", "-i -N never", "-itf a@x", "-i -f", "-oIgnoreDots", "-i -o i"]
    )
    | st.sampled_from(
        ["-i -bv", "-i -B", "-i -F x -G", "-i -", "-i -rx -bs", "-i --help", "-i -oiX", "-i -BIx"]
    ),
)
COMMAND_LINES = st.tuples(
    OPTIONS.map(str.split), st.sampled_from([[], [], ["--"]]), st.lists(ADDRESSES, max_size=2)
).map(lambda parts: [word.replace("\0", "") for part in parts for word in part])


def test_the_front_says_what_python_would_or_gives_way_with_all_it_was_given(made, tmp_path):
    """Any command line, any bytes; MAILER_FRONT_EXAMPLES=10000 tries more of them."""
    did = Counter[str]()
    peer = Peer(tmp_path / "s")

    @settings(max_examples=EXAMPLES)
    @given(COMMAND_LINES, MESSAGES | st.binary(max_size=60))
    @example(["-t", "-i"], b"From: a@x\nTo: b@x,\n\n  c@x\n")
    @example(["-t", "-i"], b"From: a@x\nTo: b@x\n")
    @example(["-t", "-i"], b"From: a@x\nTo: b@x\nResent-To: c@x\n\n")
    @example(["-i", "b@x"], b"From: a@x\n\n" + b"\r" * 70_000 + b"\nx")
    def agree(arguments, given):
        peer.taken.clear()
        done = run(made / "recording/sendmail", peer.path, arguments, given)
        if done.returncode == GAVE_WAY:
            did["gave way"] += 1
            *words, left = done.stdout.split(b"\0", len(arguments) + 4)
            assert [os.fsdecode(word) for word in words[4:]] == arguments
            assert (left, done.stderr, peer.taken) == (given, b"", [])
        else:
            did["handed over"] += 1
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
            assert peer.taken == [by_python(arguments, given)]

    with peer.listening():
        agree()
    assert min(did.values()) > EXAMPLES // 10, did


def test_both_programs_have_the_same_constants():
    source = (REPOSITORY / "mailer/sendmail/front.c").read_text()
    assert f'#define SOCKET "{main.SOCKET}"' in source
    assert f"PATIENCE = {{.tv_sec = {submission._PATIENCE:.0f}}}" in source
    assert f"MOST = {message.MOST >> 20}u << 20" in source
    assert f"MOST_RECIPIENTS = {submission._BURST}," in source


def test_with_a_standard_stream_closed_nothing_takes_its_place(made, tmp_path):
    with Peer(tmp_path / "s").listening() as peer:
        for stream in ("<&-", ">&-", "2>&-"):
            shell = ["sh", "-c", f'exec "$0" "$@" {stream}']
            assert run(made / "recording/sendmail", peer.path, ["-i", "bob@x"], MAIL, shell).returncode != 0
        assert peer.taken == []


class Door:
    """A receiver, and both programs for it: `python` and `front`, which falls back to the real Python."""

    def __init__(self, directory: Path) -> None:
        directory.chmod(0o711)
        self.socket = directory / "submit.sock"
        user = {"login": str(os.getuid()), "user": "app@example.com"}
        self.relay = Relay(
            directory,
            {
                "submitSocket": str(self.socket),
                "localUsers": [user],
                "originDomain": "here.example",
                "aliases": {"root": "ops@example.com"},
                "maxMessageSize": 100_000,
            },
        )
        self.front = compiled(directory / "front", ENVIRONMENT)
        (directory / "python").mkdir()
        self.python = write_sendmail(directory / "python", self.socket)

    def queued(self) -> set[Path]:
        return set((self.relay.spool / "new").iterdir())


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    found = Door(tmp_path_factory.mktemp("door"))
    with found.relay.serve():
        yield found


def story(path: Path) -> bytes:
    """A queued file without what is of its moment: ids, times, and the journal."""
    text = path.read_bytes().replace(path.name.encode(), b"ID")
    text = re.sub(
        rb"(?m)^(Spool-Received: |Date: |\tSun|\tMon|\tTue|\tWed|\tThu|\tFri|\tSat).*\r$", rb"\1", text
    )
    return text.partition(b'\r\n{"at":')[0]


@pytest.mark.parametrize(
    ("arguments", "given", "code"),
    [
        *((*usual, 0) for usual in USUAL[:5]),
        (["-t", "-i"], MAIL.replace(b"\n\n", b"\nResent-To: eve@x.example\n\n"), 0),
        (["root"], b"no header\n.\nnot this\n", 0),
        (["-i", "a@x@y"], MAIL, os.EX_NOUSER),
        (["-i", "-f", "a@b@c", "bob@x"], MAIL, os.EX_DATAERR),
        (["-i", "bob@x"], MAIL + b"x\n" * 60_000, os.EX_DATAERR),
        (["-i", "bob@x"], b"From: a@x\nFrom: b@x\n\nx\n", os.EX_DATAERR),
        (["-i", "bob@x"], MAIL + b"\0", os.EX_DATAERR),
        (["-i"], MAIL, os.EX_USAGE),
    ],
)  # fmt: skip
def test_both_programs_queue_the_same_or_refuse_alike(door, arguments, given, code):
    outcomes = []
    for program in (door.front, door.python):
        before = door.queued()
        done = run(program, door.socket, arguments, given)
        outcomes.append((done.returncode, done.stderr, [story(path) for path in door.queued() - before]))
    assert outcomes[0] == outcomes[1]
    assert (outcomes[0][0], len(outcomes[0][2])) == (code, code == 0)


def test_without_a_receiver_python_does_what_it_does(door, tmp_path):
    down = Door(tmp_path)
    under = ["env", f"MAILER_CONFIG={down.relay.config}"]
    done = run(down.front, down.socket, ["-i", "-f", "a@here.example", "root"], MAIL, under)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(down.queued()) == 1


def check(relay: Relay, done: subprocess.CompletedProcess[bytes], token: bytes) -> None:
    """Hold an exit code against what is queued: nothing may be lost or doubled that the caller knows of."""
    count = sum(token in path.read_bytes() for path in (relay.spool / "new").iterdir())
    uncertain = done.returncode == os.EX_TEMPFAIL and b"it may have it, or not" in done.stderr
    if done.returncode == 0:
        assert count == 1
    elif uncertain or done.returncode == -signal.SIGKILL:
        assert count <= 1
    else:
        assert count == 0, done


CALLS = "read,write,socket,connect,fcntl,memfd_create"


def test_whichever_call_of_the_front_fails_or_is_its_last_the_exit_code_is_true(door, tmp_path):
    """With each system call killed, and failing, in turn."""
    front = compiled(tmp_path / "front", recorder(tmp_path / "environment"))
    log, seen = tmp_path / "trace", Counter[int]()
    watch = [tracer(), "-f", "-o", str(log), "-e", f"trace={CALLS}"]
    arguments = ["-t", "-i", "-f", "a@here.example"]
    # Longer than the buffers of libc, so that it is written in several pieces.
    given = MAIL + b"line\n" * 5000
    assert run(front, door.socket, arguments, given, watch).returncode == 0
    tried = []
    for call, number in points(calls_in(log)):
        for what in ("signal=KILL", "error=EIO"):
            token = b"%s %d %s" % (call.encode(), number, what.encode())
            inject = ["-e", f"inject={call}:{what}:when={number}"]
            done = run(front, door.socket, arguments, given.replace(b"hello", token), [*watch, *inject])
            check(door.relay, done, token)
            tried.append((done, token))
            seen[done.returncode] += 1
    for done, token in tried:
        check(door.relay, done, token)
    assert {-signal.SIGKILL, GAVE_WAY, os.EX_TEMPFAIL} <= seen.keys()


KILLS = [("write", 1), ("write", 4), ("write", 6), ("fsync", 1), ("fsync", 2), ("renameat2", 1)]


@pytest.mark.parametrize(("call", "number"), KILLS)
def test_a_receiver_killed_at_a_system_call_makes_no_exit_code_wrong(made, tmp_path, call, number):
    door = Door(tmp_path)
    inject = f"{call}:signal=KILL:when={number}"
    with door.relay.serve() as receiver:
        watcher = attach(receiver.pid, tmp_path / "trace", inject=(inject,), trace=call)
        done = run(made / "recording/sendmail", door.socket, ["-t", "-i", "-f", "a@here.example"], MAIL)
        status = receiver.stop()
        watcher.communicate()
    assert status == -signal.SIGKILL
    assert done.returncode != 0 or call == "write"
    check(door.relay, done, b"hello")


def test_what_others_do_by_sendmail_is_measured_beside_it():
    with_own_mounts()
    argv = module_command("bench.injection", "--rounds=2", "--batch=1", "--json", "--directory=/var/tmp")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    syncs = {line["name"]: line["syncs"] for line in map(json.loads, done.stdout.splitlines())}
    durable = ["ours, compiled", "control: the same", "ours, Python"]
    durable += ["Postfix sendmail", "dma", "nullmailer-inject"]
    assert list(syncs) == [*durable, "python3 -c pass", "true"]
    assert all(syncs[name] for name in durable)
