"""`submitSocket`: the kernel says whose program connects, and `localUsers` whose mail that is."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from inbound.receiving import CLOSED, OPEN, certificate, login, running
from testbed.ci import only_root
from testbed.relay import Relay
from testbed.tools import program
from testbed.waiting import until

from mailer.cli.receiving.receiver import settings
from mailer.config.checks import refuse_to_serve
from mailer.config.load import load
from mailer.config.model import Config
from mailer.config.receiving import Listener
from mailer.config.warnings import warnings
from mailer.mail.patterns import AddressPatterns
from mailer.receive.settings import Endpoint
from mailer.receive.users.account import Account
from mailer.receive.users.auth import Identity
from mailer.receive.users.local_users import LocalUser, PeerIds, peer_ids, user_of
from mailer.receive.users.rates import Rate, RateLimiter, RateRules

as_root = only_root("only root can become another user")
CRON, WEB, MEMBER, STRANGER = 4711, 4712, 4713, 4714
GROUP = 4800
MESSAGE = "From: a@web.example\r\n\r\nhello\r\n"
# In a program of its own: another user's, or one that must not share our Python's memory of the socket.
CLIENT = """
import json, smtplib, socket, sys
client = smtplib.SMTP()
client.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
client.sock.connect(sys.argv[1])
said = [client.getreply()]
for command in sys.argv[2:]:
    if command.startswith("From:"):
        said.append(client.data(command))
    else:
        said.append(client.docmd(command))
print(json.dumps([f"{code} {text.decode()}" for code, text in said]))
"""


def as_uid(uid: int, *groups: int) -> list[str]:
    """The command that runs another as a user who need not be in /etc/passwd."""
    return [
        program("setpriv"),
        f"--reuid={uid}",
        f"--regid={uid}",
        *([f"--groups={','.join(map(str, groups))}"] if groups else ["--clear-groups"]),
    ]


def say(path: Path, *commands: str, under: list[str] | None = None) -> list[str]:
    """Connect, say what is given, and return all replies, the banner first."""
    done = subprocess.run(
        [*(under or ()), "/usr/bin/python3", "-c", CLIENT, str(path), *commands],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


MAIL = ("EHLO x", "MAIL FROM:<a@web.example>", "RCPT TO:<b@example.net>", MESSAGE)


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that other users can enter; pytest keeps its own for itself."""
    with TemporaryDirectory(prefix="mailer-test-") as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


@contextmanager
def receiver(directory: Path, local_users: tuple[LocalUser, ...], base=CLOSED, **parts):
    accounts = [
        Account(Identity("web", AddressPatterns.of(("web.example",))), "no hash"),
        Account(Identity("ops"), "no hash"),
    ]
    listening = replace(base, endpoints=(Endpoint(path=str(directory / "submit.sock"), submit=True),))
    with running(directory, listening, login(*accounts), local_users=local_users, **parts) as found:
        yield found, directory / "submit.sock"


@pytest.mark.parametrize(
    ("ids", "user"),
    [
        (PeerIds(0, frozenset({0})), "ops"),
        (PeerIds(33, frozenset({33})), "web"),
        (PeerIds(33, frozenset({33, 4})), "web"),
        (PeerIds(1000, frozenset({1000, 4})), "ops"),
        (PeerIds(4, frozenset({1000})), ""),
        (PeerIds(1000, frozenset({33})), ""),
        (PeerIds(1000, frozenset({0})), ""),
    ],
)
def test_the_first_that_covers_a_program_says_whose_its_mail_is(ids, user):
    rules = (LocalUser("ops", uid=0), LocalUser("web", uid=33), LocalUser("ops", gid=4))
    assert user_of(ids, rules) == user
    assert user_of(ids, (*rules, LocalUser("rest"))) == (user or "rest")
    assert user_of(ids, ()) == ""


def test_the_kernel_knows_who_connected():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_ids(ours) == PeerIds(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))


def test_a_program_that_is_mapped_sends_without_a_login(directory):
    users = (LocalUser("web", uid=os.geteuid()),)
    with receiver(directory, users, certificate=certificate(directory)) as (server, path):
        ehlo, mail, rcpt, data = say(path, *MAIL)[1:]
        # What cannot be used here is not offered, nor taken.
        assert "AUTH" not in ehlo
        assert "STARTTLS" not in ehlo
        assert [mail[:3], rcpt[:3], data[:10]] == ["250", "250", "250 2.0.0 "]
        (entry,) = (server.spool / "new").iterdir()
        stored = entry.read_bytes()
        assert f"Spool-User: web\r\nSpool-Peer: unix:{os.geteuid()}\r\n".encode() in stored
        assert f"Received: from x (local socket, uid {os.geteuid()})".encode() in stored
        replies = say(path, "EHLO x", "AUTH PLAIN AHdlYgBh", "STARTTLS", "MAIL FROM:<a@web.example>")
        assert [reply[:9] for reply in replies[2:]] == ["502 5.5.1", "502 5.5.1", "250 2.1.0"]


def test_it_sends_as_its_user_may_and_no_oftener(directory):
    users = (LocalUser("web", uid=os.geteuid()),)
    rates = RateLimiter(RateRules(of_user={"web": Rate(per_hour=1)}.get), lambda: 0.0)
    with receiver(directory, users, rates=rates) as (server, path):
        replies = say(path, "EHLO x", "MAIL FROM:<a@other.example>")
        assert replies[-1].startswith("553 5.7.1 web may not send as a@other.example, which MAIL FROM says")
        other = "From: a@other.example\r\n\r\nhello\r\n"
        assert say(path, *MAIL[:3], other)[-1][:9] == "553 5.7.1"
        assert say(path, *MAIL)[-1][:9] == "250 2.0.0"
        assert say(path, *MAIL[:2])[-1][:9] == "451 4.7.1"
        assert len(list((server.spool / "new").iterdir())) == 1


@pytest.mark.parametrize("base", [OPEN, CLOSED], ids=["open", "closed"])
def test_a_program_whose_user_is_not_mapped_is_refused_with_the_reason(directory, base):
    """Also where nobody need log in: at this socket everybody is somebody."""
    uid = os.geteuid()
    with receiver(directory, (LocalUser("web", uid=uid + 1),), base) as (server, path):
        (banner,) = say(path)
        assert banner.startswith(f"554 5.7.1 User id {uid} may not submit here: localUsers maps it to no")
        assert any(f"peer=unix:{uid}" in line for line in server.log)
    with receiver(directory, (LocalUser("gone", uid=uid),), base) as (_, path):
        (banner,) = say(path)
        assert "localUsers maps it to gone, which is not a user here" in banner


def test_a_name_in_the_header_gets_the_domain_before_it_is_judged(directory):
    """Cron's own mail, from a user who may send as one domain only."""
    users = (LocalUser("web", uid=os.geteuid()),)
    cron = "From: root (Cron Daemon)\r\nTo: root\r\nSubject: Cron <root@host> ls\r\n\r\nhello\r\n"
    # Names are addresses here, whatever other clients must write.
    base = replace(
        CLOSED, origin_domain="web.example", aliases={"root": "ops@example.com"}, strict_syntax=True
    )
    with receiver(directory, users, base) as (server, path):
        replies = say(path, "EHLO x", "MAIL FROM:<root>", "RCPT TO:<root>", cron)
        assert [reply[:3] for reply in replies[2:]] == ["250"] * 3
        (entry,) = (server.spool / "new").iterdir()
        stored = entry.read_bytes()
    assert b"Spool-Sender: <root@web.example>\r\nSpool-Recipient: <ops@example.com>\r\n" in stored
    added = (
        b"From: root@web.example (Cron Daemon)\r\nTo: root@web.example\r\nSubject: Cron <root@host> ls\r\n"
    )
    assert added in stored
    with receiver(directory, users, replace(base, origin_domain="other.example")) as (_, path):
        replies = say(path, "EHLO x", "MAIL FROM:<a@web.example>", "RCPT TO:<root>", cron)
        assert replies[-1].startswith("553 5.7.1 web may not send as root@other.example, which ")


@as_root
def test_each_program_is_who_it_is(directory):
    users = (LocalUser("ops", uid=CRON), LocalUser("web", uid=WEB), LocalUser("web", gid=GROUP))
    with receiver(directory, users) as (server, path):
        assert say(path, *MAIL, under=as_uid(CRON))[-1][:3] == "250"
        assert say(path, *MAIL, under=as_uid(WEB))[-1][:3] == "250"
        assert say(path, *MAIL, under=as_uid(MEMBER, 4799, GROUP))[-1][:3] == "250"
        assert "User id 4714" in say(path, under=as_uid(STRANGER))[0]
        assert "User id 4713" in say(path, under=as_uid(MEMBER))[0]
        assert "User id 0" in say(path)[0]
        # Not as another, whatever it says of itself.
        replies = say(path, "EHLO x", "MAIL FROM:<root@ops.example> AUTH=ops", under=as_uid(WEB))
        assert replies[-1][:3] in {"501", "553"}
        stored = b"".join(entry.read_bytes() for entry in (server.spool / "new").iterdir())
    assert stored.count(b"Spool-User: ops\r\nSpool-Peer: unix:4711\r\n") == 1
    assert stored.count(b"Spool-User: web\r\nSpool-Peer: unix:4712\r\n") == 1
    assert stored.count(b"Spool-User: web\r\nSpool-Peer: unix:4713\r\n") == 1


@as_root
def test_a_mapped_program_that_only_holds_places_gives_way(directory):
    """Security case 108 at this socket: it is known, and still not before one that does something."""
    with receiver(directory, (LocalUser("ops"),), replace(CLOSED, max_connections=4)) as (_, path):
        idle = [socket.socket(socket.AF_UNIX) for _ in range(8)]
        for each in idle:
            each.connect(str(path))
        assert say(path, *MAIL, under=as_uid(CRON))[-1][:3] == "250"
        for each in idle:
            each.close()


@as_root
def test_the_receiver_takes_its_socket_from_the_configuration(directory: Path) -> None:
    path = directory / "submit.sock"
    relay = Relay(directory, {"submitSocket": str(path), "localUsers": []})
    added = relay.mailer("user", "add", "cron", "--allow", "example.com", given="a long password\n")
    assert added.returncode == 0, added.stderr
    relay.configure(
        {
            "localUsers": [
                {"login": str(CRON), "user": "cron"},
                {"group": str(GROUP), "user": "app@example.com"},
                {"login": "no-such-login", "user": "cron"},
            ]
        }
    )
    with relay.serve() as server:
        assert path.stat().st_mode & 0o777 == 0o666
        until(lambda: "this host has no such login" in server.output(), "the warning")
        refused = say(path, "EHLO x", "MAIL FROM:<a@web.example>", under=as_uid(CRON))
        assert refused[-1][:9] == "553 5.7.1"
        assert say(path, *MAIL, under=as_uid(MEMBER, GROUP))[-1][:3] == "250"
        assert "User id 4712" in say(path, under=as_uid(WEB))[0]
        found = relay.mailer("doctor", "--offline", "--json").stdout
        assert f'"about":"{path}"' in found.replace(" ", "")
    assert not path.exists()
    assert "unix:4713" in relay.mailer("log", "--json").stdout


def problems(tmp_path: Path, **settings: object) -> tuple[list[str], list[str]]:
    """What is refused of a configuration, and what is warned of."""
    relay = Relay(tmp_path, settings)
    loaded = load(relay.config, {})
    return [str(each) for each in refuse_to_serve(loaded)], [str(each) for each in warnings(loaded)]


@pytest.mark.parametrize("member", [{"user": "a"}, {"user": "a", "login": "root", "group": "root"}])
def test_a_member_of_local_users_names_a_login_or_a_group(tmp_path, member):
    refused, _ = problems(tmp_path, localUsers=[member])
    assert refused == ['$.localUsers[0]: needs either "login" or "group"']


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([], "is empty, so every client"),
        ([{"login": "no-such-login", "user": "app@example.com"}], "no such login"),
        ([{"group": "no-such-group", "user": "app@example.com"}], "no such group"),
        ([{"login": "*", "user": "nobody-here"}], "names an unknown user; type: mailer user add nobody-here"),
    ],
)
def test_a_mapping_that_helps_nobody_is_warned_of(tmp_path, members, words):
    refused, warned = problems(tmp_path, submitSocket="submit.sock", localUsers=members)
    assert refused == []
    assert [each for each in warned if words in each]


def test_the_socket_is_one_more_place_to_listen_at(tmp_path):
    config = Config(submit_socket=tmp_path / "s", listeners=(Listener(unix_socket=tmp_path / "t"),))
    assert settings(config, None).endpoints == (
        Endpoint(path=str(tmp_path / "t")),
        Endpoint(path=str(tmp_path / "s"), submit=True, name="submit"),
    )
