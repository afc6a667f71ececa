"""Where a provider's access tokens come from: kept in the spool for all runners, renewed before they end.

kept, and long enough --------------------------------------------> used
missing, refused, or soon over --> the account's lock --> kept by another meanwhile? --> used
                                             | no
                                    the token server --> kept durably --> used
                                             | trouble
                                    the one that is kept, while it still works; else `TokenTrouble`
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
from mailer.oauth.asking import Granted, Terms, form_of, granted, terms_of
from mailer.oauth.trouble import TokenTrouble, ours
from mailer.spool.layout import Spool
from mailer.spool.state import token_store
from mailer.spool.state.token_store import Tokens

MARGIN = 600.0
"""Seconds before its end from which a token is renewed: Microsoft may refuse it from ten minutes before."""
YOUNG = 60.0
"""Seconds for which a token that the provider refuses is not exchanged: a new one would be no better."""
PAUSE = 15.0
"""Seconds after a server was asked in vain for which no runner asks it again."""
WAIT = 60.0
"""The same while the token that is kept still works."""
_UNUSED = 90 * 86_400.0
"""Seconds after which Microsoft ends a refresh token that was not used ("Refresh tokens in the Microsoft
identity platform"). Its answers do not say so."""
_PATIENCE = 60.0
"""Seconds to wait for another program that asks; it has 30 for its request."""
_LASTING = {errno.EACCES, errno.EPERM, errno.EIO}
"""Why a file cannot be read for as long as nobody does anything about it."""
_LOOK = 0.05
"""Seconds between two looks at a lock that another program holds."""


@dataclass(frozen=True, slots=True)
class _Owed:
    """A grant that a full or broken disk did not take. Its refresh token may be the only way back."""

    tokens: Tokens
    before: Tokens
    """What the file had when it was asked for."""

    def outlives(self, now: Tokens) -> bool:
        """Tell whether it is newer than what the file has now.

        It is while the file has the grant that it was asked with; a failure that another program noted there
        is no grant, and may be what the used-up refresh token met. It is the same where the file was replaced
        and only the directory's sync failed. Any other grant in the file came later: from a server that takes
        a replaced token once more, or by a login. After a logout the file has none.
        """
        return now.grant in {self.before.grant, self.tokens.grant}


class TokenSource:
    """One provider's."""

    def __init__(self, auth: OAuth2, username: str, account: str, spool: Spool, clock: Clock) -> None:
        """Prepare; nothing is read yet.

        Args:
            auth: its terms.
            username: the mailbox that logs in.
            account: whose tokens they are.
            spool: where they are kept.
            clock: what time it is.
        """
        self._auth = auth
        self._username = username
        self._account = auth.record(account)
        self._spool = spool
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._terms: Terms | None = None
        self._owed: _Owed | None = None
        self._noted: Tokens | None = None
        """The last failure, where the file has no note of it."""

    async def token(self, refused: str = "") -> str:
        """Return an access token.

        Args:
            refused: one that the provider has just refused. The same is returned if there is no other, or if
                it is too new for another to be any better.

        Raises:
            TokenTrouble: there is none that still works.
        """
        async with self._one_at_a_time:
            terms = await self.terms()
            if self._owed:
                with suppress(TokenTrouble):
                    async with self._alone(0.0):
                        self._write_what_is_owed()
            kept = self._kept(terms)
            if not self._due(kept, refused):
                return kept.access
            try:
                return (await self._renewed(terms, kept, refused)).access
            except TokenTrouble:
                # The token from before still works: mail is sent although the token server does not answer.
                if self._works(kept, refused):
                    return kept.access
                raise

    async def renew(self) -> Tokens:
        """Ask for a new token, whatever is kept, and return what is kept then; raises TokenTrouble."""
        terms = await self.terms()
        async with self._one_at_a_time, self._alone():
            return await self._ask(terms, self._kept(terms))

    async def keep(self, made: Granted) -> None:
        """Keep what a login gave, durably, in place of all before; raises TokenTrouble."""
        terms = await self.terms()
        async with self._alone():
            before = Tokens()
            try:
                before = token_store.read(self._spool, self._account)
            except OSError as error:
                # What nobody can read is in the way of a new login, and is not lost to it either.
                if error.errno in _LASTING:
                    with suppress(OSError):
                        token_store.set_aside(self._spool, self._account)
            self._write(self._made(terms, made, Tokens(), used=True), before)

    def check_room(self) -> None:
        """Look whether what a server gives can be kept; raises TokenTrouble."""
        if self._spool.free_bytes() < token_store.ROOM:
            raise ours("the disk is full, and what the server gives could not be kept", local=True)

    async def kept(self) -> Tokens:
        """Return what is kept under the terms of today; raises TokenTrouble: they cannot be had."""
        return self._kept(await self.terms())

    async def forget(self) -> bool:
        """Remove what is kept, and tell whether there was anything; raises TokenTrouble or OSError."""
        async with self._alone():
            return token_store.forget(self._spool, self._account)

    async def terms(self) -> Terms:
        """Return the terms with their secrets; raises TokenTrouble."""
        if self._terms is None:
            # In a thread: a secret may be a command's output, and the command may take its time.
            self._terms = await asyncio.to_thread(terms_of, self._auth, self._username)
        return self._terms

    def _kept(self, terms: Terms) -> Tokens:
        kept, digest = self._read(), _digest(terms)
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
        """Tell whether it has not ended; where the clock was set back, nobody knows."""
        return kept.obtained - YOUNG <= self._clock() < kept.ends

    def _due(self, kept: Tokens, refused: str) -> bool:
        """Tell whether another token is wanted than the one that is kept."""
        if not kept.access or not self._lasts(kept):
            return True
        now = self._clock()
        if kept.access == refused:
            return now - kept.obtained >= YOUNG
        if 0 <= now - kept.failed < WAIT:
            return False
        # One that lasts for minutes only is renewed when half of that is over.
        return kept.ends - now < min(MARGIN, (kept.ends - kept.obtained) / 2)

    async def _renewed(self, terms: Terms, before: Tokens, refused: str) -> Tokens:
        # While one program asks, the others go on with a token that works.
        async with self._alone(0.0 if self._works(before, refused) else _PATIENCE):
            kept = self._kept(terms)
            if not self._due(kept, refused):
                return kept
            if 0 <= self._clock() - kept.failed < PAUSE:
                raise TokenTrouble(kept.failure, temporary=not kept.for_people)
            try:
                return await self._ask(terms, kept)
            except TokenTrouble as trouble:
                told = self._with_damage(kept, trouble)
                with suppress(TokenTrouble):
                    self._note(terms, told)
                raise told from trouble.__cause__

    def _with_damage(self, kept: Tokens, trouble: TokenTrouble) -> TokenTrouble:
        """Add that a refresh token may be in a damaged file, where there is none but that."""
        needs_none = self._auth.grant in {Grant.CLIENT_CREDENTIALS, Grant.SERVICE_ACCOUNT}
        with suppress(OSError):
            if not (needs_none or kept.refresh) and (path := token_store.damaged(self._spool, self._account)):
                text = f"{trouble.text}; what was kept of the login is damaged: {path}"
                return TokenTrouble(text, temporary=trouble.temporary, local=trouble.local)
        return trouble

    def _note(self, terms: Terms, trouble: TokenTrouble) -> None:
        """Note a failure for all programs, with the lock held; in memory, where the file must not change.

        That is so while a grant could not be written, and where the refresh token of other terms is kept: a
        login is not lost to a mistake in the configuration that is undone.
        """
        self._noted = noted = replace(
            self._kept(terms), failed=self._clock(), failure=trouble.text, for_people=not trouble.temporary
        )
        before = self._read()
        if self._owed or (before.refresh and before.made_for != noted.made_for):
            return
        with suppress(OSError):
            token_store.write(self._spool, self._account, noted)
            self._noted = None

    def _write_what_is_owed(self) -> None:
        """Write, with the lock held, what the disk did not take; raises TokenTrouble: it still does not.

        It is dropped where another program has got tokens meanwhile, or somebody has logged in or out.
        """
        if owed := self._owed:
            if owed.outlives(self._read()):
                self._write(owed.tokens, owed.before)
            self._owed = None

    async def _ask(self, terms: Terms, kept: Tokens) -> Tokens:
        """Ask the server, with the lock held; what it gives is durable before anybody uses it."""
        from mailer.oauth.post import post  # noqa: PLC0415 - most runs find a token that lasts

        self._write_what_is_owed()
        before = self._read()
        with suppress(OSError):
            token_store.keep_damaged(self._spool, self._account)
        self.check_room()
        form = form_of(terms, kept.refresh or terms.secrets.get("refresh_token", ""), self._clock())
        answer = await post(self._auth.token_url, form)
        made = granted(terms, form, answer, self._clock())
        new = self._made(terms, made, kept, used="refresh_token" in form)
        if "client_assertion" in form:
            new = replace(new, certificate_ends=_end_of(terms.secrets["certificate"]))
        self._write(new, before)
        return new

    def _made(self, terms: Terms, made: Granted, before: Tokens, *, used: bool) -> Tokens:
        """Return what is kept after a grant; args: used: the refresh token was, or has just come."""
        now = self._clock()
        refresh_ends = 0.0 if made.refresh else before.refresh_ends
        lasts = made.refresh_lasts
        if made.refresh and not lasts and self._auth.preset and self._auth.preset.microsoft:
            lasts = _UNUSED
        if lasts:
            refresh_ends = now + lasts
        return Tokens(
            account=self._account,
            made_for=_digest(terms),
            access=made.access,
            obtained=now,
            ends=now + made.lasts,
            refresh=made.refresh or before.refresh,
            refreshed=now if used else before.refreshed,
            refresh_ends=refresh_ends,
            replaced=bool(made.refresh and before.refresh) if used else before.replaced,
        )

    def _write(self, tokens: Tokens, before: Tokens) -> None:
        """Keep a grant durably, in place of what the file has; raises TokenTrouble, and then it is owed."""
        try:
            token_store.write(self._spool, self._account, tokens)
        except OSError as error:
            self._owed = _Owed(tokens, before)
            raise ours(f"it cannot be kept in the spool's state/: {error.strerror}", local=True) from error
        self._owed = self._noted = None

    @asynccontextmanager
    async def _alone(self, patience: float = _PATIENCE) -> AsyncIterator[None]:
        """Hold the account's lock; raises TokenTrouble where another program keeps it for longer."""
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
                raise ours("another program asks for one and does not come to an end", temporary=True)
            await asyncio.sleep(_LOOK)


def _end_of(certificate: str) -> float:
    from mailer.oauth.assertion import end_of  # noqa: PLC0415 - it has just signed

    return end_of(certificate)


def _digest(terms: Terms) -> str:
    """Return a digest of all that decides which account and which rights a token is for."""
    auth = terms.auth
    what = (
        auth.token_url, auth.client_id, auth.grant.value, auth.scope, terms.username,
        terms.secrets.get("refresh_token", ""), terms.secrets.get("service_account", ""),
    )  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(what)).hexdigest()
