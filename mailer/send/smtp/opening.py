"""The opening of an SMTP session: the banner, EHLO, STARTTLS and AUTH, as configured for the hop."""

from collections.abc import Callable

from mailer.mail.outcome import Scope
from mailer.mail.reply import Reply
from mailer.send.phase import Phase
from mailer.send.smtp.events import Answered, Broken
from mailer.send.smtp.extensions import Extensions
from mailer.send.smtp.hop import StartTls
from mailer.send.smtp.login import Login
from mailer.send.smtp.wire import Wire
from mailer.send.trouble import HopTrouble


class OwnReceiver(HopTrouble):
    """The hop is our own receiver, so that mail sent there would loop."""

    def __init__(self, hop: str) -> None:
        text = "this is mailer's own receiver, so mail would loop; see forwardProviders"
        super().__init__(hop, Phase.EHLO, text, temporary=False)

    def again(self) -> "OwnReceiver":
        return OwnReceiver(self.hop)


class Opening:
    """What is said on a new connection until transactions may begin."""

    def __init__(self, wire: Wire, login: Login) -> None:
        """Prepare; args: wire: the connection; login: what to log in with, if the hop wants that."""
        self._wire = wire
        self._dialogue = wire.dialogue
        self._hop = wire.hop
        self._login = login
        self._extensions = Extensions()

    async def run(self) -> Extensions:
        """Open the session; return what the server offers.

        Raises:
            HopTrouble: some step failed; the connection is left to the caller.
        """
        if self._hop.implicit_tls:
            await self._wire.handshake()
        banner = await self._ask()
        if not banner.positive:
            raise self._refused(Phase.BANNER, banner)
        await self._hello()
        if not self._hop.implicit_tls and self._hop.starttls is not StartTls.NEVER:
            await self._encrypt()
        if self._hop.username:
            await self._log_in(self._login)
        return self._extensions

    async def _hello(self) -> None:
        """Send EHLO, or HELO if the server does not know EHLO (RFC 5321 4.1.1.1)."""
        reply = await self._ask(self._dialogue.hello, "EHLO", self._hop.ehlo_domain)
        if reply.positive:
            if self._hop.ourselves and self._hop.ourselves in reply.lines[0].split():
                raise OwnReceiver(self._wire.label)
            self._extensions = Extensions.of(reply)
            self._dialogue.pipelining = self._extensions.pipelining
            return
        if reply.permanent:
            self._extensions = Extensions()
            reply = await self._ask(self._dialogue.hello, "HELO", self._hop.ehlo_domain)
        if not reply.positive:
            raise self._refused(Phase.EHLO, reply)

    async def _encrypt(self) -> None:
        if not self._extensions.starttls:
            if self._hop.starttls is StartTls.REQUIRED:
                raise HopTrouble(self._wire.label, Phase.STARTTLS, "STARTTLS is not offered", temporary=False)
            return
        reply = await self._ask(self._dialogue.starttls)
        if not reply.positive:
            raise self._refused(Phase.STARTTLS, reply)
        self._check()  # a byte more than the 220, in clear, is an attack (RFC 3207 4.2)
        await self._wire.handshake()
        self._dialogue.secured()
        await self._hello()

    async def _log_in(self, login: Login) -> None:
        """Try mechanisms until one succeeds or is refused temporarily; on failure raise the first refusal."""
        if not self._wire.tls and not (self._hop.on_this_host and self._wire.loopback):
            text = "credentials are not sent in clear, and TLS is not offered or not wanted"
            if self._wire.loopback:
                text += "; a server on this host is exempt when host is 127.0.0.1, ::1 or localhost"
            raise HopTrouble(self._wire.label, Phase.AUTH, text, scope=Scope.PROVIDER, temporary=False)
        refusal: HopTrouble | None = None
        for mechanism in login.mechanisms(self._extensions.auth, self._wire.label):
            self._wire.is_secret = True
            try:
                reply = await self._ask(self._dialogue.auth, mechanism)
            except HopTrouble as lost:
                raise refusal or lost from None
            self._wire.is_secret = False
            if reply.positive:
                return
            refused = self._refused(Phase.AUTH, reply, scope=Scope.PROVIDER)
            refusal = refusal or login.refusal(refused, mechanism.name)
            if not reply.permanent:
                break
        assert refusal is not None
        raise refusal

    async def _ask(self, say: Callable[..., None] | None = None, *words: object) -> Reply:
        """Make a call of the dialogue and wait for its reply; without a call, wait for the banner."""
        if say is not None:
            self._check()
            say(*words)
            self._wire.flush()
        event = await self._wire.event()
        if isinstance(event, Broken):
            raise self._wire.lost(HopTrouble, event)
        assert isinstance(event, Answered)
        return event.reply

    def _check(self) -> None:
        """Raise HopTrouble if the session has ended, or if the server has sent an unsolicited reply."""
        if self._wire.broken:
            raise self._wire.lost(HopTrouble, self._wire.broken)

    def _refused(self, phase: Phase, reply: Reply, scope: Scope = Scope.HOST) -> HopTrouble:
        """Return the trouble of a server that refuses the session itself."""
        temporary = not reply.permanent
        return HopTrouble(self._wire.label, phase, str(reply), scope=scope, reply=reply, temporary=temporary)
