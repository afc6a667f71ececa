"""Fetch the credentials of a session, a password or an access token, before anything is read from the server.

The server may know the credentials from an earlier session and quote them in its banner, so they must be
known before the banner is read, in order to conceal them.
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

_MAX_LOGINS = 2
"""The most mechanisms to try in one session. Some servers offer one that they then refuse; with a wrong
password, more attempts would look like guessing."""

_NOT_IN_COMMON = "no AUTH mechanism in common"


class TokenRefused(HopTrouble):
    """The server permanently refuses an access token; a new token may be accepted."""


@dataclass(frozen=True, slots=True)
class Login:
    """The credentials for one hop."""

    hop: Hop
    conceal: Concealment | None = None
    """Hides the credentials in the server's replies; None: there are none."""
    token: str = field(default="", repr=False)
    missing: str = ""
    """Why the password could not be read; empty: it could."""

    def mechanisms(self, offered: Sequence[str], at: str) -> list[sasl.Mechanism]:
        """Return the mechanisms to try, in this order.

        Args:
            offered: the server's mechanisms, in upper case.
            at: the hop with its address, for messages.

        Raises:
            HopTrouble: there is no usable mechanism, or no password.
        """
        hop = self.hop
        if hop.tokens:
            # A token that one mechanism refuses is refused by the other too, so only one is tried.
            found, most = sasl.bearers(offered, hop.username, self.token, (hop.name, hop.port), hop.auth), 1
            needed = f"AUTH {hop.auth or 'XOAUTH2 or OAUTHBEARER'} is not offered"
        else:
            assert hop.password is not None
            found, most = sasl.usable(offered, hop.username, hop.password, hop.auth), _MAX_LOGINS
            needed = f"AUTH {hop.auth} (key auth) is not offered" if hop.auth else _NOT_IN_COMMON
        if not found:
            words = " ".join(offered) or "none"
            words = self.conceal.words(words) if self.conceal else words
            raise _refused(at, f"{needed} (offered: {words})")
        if self.missing:
            raise _refused(at, self.missing)
        return found[:most]

    def refusal(self, trouble: HopTrouble, mechanism: str) -> HopTrouble:
        """Return the trouble of a refused login; for a token, its text says that a token was used."""
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
    """Fetch the credentials for a hop.

    Args:
        hop: the hop to log in to.
        refused: an access token that the hop has just refused; empty: none.

    Raises:
        HopTrouble: no access token could be obtained; nothing else is tried in its place.
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
        # In a thread, since a secret may be the output of a command, which may be slow.
        return Login(hop, Concealment.of_password(hop.username, await asyncio.to_thread(hop.password.reveal)))
    except SecretError as error:
        return Login(hop, missing=printable(str(error)))


def _refused(at: str, text: str) -> HopTrouble:
    return HopTrouble(at, Phase.AUTH, text, scope=Scope.PROVIDER, temporary=False)
