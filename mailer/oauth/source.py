"""Provide a provider's access tokens: stored in the spool for all runners, and renewed before they expire.

stored, and valid for long enough -----------------------------------> used
missing, refused, or expiring --> the account's lock --> stored by another program meanwhile? --> used
                                             | no
                                    the token server --> stored durably --> used
                                             | failure
                                    the stored one, while it is still valid; else `TokenTrouble`
"""

import asyncio
import errno
import hashlib
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from mailer.config.oauth import Grant, OAuth2
from mailer.mail.clock import Clock
from mailer.oauth.grants import Credentials, Granted, credentials_of, form_of, granted
from mailer.oauth.trouble import TokenTrouble, ours
from mailer.spool.directory import Spool
from mailer.spool.state import token_store
from mailer.spool.state.token_store import Tokens

MARGIN = 600.0
"""Seconds before its expiry from which a token is renewed: Microsoft may refuse it in its last 10 minutes."""
YOUNG = 60.0
"""Seconds for which a new token that is refused is not replaced, since another one would be refused too."""
PAUSE = 15.0
"""Seconds after a failed request to a token server during which no runner makes another."""
WAIT = 60.0
"""Seconds of that pause while the stored token is still valid."""
_UNUSED_LIFETIME = 90 * 86_400.0
"""Seconds after which Microsoft revokes an unused refresh token ("Refresh tokens in the Microsoft identity
platform"). Its answers do not say so."""
_PATIENCE = 60.0
"""Seconds to wait for another program that requests a token; its request may take 30."""
_LASTING_ERRORS = {errno.EACCES, errno.EPERM, errno.EIO}
"""Errors of reading a file that last until an operator intervenes."""
_LOCK_INTERVAL = 0.05
"""Seconds between two attempts to take a lock that another program holds."""


@dataclass(frozen=True, slots=True)
class _Owed:
    """A grant that could not be stored (full or broken disk). Its refresh token may be the only valid one."""

    tokens: Tokens
    before: Tokens
    """The content of the file when the grant was requested."""

    def outlives(self, now: Tokens) -> bool:
        """Tell whether this grant is newer than the content of the file; args: now: that content.

        It is newer while the file still has the grant with which this one was requested. Another program may
        have noted a failure there meanwhile: that is not a grant, and the failure may come from the used-up
        refresh token. The file has this grant itself if it was replaced, and only the directory's fsync
        failed. Any other grant in the file came later: from a server that accepts a replaced refresh token
        once more, or by a login. After a logout the file has no grant.
        """
        return now.grant in {self.before.grant, self.tokens.grant}


class TokenSource:
    """The source of one provider's access tokens."""

    def __init__(self, auth: OAuth2, username: str, account: str, spool: Spool, clock: Clock) -> None:
        """Prepare; nothing is read yet.

        Args:
            auth: the provider's OAuth configuration.
            username: the mailbox that logs in.
            account: the name of the account that the tokens belong to.
            spool: the spool that they are stored in.
            clock: returns the wall-clock time.
        """
        self._auth = auth
        self._username = username
        self._account = auth.record(account)
        self._spool = spool
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._credentials: Credentials | None = None
        self._owed: _Owed | None = None
        self._noted: Tokens | None = None
        """The last failure, if it could not be noted in the file."""

    async def token(self, refused: str = "") -> str:
        """Return an access token.

        Args:
            refused: a token that the provider has just refused; empty: none. The same token is returned if it
                is newer than `YOUNG` seconds, since another one would be refused too.

        Raises:
            TokenTrouble: there is no valid token, and none can be obtained.
        """
        async with self._one_at_a_time:
            credentials = await self.credentials()
            if self._owed:
                with suppress(TokenTrouble):
                    async with self._alone(0.0):
                        self._write_owed()
            kept = self._kept(credentials)
            if not self._due(kept, refused):
                return kept.access
            try:
                return (await self._renewed(credentials, kept, refused)).access
            except TokenTrouble:
                # Mail is sent with the old token while it is valid, even if the token server does not answer.
                if self._works(kept, refused):
                    return kept.access
                raise

    async def renew(self) -> Tokens:
        """Request a new token even if the stored one is valid, and return it; raises TokenTrouble."""
        credentials = await self.credentials()
        async with self._one_at_a_time, self._alone():
            return await self._ask(credentials, self._kept(credentials))

    async def keep(self, made: Granted) -> None:
        """Store the grant of a login durably, in place of everything before; raises TokenTrouble."""
        credentials = await self.credentials()
        async with self._alone():
            before = Tokens()
            try:
                before = token_store.read(self._spool, self._account)
            except OSError as error:
                # An unreadable file must not prevent a new login; it is renamed, so that nothing is lost.
                if error.errno in _LASTING_ERRORS:
                    with suppress(OSError):
                        token_store.set_aside(self._spool, self._account)
            self._write(self._made(credentials, made, Tokens(), used=True), before)

    def check_room(self) -> None:
        """Check that there is disk space to store a grant; raises TokenTrouble."""
        if self._spool.free_space().is_under(token_store.ROOM):
            raise ours("the disk is full, so that a new token could not be stored", local=True)

    async def kept(self) -> Tokens:
        """Return the stored tokens, if they are for the present configuration; raises TokenTrouble."""
        return self._kept(await self.credentials())

    async def forget(self) -> bool:
        """Remove the stored tokens, and tell whether there were any; raises TokenTrouble or OSError."""
        async with self._alone():
            return token_store.forget(self._spool, self._account)

    async def credentials(self) -> Credentials:
        """Return the configuration with its secrets, which are loaded once; raises TokenTrouble."""
        if self._credentials is None:
            # In a thread, since a secret may be the output of a command, which may be slow.
            self._credentials = await asyncio.to_thread(credentials_of, self._auth, self._username)
        return self._credentials

    def _kept(self, credentials: Credentials) -> Tokens:
        kept, digest = self._read(), _digest(credentials)
        if self._owed and self._owed.outlives(kept):
            kept = self._owed.tokens
        if kept.made_for != digest:
            kept = Tokens(account=self._account, made_for=digest)
        noted = self._noted
        return noted if noted and noted.grant == kept.grant and noted.failed > kept.failed else kept

    def _read(self) -> Tokens:
        try:
            return token_store.read(self._spool, self._account)
        except OSError as error:
            path = token_store.path_of(self._spool, self._account)
            todo = ""
            if error.errno in {errno.EACCES, errno.EPERM}:
                typed = shlex.join(["chown", f"--reference={path.parent}", str(path)])
                todo = f": give it to the user of the programs, as root: {typed}"
            why = f"{path} cannot be read: {error.strerror}{todo}"
            raise ours(why, temporary=True, local=True) from error

    def _works(self, kept: Tokens, refused: str) -> bool:
        return bool(kept.access) and kept.access != refused and self._lasts(kept)

    def _lasts(self, kept: Tokens) -> bool:
        """Tell whether the token has not expired; false if the clock was set back, since that is unknown."""
        return kept.obtained - YOUNG <= self._clock() < kept.ends

    def _due(self, kept: Tokens, refused: str) -> bool:
        """Tell whether the stored token is to be replaced."""
        if not kept.access or not self._lasts(kept):
            return True
        now = self._clock()
        if kept.access == refused:
            return now - kept.obtained >= YOUNG
        if 0 <= now - kept.failed < WAIT:
            return False
        # A token that is valid for minutes only is renewed after half of that time.
        return kept.ends - now < min(MARGIN, (kept.ends - kept.obtained) / 2)

    async def _renewed(self, credentials: Credentials, before: Tokens, refused: str) -> Tokens:
        # While one program requests a token, the others go on with a valid one.
        async with self._alone(0.0 if self._works(before, refused) else _PATIENCE):
            kept = self._kept(credentials)
            if not self._due(kept, refused):
                return kept
            if 0 <= self._clock() - kept.failed < PAUSE:
                raise TokenTrouble(kept.failure, temporary=not kept.for_people)
            try:
                return await self._ask(credentials, kept)
            except TokenTrouble as trouble:
                told = self._with_damage(kept, trouble)
                # What this program lacks, another one, or the next attempt, may have.
                if not trouble.local:
                    with suppress(TokenTrouble):
                        self._note(credentials, told)
                raise told from trouble.__cause__

    def _with_damage(self, kept: Tokens, trouble: TokenTrouble) -> TokenTrouble:
        """If there is no other refresh token, add that a damaged file may contain one."""
        needs_none = self._auth.grant in {Grant.CLIENT_CREDENTIALS, Grant.SERVICE_ACCOUNT}
        with suppress(OSError):
            if not (needs_none or kept.refresh) and (path := token_store.damaged(self._spool, self._account)):
                text = f"{trouble.text}; the file with the stored login is damaged: {path}"
                return TokenTrouble(text, temporary=trouble.temporary, local=trouble.local)
        return trouble

    def _note(self, credentials: Credentials, trouble: TokenTrouble) -> None:
        """Note a failure in the file for all programs; needs the lock.

        It is noted only in memory if the file must not change: while a grant could not be stored, or if the
        file has a refresh token for another configuration. So a mistake in the configuration, which may be
        undone, does not lose a login.
        """
        self._noted = noted = replace(
            self._kept(credentials),
            failed=self._clock(),
            failure=trouble.text,
            for_people=not trouble.temporary,
        )
        before = self._read()
        if self._owed or (before.refresh and before.made_for != noted.made_for):
            return
        with suppress(OSError):
            token_store.write(self._spool, self._account, noted)
            self._noted = None

    def _write_owed(self) -> None:
        """Store the grant that could not be stored before; needs the lock; raises TokenTrouble.

        The grant is dropped if another program has obtained tokens meanwhile, or a user has logged in or out.
        """
        if owed := self._owed:
            if owed.outlives(self._read()):
                self._write(owed.tokens, owed.before)
            self._owed = None

    async def _ask(self, credentials: Credentials, kept: Tokens) -> Tokens:
        """Request tokens from the server; needs the lock. The grant is stored durably before it is used."""
        from mailer.oauth.post import post  # noqa: PLC0415 - most runs find a valid token

        self._write_owed()
        before = self._read()
        with suppress(OSError):
            token_store.keep_damaged(self._spool, self._account)
        self.check_room()
        form = form_of(
            credentials, kept.refresh or credentials.secrets.get("refresh_token", ""), self._clock()
        )
        answer = await post(self._auth.token_url, form)
        made = granted(credentials, form, answer, self._clock())
        new = self._made(credentials, made, kept, used="refresh_token" in form)
        if "client_assertion" in form:
            new = replace(new, certificate_ends=_end_of(credentials.secrets["certificate"]))
        self._write(new, before)
        return new

    def _made(self, credentials: Credentials, made: Granted, before: Tokens, *, used: bool) -> Tokens:
        """Return what to store after a grant; args: used: the refresh token was used, or is from a login."""
        now = self._clock()
        refresh_ends = 0.0 if made.refresh else before.refresh_ends
        lasts = made.refresh_lasts
        if made.refresh and not lasts and self._auth.preset and self._auth.preset.microsoft:
            lasts = _UNUSED_LIFETIME
        if lasts:
            refresh_ends = now + lasts
        return Tokens(
            account=self._account,
            made_for=_digest(credentials),
            access=made.access,
            obtained=now,
            ends=now + made.lasts,
            refresh=made.refresh or before.refresh,
            refreshed=now if used else before.refreshed,
            refresh_ends=refresh_ends,
            replaced=bool(made.refresh and before.refresh) if used else before.replaced,
        )

    def _write(self, tokens: Tokens, before: Tokens) -> None:
        """Replace the file's content by a grant, durably; raises TokenTrouble, with the grant in `_owed`."""
        try:
            token_store.write(self._spool, self._account, tokens)
        except OSError as error:
            self._owed = _Owed(tokens, before)
            raise ours(f"it cannot be stored in the spool's state/: {error.strerror}", local=True) from error
        self._owed = self._noted = None

    @asynccontextmanager
    async def _alone(self, patience: float = _PATIENCE) -> AsyncIterator[None]:
        """Hold the account's lock; raises TokenTrouble if it is not free within `patience` seconds."""
        ends = asyncio.get_running_loop().time() + patience
        while True:
            try:
                with token_store.locked(self._spool, self._account) as mine:
                    if mine:
                        yield
                        return
            except OSError as error:
                raise ours(f"the spool's state/ cannot be used: {error.strerror}", local=True) from error
            if asyncio.get_running_loop().time() >= ends:
                raise ours("another program is requesting one and does not finish", temporary=True)
            await asyncio.sleep(_LOCK_INTERVAL)


def _end_of(certificate: str) -> float:
    from mailer.oauth.assertion import end_of  # noqa: PLC0415 - already imported, to sign the assertion

    return end_of(certificate)


def _digest(credentials: Credentials) -> str:
    """Return a digest of everything that determines which account and which rights a token is for."""
    auth = credentials.auth
    what = (
        auth.token_url, auth.client_id, auth.grant.value, auth.scope, credentials.username,
        credentials.secrets.get("refresh_token", ""), credentials.secrets.get("service_account", ""),
    )  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(what)).hexdigest()
