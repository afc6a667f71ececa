"""Many programs at once, and programs that are killed, share the tokens of an account."""

import json
import signal
import subprocess

from outbound.token_account import SECRET, Account, token
from testbed.modules import module_command
from testbed.waiting import until

from mailer.config.oauth import OAuth2
from mailer.oauth import source


def askers(account: Account, auth: OAuth2, *arguments: str) -> subprocess.Popen[str]:
    """Start a program that asks as `arguments` say, in processes of its own."""
    plain = {"spool": str(account.directory / "spool"), "config": str(account.directory / "config.json")}
    assert auth.token_url == account.server.url
    return subprocess.Popen(
        module_command("outbound.token_askers", json.dumps(plain), *arguments),
        stdout=subprocess.PIPE,
        text=True,
    )


def test_64_programs_make_one_request(account: Account) -> None:
    auth = account.auth(grant="clientCredentials", clientSecret=SECRET)
    with askers(account, auth, "64") as process:
        out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    lines = out.split()
    assert len(lines) == 64
    assert set(lines) == account.server.access
    assert account.server.asked() == 1


def test_a_program_that_is_killed_while_it_renews_loses_no_login(account: Account) -> None:
    """Whenever it dies, the refresh token that is kept is one that the server still takes."""
    first = account.server.new_refresh_token()
    keys = {"grant": "refreshToken", "refreshToken": first, "clientSecret": SECRET}
    auth = account.auth(**keys)
    for turn in range(5):
        so_far = account.server.asked()
        with askers(account, auth, "renew") as process:
            until(lambda so_far=so_far, turn=turn: account.server.asked() > so_far + turn, "another request")
            process.send_signal(signal.SIGKILL)
        account.ahead += source.YOUNG
        kept = account.kept.access
        assert token(account.source(**keys), refused=kept) in account.server.access
    assert account.server.asked() > 5
