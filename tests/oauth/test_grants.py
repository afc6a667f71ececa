"""Access tokens are requested as each grant requires, and refresh tokens are replaced as servers want it."""

import json

import pytest
from outbound.token_account import SECRET, USER, Account, certificate, token

from mailer.spool.state import token_store


def test_client_credentials_with_a_secret(account: Account) -> None:
    assert token(account.source()) in account.server.access
    [form] = account.server.forms
    assert form == {
        "grant_type": "client_credentials", "client_id": "app", "client_secret": SECRET, "scope": "mail",
    }  # fmt: skip


@pytest.mark.parametrize("algorithm", ["PS256", "RS256"])
def test_client_credentials_with_a_certificate(account: Account, algorithm: str) -> None:
    pem, account.server.key = certificate()
    assert token(account.source(grant="clientCredentials", certificate=pem, algorithm=algorithm))
    [form] = account.server.forms
    assert "client_secret" not in form
    assert account.server.header["alg"] == algorithm
    assert len(account.server.header["x5t#S256"]) == 43
    assert (account.server.claims["iss"], account.server.claims["sub"]) == ("app", "app")


def test_a_service_account_acts_for_the_mailbox(account: Account) -> None:
    pem, account.server.key = certificate()
    private = pem[pem.index("-----BEGIN", 20) :]
    key_file = {"client_email": "svc@project.example", "private_key": private, "private_key_id": "k1"}
    assert token(account.source(grant="serviceAccount", serviceAccount=json.dumps(key_file)))
    assert {
        "iss": "svc@project.example",
        "sub": USER,
        "scope": "mail",
    }.items() <= account.server.claims.items()
    assert account.server.header == {"alg": "RS256", "typ": "JWT", "kid": "k1"}


def test_a_refresh_token_that_is_replaced_is_kept_and_used_from_then_on(account: Account) -> None:
    first = account.server.new_refresh_token()
    keys = {"grant": "refreshToken", "refreshToken": first, "clientSecret": SECRET}
    for turn in range(3):
        account.ahead = 4000.0 * turn
        assert token(account.source(**keys)) in account.server.access
        assert account.kept.refresh == account.server.refresh[-1]
    assert len({form["refresh_token"] for form in account.server.forms}) == 3


@pytest.mark.parametrize(
    ("days", "replaced", "told"), [(0, True, False), (7, True, False), (7, False, True), (90, True, True)]
)
def test_the_end_of_a_refresh_token_is_kept_where_its_server_says_it(
    account: Account, days: float, *, replaced: bool, told: bool
) -> None:
    """One that lasts for days and is replaced at each use ends only where no mail is sent."""
    keys = {
        "grant": "refreshToken",
        "refreshToken": account.server.new_refresh_token(),
        "clientSecret": SECRET,
    }
    for turn in range(3):
        account.ahead = 4000.0 * turn
        answer = {"access_token": f"a-{turn}", "expires_in": 3600, "refresh_token_expires_in": days * 86_400}
        account.server.script = [(200, answer | ({"refresh_token": f"r-{turn}"} if replaced else {}))]
        token(account.source(**keys))
    [ending] = token_store.endings(account.spool).values()
    assert bool(ending.refresh) is told
    if told:
        assert abs(ending.refresh - account.clock() - days * 86_400) < 1000
        account.server.script = [(200, {"access_token": "a", "expires_in": 3600})]
        account.ahead += 4000.0
        token(account.source(**keys))
        [later] = token_store.endings(account.spool).values()
        assert later.refresh == ending.refresh, "what is not said again stays"


@pytest.mark.parametrize(("preset", "told"), [("microsoft365", True), ("google", False)])
def test_microsoft_ends_a_refresh_token_that_is_not_used_for_90_days(
    account: Account, preset: str, *, told: bool
) -> None:
    first = account.server.new_refresh_token()
    keys = {"grant": "refreshToken", "refreshToken": first, "clientSecret": SECRET, "preset": preset}
    for turn in range(2):
        account.ahead = 4000.0 * turn
        token(account.source(**keys))
    [ending] = token_store.endings(account.spool).values()
    assert (bool(ending.refresh), ending.put_off) == (told, True)
    if told:
        assert abs(ending.refresh - account.clock() - 90 * 86_400) < 1000


def test_another_refresh_token_in_the_configuration_counts_more_than_the_one_that_is_kept(
    account: Account,
) -> None:
    first = account.server.new_refresh_token()
    token(account.source(grant="refreshToken", refreshToken=first, clientSecret=SECRET))
    second = account.server.new_refresh_token()
    token(account.source(grant="refreshToken", refreshToken=second, clientSecret=SECRET))
    assert account.server.forms[-1]["refresh_token"] == second
