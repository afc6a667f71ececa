"""What a session logs in with: a password, or an access token; fetched before a word of the server is read.

An earlier session may have told the server what it quotes in its banner, so that what it is not to show must
be known by then.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from mailer.config.secrets import SecretError
from mailer.mail.login_causes import BY_TOKEN
from mailer.mail.outcome import Scope
from mailer.mail.reply import printable
from mailer.oauth.trouble import TokenTrouble
from mailer.send.phase import Phase
from mailer.send.smtp import sasl
from mailer.send.smtp.concealment import Concealment
from mailer.send.smtp.hop import Hop
from mailer.send.trouble import HopTrouble

_MOST_LOGINS = 2
"""Mechanisms that are tried in one session. Some servers offer one that they then refuse; more attempts would
count as guessing where the password is wrong."""

_NOT_IN_COMMON = "no AUTH mechanism in common"


class TokenRefused(HopTrouble):
    """The server refuses an access token for good; another one may be better."""


@dataclass(frozen=True, slots=True)
class Login:
    """One hop's."""

    hop: Hop
    conceal: Concealment | None = None
    """What the server's replies are not to show."""
    token: str = field(default="", repr=False)
    missing: str = ""
    """Why the password for the login is missing."""

    def mechanisms(self, offered: Sequence[str], at: str) -> list[sasl.Mechanism]:
        """Return the mechanisms to try, in this order.

        Args:
            offered: by the server, in upper case.
            at: the hop, with its address.

        Raises:
            HopTrouble: there is none, or no password.
        """
        hop = self.hop
        if hop.tokens:
            # A token that is refused by one is refused by the other.
            found, most = sasl.bearers(offered, hop.username, self.token, (hop.name, hop.port), hop.auth), 1
            needed = f"AUTH {hop.auth or 'XOAUTH2 or OAUTHBEARER'} is not offered"
        else:
            assert hop.password is not None
            found, most = sasl.usable(offered, hop.username, hop.password, hop.auth), _MOST_LOGINS
            needed = f"AUTH {hop.auth} (key auth) is not offered" if hop.auth else _NOT_IN_COMMON
        if not found:
            words = " ".join(offered) or "none"
            words = self.conceal.words(words) if self.conceal else words
            raise _refused(at, f"{needed} (offered: {words})")
        if self.missing:
            raise _refused(at, self.missing)
        return found[:most]

    def refusal(self, trouble: HopTrouble, mechanism: str) -> HopTrouble:
        """Return what a refused login means: of a token it is said that it was one."""
        if not self.hop.tokens:
            return trouble
        kind = HopTrouble if trouble.temporary else TokenRefused
        text = f"{trouble.text} ({mechanism}, {BY_TOKEN})"
        return kind(
            trouble.hop,
            trouble.phase,
            text,
            scope=trouble.scope,
            reply=trouble.reply,
            temporary=trouble.temporary,
        )


async def fetch(hop: Hop, refused: str = "") -> Login:
    """Fetch what to log in with.

    Args:
        hop: where to.
        refused: an access token that it has just refused.

    Raises:
        HopTrouble: there is no access token: nothing else is tried in its place.
    """
    if not hop.username:
        return Login(hop)
    if hop.tokens:
        try:
            token = await hop.tokens.token(refused)
        except TokenTrouble as trouble:
            scope = Scope.LOCAL if trouble.local else Scope.PROVIDER
            raise HopTrouble(
                str(hop), Phase.AUTH, trouble.text, scope=scope, temporary=trouble.temporary
            ) from trouble
        return Login(hop, Concealment.of_token(hop.username, token, refused), token)
    assert hop.password is not None
    try:
        # In a thread: a secret may be a command's output, and the command may take its time.
        return Login(hop, Concealment.of_password(hop.username, await asyncio.to_thread(hop.password.reveal)))
    except SecretError as error:
        return Login(hop, missing=printable(str(error)))


def _refused(at: str, text: str) -> HopTrouble:
    return HopTrouble(at, Phase.AUTH, text, scope=Scope.PROVIDER, temporary=False)
