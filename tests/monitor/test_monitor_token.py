"""Every user of the host may ask how mail is doing; mail itself takes the token (security case 105)."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from spools.states import Queue
from spools.walk import walk
from testbed.http_client import Answer, ask
from testbed.relay import Relay

RETRY = "/admin/retry-failed"


@pytest.fixture
def open_relay(relay: Relay) -> Relay:
    """One whose operator set no token."""
    relay.configure({"adminToken": "", "enableHealthCheck": True, "healthCheckPort": relay.http_port})
    return relay


@pytest.fixture
def failed(open_relay: Relay) -> Iterator[str]:
    states = Queue(open_relay.spool)
    message = states.new("secret-address@example.net")
    states.fail(message, "550 no", "secret-address@example.net")
    yield message
    states.close()


def stranger(port: int, path: str, method: str = "GET") -> Answer:
    """As any program of this host asks, without a token."""
    return ask(port, path, method, {"Cookie": "a=b"})


def token_file(relay: Relay) -> Path:
    return relay.spool / "state" / "monitor-token"


def link(relay: Relay) -> str:
    done = relay.mailer("monitor", "--link")
    assert done.returncode == 0, done.stderr
    parts = urlsplit(done.stdout.strip())
    assert parts.netloc == f"localhost:{relay.http_port}"
    return f"{parts.path}?{parts.query}"


@pytest.mark.security_case(105)
def test_without_the_token_there_are_counts_and_health_and_no_mail(open_relay: Relay, failed: str) -> None:
    before = walk(open_relay.spool)
    port = open_relay.http_port
    with open_relay.monitor() as process:
        for path in ("/health", "/metrics", "/livez", "/readyz"):
            answer = stranger(port, path)
            assert answer.status in {200, 503}
            assert b"secret-address" not in answer.body
        assert stranger(port, "/metrics").json["failed_emails"] == 0
        for path in (
            "/",
            f"/message/{failed}",
            f"/message/{failed}/delete",
            "/queue/failed",
            "/search?q=s",
            "/events",
        ):
            answer = stranger(port, path)
            assert answer.status == 303
            assert b"secret-address" not in answer.body
        for action in ("delete", "hold", "retry"):
            assert stranger(port, f"/message/{failed}/{action}", "POST").status == 401
        for path in ("pause", "resume", "clean-old-emails?olderThan=0s"):
            assert stranger(port, f"/admin/{path}", "POST").status == 401
        assert stranger(port, "/admin/config").status == 401
        assert not (open_relay.spool / "state" / "paused").exists()
        assert token_file(open_relay).read_text().strip() not in process.output()
    assert walk(open_relay.spool) == before


def test_retry_failed_goes_on_without_a_token_and_not_at_every_request(
    open_relay: Relay, failed: str
) -> None:
    """What users of the Go relay have in their crontabs."""
    port = open_relay.http_port
    with open_relay.monitor():
        assert "1 failed message" in stranger(port, RETRY, "POST").json["message"]
        for _ in range(20):
            answer = stranger(port, RETRY, "POST")
            assert answer.status == 200
            assert answer.json["status"] == "ok"
            assert "it is done once in 30m" in answer.json["message"]
        token = token_file(open_relay).read_text().strip()
        answer = ask(port, RETRY, "POST", {"Authorization": f"Bearer {token}"})
        assert "will be tried now" in answer.json["message"]
    lines = "".join(path.read_text() for path in (open_relay.spool / "log").glob("*.jsonl")).splitlines()
    assert [json.loads(line)["id"] for line in lines if '"requeued"' in line] == [failed]


def test_the_link_logs_in_and_stays_the_same(open_relay: Relay, failed: str) -> None:
    for _ in range(2):
        with open_relay.monitor():
            answer = stranger(open_relay.http_port, link(open_relay))
            assert (answer.status, answer.headers["location"]) == (303, "/")
            cookie = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
            page = ask(open_relay.http_port, f"/message/{failed}", headers=cookie)
            assert b"secret-address" in page.body
            assert stranger(open_relay.http_port, f"{link(open_relay)}x").status == 401
        assert stat.S_IMODE(token_file(open_relay).stat().st_mode) == 0o600


@pytest.mark.parametrize("left", [b"", b"short\n", b"\xff" * 40])
def test_a_token_file_that_is_no_good_is_made_anew(open_relay: Relay, failed: str, left: bytes) -> None:
    assert open_relay.mailer("monitor", "--link").returncode == 69
    token_file(open_relay).write_bytes(left)
    with open_relay.monitor():
        assert stranger(open_relay.http_port, link(open_relay)).status == 303
        assert stranger(open_relay.http_port, "/").status == 303


def test_a_token_of_the_configuration_is_the_only_one(relay: Relay) -> None:
    with relay.monitor():
        assert not token_file(relay).exists()
        assert stranger(relay.http_port, RETRY, "POST").status == 401
        assert stranger(relay.http_port, link(relay)).status == 303
