"""The page and `mailer top` of one of several hosts: they show the mail of all as one."""

import json
import re
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from outbound.hostile import Server
from spools.states import Queue
from testbed.hosts import Host, send
from testbed.http_client import Answer, ask
from testbed.relay import ADMIN_TOKEN

TOKEN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    """Two hosts that have joined."""
    shared = tmp_path / "shared"
    shared.mkdir()
    with Server({}) as hop:
        a, b = (Host(tmp_path / name, name, shared, hop.port) for name in "ab")
        assert (a.hosts("join")[0], b.hosts("join")[0]) == (0, 0)
        yield a, b


@pytest.fixture
def ids(hosts: tuple[Host, Host]) -> tuple[str, str, str]:
    """A message that waits on a, one that waits on b, and one that failed on b, in the order of arrival."""
    a, b = hosts
    # Ids of the same millisecond are in no order.
    first = Queue(a.spool).new("ann@example.net", received=time.time() - 1)
    waits, failed = (Queue(b.spool).new(f"{name}@example.net") for name in ("bob", "cat"))
    Queue(b.spool).fail(failed, "550 5.1.1 no such user", "cat@example.net")
    line = {"at": "2026-11-20T00:00:00.000000Z", "event": "accepted", "id": failed, "from": "x@example.com"}
    ledger = json.dumps(line | {"to": ["cat@example.net"]}, separators=(",", ":"))
    (b.spool / "log" / "20261120.jsonl").write_text(f"{ledger}\n")
    return first, waits, failed


def words_of(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", answer.body.decode())).split())


def test_the_page_shows_the_mail_of_all_hosts(hosts: tuple[Host, Host], ids: tuple[str, str, str]) -> None:
    a, _ = hosts
    first, waits, failed = ids
    with a.monitor(under=a.here):

        def said(path: str) -> str:
            return words_of(ask(a.http_port, path, headers=TOKEN))

        overview = said("/")
        assert "2 messages on the way, 1 given up" in overview
        assert re.search(r"\ba 1 .* 0 b 1 .* 1 The queue and recent mail are those of all hosts", overview)
        assert f"{failed} 2026-11-20" in overview
        assert ", on host b" in overview
        listed = said("/queue/new")
        assert "2 messages" in listed
        assert listed.index(first) < listed.index(waits)
        assert re.search(rf"{first} .*? on host a .*{waits} .*? on host b ", listed)
        newest = said("/queue/new?order=newest")
        assert newest.index(waits) < newest.index(first)
        assert first not in said(f"/queue/new?after={first}")
        assert f"{failed} 2026-11-20" in said("/search?q=cat@example.net")
        assert f"{waits} " in said(f"/search?q={waits[:12]}")
        assert "550 5.1.1" in said(f"/message/{failed}")


def test_mail_of_another_host_is_shown_and_not_acted_on(
    hosts: tuple[Host, Host], ids: tuple[str, str, str]
) -> None:
    a, b = hosts
    first, waits, _ = ids
    with a.monitor(under=a.here):
        ours, theirs = (ask(a.http_port, f"/message/{name}", headers=TOKEN) for name in (first, waits))
        assert f"/message/{first}/hold".encode() in ours.body
        assert b"/hold" not in theirs.body
        assert "in the spool of host b: act on it there" in words_of(theirs)
        assert ask(a.http_port, f"/message/{waits}/hold", headers=TOKEN).status == 404
    assert (b.spool / "new" / waits).exists()


def test_a_host_whose_spool_cannot_be_read_is_left_out(
    hosts: tuple[Host, Host], ids: tuple[str, str, str]
) -> None:
    a, b = hosts
    first, waits, _ = ids
    away = b.spool.with_name("away")
    b.spool.rename(away)
    with a.monitor(under=a.here):
        shown = words_of(ask(a.http_port, "/queue/new", headers=TOKEN))
        assert first in shown
        assert waits not in shown
        assert "b has joined, and its spool" in words_of(ask(a.http_port, "/", headers=TOKEN))
        away.rename(b.spool)
        assert waits in words_of(ask(a.http_port, "/queue/new", headers=TOKEN))
    ledger = b.spool / "log"
    ledger.rename(b.spool / "elsewhere")
    assert "b: 1 on the way" in a.mailer("top", "--once", under=a.here).stdout


def test_top_counts_the_mail_of_all_hosts(hosts: tuple[Host, Host], ids: tuple[str, str, str]) -> None:
    a, _ = hosts
    assert ids
    told = json.loads(a.mailer("top", "--json", under=a.here).stdout)
    assert (told["queue"]["new"]["count"], told["queue"]["failed"]["count"]) == (2, 1)
    assert {name: queue["new"]["count"] for name, queue in told["hosts"].items()} == {"a": 1, "b": 1}
    shown = a.mailer("top", "--once", under=a.here).stdout
    assert re.search(r"^a: 1 on the way \(oldest \S+\), 0 at rest$", shown, re.MULTILINE)
    assert re.search(r"^b: 1 on the way \(oldest \S+\), 1 at rest$", shown, re.MULTILINE)


def test_what_to_do_next_is_said_of_mail_of_another_host(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    with b.serve(under=b.here):
        assert send(b, "m1")
    done = a.mailer("log", "--to", "bob@example.net", under=a.here)
    assert done.stdout.startswith("b  ")
    (name,) = (each.name for each in (b.spool / "new").iterdir())
    assert f"next: {name}: " in done.stderr
