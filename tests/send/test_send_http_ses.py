"""Amazon SES: signatures as AWS published them, whose keys sign, and real runs."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self
from urllib.parse import quote_plus

import pytest
from outbound.sending import SENDER, forward_to, queue
from testbed.http_api import REGION, HttpApi, ses
from testbed.moto import Moto
from testbed.relay import Relay

from mailer.send.http.sigv4 import Keys, Signer, signed

KEY_ID, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SESSION = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflf"
    "KD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd"
    "8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3i"
    "SIlTJabIQwj2ICCR/oLxBA=="
)
FORM = "application/x-www-form-urlencoded"
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()
URL = "https://example.amazonaws.com"

# Name in AWS' test suite, method, path, headers, body, signature.
SUITE: list[tuple[str, str, str, dict[str, str], str, str]] = [
    ("get-vanilla", "GET", "/", {}, "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    (
        "get-vanilla-query-order-key-case", "GET", "/?Param2=value2&Param1=value1", {}, "",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    (
        "get-header-value-trim", "GET", "/", {"My-Header1": " value1", "My-Header2": ' "a   b   c"'}, "",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    (
        "get-utf8", "GET", "/\u1234", {}, "",
        "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
    ),
    (
        "get-space", "GET", "/example space/", {}, "",
        "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
    ),
    ("post-vanilla", "POST", "/", {}, "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    (
        "post-header-value-case", "POST", "/", {"My-Header1": "VALUE1"}, "",
        "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
    ),
    (
        "post-x-www-form-urlencoded", "POST", "/", {"Content-Type": FORM}, "Param1=value1",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "signature"),
    [case[1:] for case in SUITE],
    ids=[case[0] for case in SUITE],
)
def test_signatures_are_those_that_aws_published(
    method: str, path: str, headers: dict[str, str], body: str, signature: str
) -> None:
    signer = Signer(Keys(KEY_ID, SECRET), "us-east-1", "service")
    made = signed(method, URL + path, headers, sha256(body.encode()).hexdigest(), signer, NOW)
    assert made["Authorization"].endswith(f", Signature={signature}")
    assert made["Authorization"].startswith(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders="
    )


def test_a_session_token_is_signed_as_aws_published() -> None:
    signer = Signer(Keys(KEY_ID, SECRET, SESSION), "us-east-1", "service")
    made = signed("POST", f"{URL}/", {}, sha256(b"").hexdigest(), signer, NOW)
    assert made["X-Amz-Security-Token"] == SESSION
    assert made["Authorization"].endswith("85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead")
    assert SECRET not in repr(signer)
    assert SESSION not in repr(signer)


# Real programs.

MESSAGE = b"From: <app@example.com>\r\nTo: x@example.com\r\nSubject: odd\r\n\r\n\xff.\r\n..\r\nno end"
TO = ("bob@example.net", "eve@example.org")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpApi]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with HttpApi(ses) as server:
        server.keys = {KEY_ID: SECRET}
        yield server


def through(api: HttpApi, **keys: Any) -> dict[str, Any]:
    provider = {"api": "ses", "region": REGION, "apiUrl": api.url, "name": "aws", **keys}
    return forward_to(forwardProviders=[provider])


def sent_by(relay: Relay, api: HttpApi, key_id: str) -> str:
    """Send a mail, and return what was printed."""
    before = len(api.taken)
    queue(relay.spool, TO, MESSAGE)
    done = relay.mailer_send("--once")
    assert (done.returncode, api.complaints) == (0, []), done.stderr
    [taken] = api.taken[before:]
    assert (taken.message, taken.recipients, taken.token) == (MESSAGE, TO, key_id)
    assert taken.path == SENDER, "the envelope's sender"
    return done.stderr + done.stdout


def test_ses_gets_the_bytes_that_were_accepted_signed_by_whatever_keys_there_are(
    relay: Relay, api: HttpApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay.configure(through(api))
    waiting = queue(relay.spool, TO, MESSAGE)
    assert relay.mailer_send("--once").returncode == 0
    assert api.requests == 0
    assert (
        "Set `username` and `password`, or AWS_ACCESS_KEY_ID" in relay.mailer("spool", "why", waiting).stdout
    )
    relay.mailer("spool", "rm", waiting)
    relay.mailer("providers", "reset", "--all")
    relay.configure(through(api, username=KEY_ID, password=SECRET))
    said = sent_by(relay, api, KEY_ID)
    relay.configure(through(api))
    api.keys["AKIDOFENV"] = "secret/of+the.environment"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOFENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", api.keys["AKIDOFENV"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION)
    said += sent_by(relay, api, "AKIDOFENV")
    seen = "".join(path.read_text(errors="replace") for path in (relay.spool / "log").rglob("*.*")) + said
    assert not any(secret in seen for secret in (SECRET, SESSION, api.keys["AKIDOFENV"]))


def test_an_answer_that_quotes_the_canonical_request_makes_no_key_known(
    relay: Relay, api: HttpApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SignatureDoesNotMatch has the session token in it, as one of the headers that are signed."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION)
    canonical = f"POST\n/v2/email/outbound-emails\n\nx-amz-security-token:{SESSION}\n\nhost by {SECRET}"
    words = f"The signature does not match. The Canonical String should have been '{canonical}'"
    # Words are cut off at 600 characters, here within the token's first ones.
    cut = f"{'-' * (600 - len('InvalidSignatureException: ') - 14)}{SESSION}"
    for message in (words, f"not {quote_plus(SESSION)}", cut):
        api.script = [(403, {"message": message}, {"x-amzn-ErrorType": "InvalidSignatureException"})]
        relay.configure(through(api))
        waiting = queue(relay.spool, TO, MESSAGE)
        relay.mailer("providers", "reset", "--all")
        done = relay.mailer_send("--once")
        assert done.returncode == 0
        seen = done.stderr + relay.mailer("log", "--json").stdout
        seen += relay.mailer("spool", "why", waiting).stdout + relay.mailer("providers", "--json").stdout
        seen += "".join(path.read_text(errors="replace") for path in relay.spool.rglob("*") if path.is_file())
        assert "HTTP 403 InvalidSignatureException: " in seen
        assert not any(secret[:8] in seen for secret in (SESSION, SECRET, quote_plus(SESSION)))
        relay.mailer("spool", "rm", waiting)


def test_moto_takes_the_same_bytes_with_a_signature_that_botocore_makes_as_well(
    relay: Relay, tmp_path: Path
) -> None:
    """It keeps text, and adds the addresses of To to the destinations: the message has none, and is UTF-8."""
    message = "From: <app@example.com>\r\nSubject: sch\u00f6n\r\n\r\n\u20ac.\r\n..\r\nno end".encode()
    with Moto(tmp_path, REGION, SENDER) as moto:
        provider = {
            "api": "ses",
            "region": REGION,
            "apiUrl": moto.url,
            "name": "aws",
            "username": moto.key_id,
        }
        for secret, sent in (("wrong", 0), (moto.secret, 1)):
            relay.configure(forward_to(forwardProviders=[provider | {"password": secret}]))
            queue(relay.spool, TO, message)
            relay.mailer("providers", "reset", "--all")
            assert relay.mailer_send("--once").returncode == 0
            assert len(moto.taken()) == sent
        assert '"reply":"HTTP 403 ' in relay.mailer("log", "--json").stdout
        [taken] = moto.taken()
    assert taken["raw_data"].encode() == message
    assert (taken["source"], tuple(taken["destinations"])) == (SENDER, TO)


def test_the_instances_role_signs_and_its_keys_are_renewed(
    relay: Relay, api: HttpApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Imds() as imds:
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.url)
        api.keys |= {"ASIA1": "secret1", "ASIA2": "secret2"}
        # The first keys have ended by the time that the request arrives.
        expired = {"message": "The security token included in the request is expired"}
        api.script = [(403, expired, {"x-amzn-ErrorType": "ExpiredTokenException"}), None]
        relay.configure(through(api))
        sent_by(relay, api, "ASIA2")
        assert api.requests == 2
        found = [json.loads(line) for line in relay.mailer("doctor", "--json").stdout.splitlines()]
        [login] = [row for row in found if row["about"].endswith(f":{api.port}") and row["what"] == "login"]
        assert login["grade"] == "ok"


class Imds:
    """An instance metadata service (IMDSv2) with the role `mailer`; each time it gives other keys."""

    def __enter__(self) -> Self:
        outer = self
        self.given = 0

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                ttl = int(self.headers["X-aws-ec2-metadata-token-ttl-seconds"])
                good = self.path == "/latest/api/token" and 0 < ttl <= 21600
                self.say(200 if good else 400, b"the-token")

            def do_GET(self) -> None:
                root = "/latest/meta-data/iam/security-credentials/"
                if self.headers["X-aws-ec2-metadata-token"] != "the-token":
                    self.say(401, b"")
                elif self.path == root:
                    self.say(200, b"mailer")
                elif self.path == f"{root}mailer":
                    self.say(200, outer.keys())
                else:
                    self.say(404, b"")

            def say(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def keys(self) -> bytes:
        self.given += 1
        number = self.given
        made = {"Code": "Success", "AccessKeyId": f"ASIA{number}", "SecretAccessKey": f"secret{number}"}
        return json.dumps(made | {"Token": "t0ken", "Expiration": "2099-01-01T00:00:00Z"}).encode()
