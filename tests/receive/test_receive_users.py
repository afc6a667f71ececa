"""Users: hashes, the users file and the commands that write it, and logging in with them."""

import asyncio
import hmac
import json
import os
import smtplib
import threading
import time
from base64 import b64decode, b64encode
from contextlib import ExitStack
from pathlib import Path

import pytest
from inbound.receiving import CLOSED, PASSWORD, USER, login, running
from testbed.relay import Relay
from testbed.waiting import until

from mailer.config.problem import ConfigError
from mailer.config.receiving import RateLimits
from mailer.config.users import User, changing_users, read_users
from mailer.receive.users import hashes
from mailer.receive.users.account import Account
from mailer.receive.users.accounts import REMEMBER, Accounts, single_login
from mailer.receive.users.auth import Credentials, Identity, NotJudged, plain_credentials
from mailer.receive.users.failures import MAX_DELAY, MAX_REMOTE_FAILURES, WINDOW, Failures
from mailer.receive.users.user_list import UserList

HASH = hashes.hash_password("right password", os.urandom)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_a_password_matches_its_hash_and_no_other_does():
    assert HASH.startswith("$scrypt$ln=14,r=8,p=5$")
    assert hashes.matches("right password", HASH)
    assert not hashes.matches("wrong password", HASH)
    assert not hashes.matches("right password", hashes.unmatchable(os.urandom))


def test_a_known_answer_of_rfc_7914():
    # Section 12, the second vector: "password", "NaCl", N=1024, r=8, p=16.
    key = bytes.fromhex(
        "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"
        "2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640"
    )
    encoded = b64encode(key).rstrip(b"=").decode()
    assert hashes.matches("password", f"$scrypt$ln=10,r=8,p=16$TmFDbA${encoded}")


@pytest.mark.parametrize(
    "hashed",
    [
        "",
        "x",
        "$scrypt$",
        "$scrypt$ln=31,r=8,p=1$AAAAAAAA$AAAAAAAA",
        "$sha256$00",
        "$scrypt$ln=14,r=99,p=1$AAAAAAAA$AAAAAAAA",
    ],
)
def test_what_is_no_hash_of_ours_matches_nothing_and_takes_no_memory(hashed):
    assert not hashes.matches("", hashed)


def test_tokens_are_long_and_quick_to_check():
    token = hashes.new_token(os.urandom)
    assert len(token) == len(hashes.TOKEN_PREFIX) + 43
    assert not hashes.is_slow(hashes.hash_token(token))
    assert hashes.matches(token, hashes.hash_token(token))


class Counting:
    """Counts how often a hash is really computed."""

    def __init__(self, monkeypatch):
        self.count = 0
        real = hashes._scrypt

        def counted(*arguments):
            self.count += 1
            return real(*arguments)

        monkeypatch.setattr(hashes, "_scrypt", counted)


def accounts(*known: Account, clock=time.monotonic) -> Accounts:
    by_name = {account.identity.user: account for account in known}
    return Accounts(lambda: by_name, now=clock, random=os.urandom)


def ask(judge: Accounts, name: str, password: str) -> Identity | None:
    return asyncio.run(judge.authenticate(Credentials(name, password)))


def test_a_right_password_is_hashed_once_and_a_wrong_one_once_a_minute(monkeypatch):
    counting, clock = Counting(monkeypatch), Clock()
    judge = accounts(Account(Identity("shop"), HASH), clock=clock)
    for _ in range(3):
        assert ask(judge, "shop", "right password") == Identity("shop")
        assert ask(judge, "shop", "wrong") is None
    assert counting.count == 2
    clock.now += REMEMBER + 1
    assert ask(judge, "shop", "right password") == Identity("shop")
    assert counting.count == 2
    assert ask(judge, "shop", "wrong") is None
    assert counting.count == 3
    judge.close()


async def guessing(judge: Accounts, name: str, right: str = "right password") -> tuple[Identity | None, int]:
    """Log in as shop while 60 guesses at a name wait; also how many of those were answered before."""
    guesses = [asyncio.ensure_future(judge.authenticate(Credentials(name, f"guess {n}"))) for n in range(60)]
    await asyncio.sleep(0)
    identity = await judge.authenticate(Credentials("shop", right))
    answered = sum(each.done() for each in guesses)
    for each in guesses:
        each.cancel()
    return identity, answered


@pytest.mark.security_case(52, 107)
def test_guesses_do_not_delay_a_password_that_was_right_before(monkeypatch):
    """Case 107, and whoever's name is guessed."""
    judge = accounts(Account(Identity("shop"), HASH))
    assert ask(judge, "shop", "right password") == Identity("shop")
    for name in ("shop", "nobody"):
        assert asyncio.run(guessing(judge, name)) == (Identity("shop"), 0)
    judge.close()


def test_guesses_at_other_names_delay_a_first_login_by_a_turn(monkeypatch):
    judge = accounts(Account(Identity("shop"), HASH))
    identity, answered = asyncio.run(guessing(judge, "nobody"))
    assert identity == Identity("shop")
    assert answered < 10
    judge.close()


def test_the_same_guess_many_times_at_once_is_hashed_once(monkeypatch):
    counting = Counting(monkeypatch)
    judge = accounts(Account(Identity("shop"), HASH))

    async def many() -> list[Identity | None]:
        return await asyncio.gather(*(judge.authenticate(Credentials("shop", "wrong")) for _ in range(50)))

    assert asyncio.run(many()) == [None] * 50
    assert counting.count == 1
    judge.close()


@pytest.mark.security_case(51)
@pytest.mark.parametrize("name", ["nobody", "shop", "token", USER])
def test_every_refusal_costs_one_hash_whichever_user_it_is_for(monkeypatch, name):
    """Case 51: the time tells nobody who is there."""
    counting = Counting(monkeypatch)
    token = Account(Identity("token"), hashes.hash_token("x"))
    judge = accounts(Account(Identity("shop"), HASH), token, single_login(USER, PASSWORD))
    assert ask(judge, name, "wrong") is None
    assert counting.count == 1
    judge.close()


class Gone:
    lost = half_closed = True


def test_a_password_is_not_verified_for_a_client_that_has_left(monkeypatch):
    counting = Counting(monkeypatch)
    judge = accounts(Account(Identity("shop"), HASH))
    with pytest.raises(NotJudged):
        asyncio.run(judge.authenticate(Credentials("shop", "right password", Gone())))
    assert counting.count == 0
    judge.close()


def test_a_login_that_waits_when_the_server_stops_gets_421(tmp_path, monkeypatch):
    """Not 535: the application would take its password for wrong."""
    go_on, matches = threading.Event(), hashes.matches

    def slow(password, hashed):
        assert go_on.wait(60)
        return matches(password, hashed)

    monkeypatch.setattr(hashes, "matches", slow)
    with (
        running(tmp_path, CLOSED, login(Account(Identity("shop"), HASH))) as receiver,
        ExitStack() as clients,
    ):
        judge = receiver.server._context.authenticator
        for waiting, password in enumerate((b"wrong", b"wrong, too", b"right password"), 1):
            client = smtplib.SMTP(*receiver.address, timeout=60)
            clients.callback(client.close)
            client.ehlo()
            client.putcmd("AUTH PLAIN " + b64encode(b"\0shop\0" + password).decode())
            until(lambda waiting=waiting: len(judge._computing) == waiting, "the login")
        stopping = asyncio.run_coroutine_threadsafe(receiver.server.stop(60), receiver.loop)
        until(lambda: all(each.lost for each in tuple(receiver.server._sessions)), "the end")
        go_on.set()
        assert client.getreply()[0] == 421
        stopping.result(60)
        assert sum("login" in line for line in receiver.log) <= 2


def test_the_loop_serves_others_while_a_password_is_hashed(tmp_path):
    judge = login(Account(Identity("shop"), HASH))
    beats = 0

    async def both():
        nonlocal beats
        asking = asyncio.ensure_future(judge.authenticate(Credentials("shop", "right password")))
        while not asking.done():
            beats += 1
            await asyncio.sleep(0.001)
        return await asking

    assert asyncio.run(both()) == Identity("shop")
    assert beats > 3
    judge.close()


@pytest.mark.security_case(52)
def test_answers_to_failures_are_held_back_longer_and_longer_but_a_second_at_most():
    clock = Clock()
    failures = Failures(clock)
    delays = [failures.count("192.0.2.1", f"user{n}") for n in range(10)]
    assert delays == sorted(delays)
    assert delays[0] < delays[-1] == MAX_DELAY
    clock.now += WINDOW + 1
    assert failures.count("192.0.2.1", "user") == delays[0]


def test_only_distant_guessers_are_turned_away():
    """Case 52: guessing from this host locks none of its applications out."""
    failures = Failures(Clock())
    for _ in range(MAX_REMOTE_FAILURES):
        failures.count("192.0.2.1", "app")
        failures.count("127.0.0.1", "app")
    assert failures.is_blocked("192.0.2.1", local=False)
    assert not failures.is_blocked("192.0.2.2", local=False)
    assert not failures.is_blocked("127.0.0.1", local=True)


@pytest.mark.security_case(50)
def test_cram_md5_takes_the_right_digest_and_a_replayed_one_fails(tmp_path):
    """Case 50."""
    judge = login(single_login(USER, PASSWORD), cram_md5={USER: PASSWORD})
    with running(tmp_path, CLOSED, judge) as receiver:
        with smtplib.SMTP(*receiver.address) as client:
            client.ehlo()
            code, challenge = client.docmd("AUTH", "CRAM-MD5")
            digest = hmac.new(PASSWORD.encode(), b64decode(challenge), "md5").hexdigest()
            response = b64encode(f"{USER} {digest}".encode()).decode()
            assert (code, client.docmd(response)[0]) == (334, 235)
        with smtplib.SMTP(*receiver.address) as client:
            client.ehlo()
            client.docmd("AUTH", "CRAM-MD5")
            assert client.docmd(response)[0] == 535


def test_a_changed_file_counts_and_a_bad_one_leaves_the_old_users(tmp_path: Path):
    path, clock, troubles = tmp_path / "users.json", Clock(), []
    users = UserList(path, {}, RateLimits(), now=clock, on_trouble=troubles.append)
    assert users.accounts() == {}
    with changing_users(path) as file:
        file["shop"] = User(name="shop", hash=HASH, max_per_hour=5)
    clock.now += 2
    assert set(users.accounts()) == {"shop"}
    assert users.rate("shop").per_hour == 5
    path.write_text("{")
    clock.now += 2
    assert set(users.accounts()) == {"shop"}
    clock.now += 2
    users.accounts()
    assert len(troubles) == 1


@pytest.mark.parametrize(
    "text",
    ["[]", '{"users": [{"name": "a"}]}', '{"users": [{"name": "a", "hash": "x", "secret": "hush"}]}', "\xff"],
)
def test_a_file_that_is_none_is_said_without_its_values(tmp_path: Path, text: str):
    path = tmp_path / "users.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as error:
        read_users(path)
    assert "hush" not in str(error.value)


def test_a_change_that_fails_leaves_the_file_and_its_mode(tmp_path: Path):
    path = tmp_path / "users.json"
    with changing_users(path) as users:
        users["shop"] = User(name="shop", hash=HASH)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(KeyError), changing_users(path) as users:
        del users["shop"], users["nobody"]
    assert set(read_users(path)) == {"shop"}
    with changing_users(path) as users:
        users["b"] = User(name="b", hash=HASH)
    assert path.stat().st_mode & 0o777 == 0o640
    assert not list(tmp_path.glob(".users*"))


def test_users_are_added_log_in_are_limited_and_removed(relay: Relay) -> None:
    added = relay.mailer(
        "user", "add", "shop", "--allow", "shop.example.com", "--max-per-hour", "1", given="a good password\n"
    )
    assert (added.returncode, added.stderr) == (0, "")
    token = relay.mailer("user", "token", "cron", "--allow", "*").stdout.strip()
    assert relay.mailer("user", "check", "shop", given="a good password\n").returncode == 0
    assert "good password" not in (relay.directory / "users.json").read_text()
    assert token not in (relay.directory / "users.json").read_text()
    assert relay.mailer("user", "passwd", "shop", given="short\n").returncode == 2
    assert relay.mailer("user", "check", "shop", given="short\n").returncode == 1
    with relay.serve():
        with smtplib.SMTP("127.0.0.1", relay.port) as client:
            client.login("shop", "a good password")
            assert client.mail("boss@example.com") == (
                553,
                (
                    b"5.7.1 shop may not send as boss@example.com, which MAIL FROM says; it may send as "
                    b"shop.example.com (mailer user allow shop boss@example.com)"
                ),
            )
            client.sendmail("a@shop.example.com", ["b@example.net"], "From: a@shop.example.com\r\n\r\n")
            with pytest.raises(smtplib.SMTPSenderRefused, match=r"4\.7\.1"):
                client.sendmail("b@shop.example.com", ["b@example.net"], "Subject: x\r\n\r\n")
        with smtplib.SMTP("127.0.0.1", relay.port) as client:
            client.login("cron", token)
            client.sendmail("anyone@example.com", ["b@example.net"], "Subject: x\r\n\r\n")
    listed = relay.mailer("user", "ls").stdout.splitlines()
    assert listed == [
        "NAME\tLOGS IN BY\tMAY SEND AS\tLIMITS",
        "shop\tpassword\tshop.example.com\t1 per hour",
        "cron\ttoken\t*",
    ]
    assert [
        json.loads(line)["hash"] for line in relay.mailer("user", "ls", "--json").stdout.splitlines()
    ] == [
        "password",
        "token",
    ]
    assert relay.mailer("user", "rm", "cron").returncode == 0
    assert relay.mailer("user", "rm", "cron").returncode == 66
    assert relay.mailer("user", "passwd", "nobody").returncode == 66


def test_each_change_of_a_user_says_what_was_done(relay: Relay) -> None:
    def said(*arguments: str) -> tuple[str, str]:
        done = relay.mailer("user", *arguments, given="a good password\n")
        assert done.returncode == 0
        return done.stdout, done.stderr

    assert said("add", "plain") == ("added plain\n", "")
    limited, _ = said("add", "shop", "--max-per-day", "9")
    assert limited.startswith("added shop\nlimits take effect at the receiver's next start or reload")
    assert said("passwd", "shop") == ("changed the password of shop\n", "")
    for note, *allowed in (("added cron;", "--allow", "*"), ("changed the token of cron;",)):
        token, told = said("token", "cron", *allowed)
        assert told.startswith(note)
        assert len(token.split()) == 1
    assert said("rm", "shop") == ("removed shop\n", "")


@pytest.mark.security_case(138)
def test_no_user_that_may_send_as_anyone_is_made_by_a_mistyped_name(relay: Relay) -> None:
    refused = relay.mailer("user", "token", "corn")
    assert (refused.returncode, refused.stdout) == (66, "")
    assert "the user corn does not exist; to add it, name its senders" in refused.stderr
    assert relay.mailer("user", "token", "cron", "--allow", "cron@example.com").returncode == 0
    again = relay.mailer("user", "token", "cron", "--allow", "*")
    assert (again.returncode, again.stdout) == (2, "")
    [listed] = relay.mailer("user", "ls", "--json").stdout.splitlines()
    assert json.loads(listed)["allowedSenders"] == ["cron@example.com"]


def test_the_first_user_is_seen_without_a_restart(relay: Relay) -> None:
    """Where nobody has to log in, AUTH is offered once there is somebody who can, and not before."""
    relay.configure({"security": {"requireAuth": False}, "defaultUsername": "", "defaultPassword": ""})
    with relay.serve(), smtplib.SMTP("127.0.0.1", relay.port) as client:
        assert b"AUTH" not in client.ehlo()[1]
        assert relay.mailer("user", "add", "shop", given="a long password\n").returncode == 0
        until(lambda: b"AUTH PLAIN LOGIN" in client.ehlo()[1], "the user to be seen")
        client.login("shop", "a long password")


@pytest.mark.parametrize("command", ["add", "token"])
def test_no_user_is_made_with_the_name_of_the_configurations_own_login(relay: Relay, command: str) -> None:
    """That one counts, so the new password never would."""
    done = relay.mailer("user", command, "app@example.com", given="a long password\n")
    assert done.returncode == 2
    assert "defaultUsername" in done.stderr
    assert read_users(relay.directory / "users.json") == {}


def test_who_logs_in_with_plain_acts_for_nobody_else() -> None:
    """RFC 4616 2: the first part names whom the client wants to act as; none, or the user itself."""
    assert plain_credentials(b"\0app\0secret") == Credentials("app", "secret")
    assert plain_credentials(b"app\0app\0secret") == Credentials("app", "secret")
    assert plain_credentials(b"boss\0app\0secret") is None
