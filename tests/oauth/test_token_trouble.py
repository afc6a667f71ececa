"""Why there is no token: the cause that is named for each answer, and no secret in it."""

import asyncio
import errno
import gc
import json
import os
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus

import pytest
from outbound.token_account import SECRET, Account, certificate, token, trouble
from testbed.ports import free_port
from testbed.token_server import HANG, REDIRECT

from mailer.mail.login_causes import CAUSES, cause_of
from mailer.oauth import source
from mailer.oauth.trouble import TokenTrouble
from mailer.spool.state.token_store import Tokens


def refusal(error: str, description: str) -> tuple[int, dict[str, str]]:
    return 400, {"error": error, "error_description": description}


@pytest.mark.parametrize(
    ("answer", "cause", "words"),
    [
        (refusal("invalid_grant", "AADSTS700082: The refresh token"), "refreshTokenUnused", "AADSTS700082"),
        (refusal("invalid_grant", "AADSTS70043: expired due to sign-in"), "conditionalAccess", "AADSTS70043"),
        (refusal("invalid_client", "AADSTS7000215: Invalid secret"), "clientSecretWrong", "AADSTS7000215"),
        (refusal("invalid_client", "AADSTS7000222: keys expired"), "clientSecretExpired", "AADSTS7000222"),
        ((400, {"error": "invalid_grant"}), "invalidGrant", "invalid_grant"),
        ((401, {"error": "invalid_client"}), "invalidClient", "invalid_client"),
        ((400, {"error": "invalid_scope"}), "invalidScope", "invalid_scope"),
        ((400, {"error": "unauthorized_client"}), "consentMissing", "unauthorized_client"),
        ((503, {}), "tokenServerDown", "503"),
        (REDIRECT, "noToken", "redirects to elsewhere.example"),
        (b"<html>", "noToken", "without a token"),
        (b"[1]", "noToken", "without a token"),
        (b"{" * 100_000, "noToken", "without a token"),
        (b'{"access_token": "' + b"x" * 300_000, "noToken", "larger than"),
        ((200, {"access_token": "a\r\nb"}), "noToken", "its token is too long for SMTP"),
        ((200, {"access_token": "x" * 20_000}), "noToken", "its token is too long for SMTP"),
        ((200, {"access_token": "x", "token_type": "mac"}), "noToken", "not a bearer token"),
        ((200, {"access_token": 5}), "noToken", "without a token"),
        (refusal("invalid_client", f"not {SECRET}\ntrace"), "invalidClient", "not ***"),
        (refusal("invalid_client", f"not {SECRET[:16]}..., but"), "invalidClient", "not *** but"),
    ],
)  # fmt: skip
def test_what_a_server_answers_names_its_cause(account: Account, answer: Any, cause: str, words: str) -> None:
    account.server.script = [answer]
    text = trouble(account.source())
    found = cause_of(text)
    assert found is not None
    assert found.name == cause
    assert words in text
    assert SECRET not in text + account.kept.failure
    assert "trace" not in text
    assert text.isprintable()


@pytest.mark.parametrize("encoded", [str, quote_plus, lambda text: quote_plus(quote_plus(text)), json.dumps])
def test_a_server_that_quotes_the_request_reveals_no_secret(
    account: Account, encoded: Callable[[str], str]
) -> None:
    """Google's refresh tokens begin with `1//`, and secrets in base64 have `+`, `/` and `=`."""
    secret, refresh = "S3cr/et+va lue=99", "1//0gAbCdEf-GhIjKl/MnOpQrStUvWxYz_0123"
    form = f"client_id=app&client_secret={encoded(secret)}&refresh_token={encoded(refresh)}"
    for error in ({"error": form}, {"error": "invalid_client", "error_description": f"not this: {form}"}):
        account.server.script = [(400, error)]
        account.ahead += source.PAUSE
        text = trouble(account.source(grant="refreshToken", refreshToken=refresh, clientSecret=secret))
        assert "client_id=app&client_secret=" in text
        assert "***" in text
        for part in ("S3cr", "lue", "0gAb", "0123"):
            assert part not in text
            assert part not in account.kept.failure


def test_a_clock_that_is_wrong_is_named(account: Account) -> None:
    pem, account.server.key = certificate()
    account.server.skew = 7200
    keys = {"grant": "clientCredentials", "certificate": pem}
    text = trouble(account.source(**keys))
    assert "clock is " in text
    assert "behind theirs" in text
    found = cause_of(text)
    assert found is not None
    assert found.name == "clockSkew"
    clearer = cause_of(f"no access token from x: AADSTS700027: no certificate{text[text.index(';') :]}")
    assert clearer is not None
    assert clearer.name == "certificateUnknown"


def test_a_server_that_is_not_reached_not_found_or_not_trusted_is_named(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name(url: str) -> str:
        found = cause_of(
            trouble(account.source(grant="clientCredentials", clientSecret=SECRET, tokenUrl=url))
        )
        assert found is not None
        return found.name

    assert name(f"https://localhost:{free_port()}/token") == "tokenServerDown"
    assert name("https://nowhere.invalid/token") == "dns"
    monkeypatch.delenv("SSL_CERT_FILE")
    assert name(account.server.url) == "untrustedCertificate"
    assert account.server.forms == []


def test_what_this_program_lacks_is_no_failure_of_the_server(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program, or this one a moment later, has a descriptor for the request."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def ask() -> None:
        with monkeypatch.context() as without_descriptors:
            without_descriptors.setattr(socket, "socket", full)
            await account.source().token()

    with pytest.raises(TokenTrouble, match="Too many open files") as caught:
        asyncio.run(ask())
    assert caught.value.local
    assert account.kept == Tokens()
    assert token(account.source()) in account.server.access


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_silent_server_is_given_up_after_the_time_limit(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mailer.oauth import post  # noqa: PLC0415 - what a run imports late

    monkeypatch.setattr(post, "TIMEOUT", 0.2)
    account.server.script = [HANG]
    assert "not answered in time" in trouble(account.source())
    gc.collect()  # TLS would wait for that server's own end of it, and the loop has ended before


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"grant": "clientCredentials", "clientSecret": {"env": "NOT_SET"}},
            "auth.clientSecret: environment",
        ),
        ({"grant": "clientCredentials", "certificate": "none"}, "auth.certificate: it has no certificate"),
        (
            {"grant": "serviceAccount", "serviceAccount": "{}"},
            "auth.serviceAccount: it is not a service account",
        ),
        ({"grant": "deviceCode", "deviceUrl": "https://x.example/"}, "no login is stored"),
    ],
)
def test_missing_settings_are_named_without_a_request(
    account: Account, keys: dict[str, Any], words: str
) -> None:
    assert words in trouble(account.source(**keys))
    assert account.server.forms == []


def test_each_cause_says_what_to_do_in_words_that_can_be_typed() -> None:
    for cause in CAUSES:
        text = cause.advice("primary")
        assert text.endswith("."), cause.name
        assert "{" not in text


def test_nothing_prints_a_secret(account: Account) -> None:
    auth = account.auth(grant="refreshToken", refreshToken="r-e-f-r-e-s-h", clientSecret=SECRET)
    asker = account.source()
    token(asker)
    shown = repr(auth) + str(auth) + repr(asker._credentials) + repr(account.kept)
    assert SECRET not in shown
    assert "r-e-f-r-e-s-h" not in shown
    assert account.kept.access not in shown
