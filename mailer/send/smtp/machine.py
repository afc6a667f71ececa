"""An SMTP client's side of a session as a state machine (RFC 5321 3, 4.1.4): bytes in, events and bytes out.

No sockets, no clock, no message: `client` is the shell that has those. A call is something we say; it is
legal in some states only, and an illegal call raises and changes nothing. A reply is something the server
says; it must answer what is awaited, in order, with a code that can answer it. Anything else - garbage, a
reply to nothing, 354 to MAIL - means that we no longer know which reply belongs to which command, and a
session in that state would sooner or later take one recipient's refusal for another's: it is over (`Broken`),
whichever side is to blame. One reply may come early: a refusal while the message is being sent is its answer.

Within a transaction commands are pipelined if the server offers it (RFC 2920): `MAIL RCPT... DATA` leave in
one piece and the replies are matched one by one. Otherwise each command waits for the reply to the one
before.
"""

from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Sequence
from enum import StrEnum

from msgspec.structs import replace

from mailer.mail.reply import Reply
from mailer.send.phase import Phase
from mailer.send.smtp.concealment import Concealment
from mailer.send.smtp.events import Answered, Broken, Event, GoAhead, Settled
from mailer.send.smtp.replies import BadReply, ReplyReader
from mailer.send.smtp.sasl import Mechanism
from mailer.send.smtp.verdicts import Verdicts


class State(StrEnum):
    """Where the session stands."""

    WAITING = "waiting"
    """A reply is due before anything else may be said."""
    GREETED = "greeted"
    """The server has spoken, or TLS was just set up: EHLO is due."""
    READY = "ready"
    HANDSHAKE = "handshake"
    """STARTTLS was granted: no plain byte may pass, either way, until `secured`."""
    BODY = "body"
    """The server waits for the message."""
    OVER = "over"


class Call(StrEnum):
    HELLO = "hello"
    STARTTLS = "starttls"
    SECURED = "secured"
    AUTH = "auth"
    BEGIN = "begin"
    FINISH = "finish"
    QUIT = "quit"


# What we may say where, and where it takes us.
CALLS: dict[Call, tuple[frozenset[State], State]] = {
    # READY too: RFC 5321 4.1.4 lets EHLO be said again, and after STARTTLS it must be (RFC 3207 4.2).
    Call.HELLO: (frozenset({State.GREETED, State.READY}), State.WAITING),
    Call.STARTTLS: (frozenset({State.READY}), State.WAITING),
    Call.SECURED: (frozenset({State.HANDSHAKE}), State.GREETED),
    Call.AUTH: (frozenset({State.READY}), State.WAITING),
    Call.BEGIN: (frozenset({State.READY}), State.WAITING),
    Call.FINISH: (frozenset({State.BODY}), State.WAITING),
    Call.QUIT: (frozenset({State.GREETED, State.READY}), State.WAITING),
}

# What may answer each command, by the reply's first digit, and where it takes us. A digit that is missing
# breaks the session. 421 is not in here: it ends the session whatever it answers (RFC 5321 3.8), or answers
# nothing at all.
REPLIES: dict[Phase, dict[int, State]] = {
    Phase.BANNER: {2: State.GREETED, 4: State.OVER, 5: State.OVER},
    Phase.EHLO: {2: State.READY, 4: State.GREETED, 5: State.GREETED},
    Phase.STARTTLS: {2: State.HANDSHAKE, 4: State.READY, 5: State.READY},
    Phase.AUTH: {2: State.READY, 3: State.WAITING, 4: State.READY, 5: State.READY},
    # A server that refuses RSET is not one to begin a transaction with.
    Phase.RSET: {2: State.WAITING},
    Phase.MAIL: {2: State.WAITING, 4: State.WAITING, 5: State.WAITING},
    Phase.RCPT: {2: State.WAITING, 4: State.WAITING, 5: State.WAITING},
    Phase.DATA: {3: State.BODY, 4: State.READY, 5: State.READY},
    Phase.DOT: {2: State.READY, 4: State.READY, 5: State.READY},
    Phase.QUIT: {2: State.OVER, 4: State.OVER, 5: State.OVER},
}

# Replies, by their first digit, that only this program reads: what a server offers, what it asks in AUTH.
_FOR_US = {Phase.EHLO: 2, Phase.AUTH: 3}

_TRANSACTION = frozenset({Phase.RSET, Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT})
_COMMANDS = frozenset({Phase.MAIL, Phase.RCPT, Phase.DATA})
_OUR_TURN = {State.HANDSHAKE: Phase.TLS, State.BODY: Phase.BODY}
_MAX_CHALLENGES = 2  # LOGIN has two, the others one
_MAX_COMMAND = 512  # RFC 5321 4.5.3.1.4, with CRLF; RFC 4954 4: a longer initial response waits for the 334


class IllegalCall(RuntimeError):
    """The call is not legal in this state; nothing was changed and nothing will be sent."""


class Dialogue:
    """One session, from the banner to its end.

    `receive` takes the server's bytes and gives events; `outgoing` gives the bytes to write, after every call
    and every `receive`.
    """

    def __init__(self, conceal: Concealment | None = None) -> None:
        """Args: conceal: what no event may show, because the server may quote it."""
        self.state = State.WAITING
        self.pipelining = False
        """Set by the reader of the EHLO reply."""
        self.answered = 0
        """Replies taken so far, so that the shell can give each its own deadline."""
        self._conceal = conceal
        self._reader = ReplyReader(conceal)
        self._awaited: deque[Phase] = deque((Phase.BANNER,))
        self._unsaid: deque[tuple[Phase, bytes]] = deque()
        self._out = b""
        self._mechanism: Mechanism | None = None
        self._challenges = 0
        self._verdicts = Verdicts(0)
        self._must_reset = False

    @property
    def phase(self) -> Phase:
        """What is awaited now, or our turn: the handshake, the body, the next transaction."""
        return self._awaited[0] if self._awaited else _OUR_TURN.get(self.state, Phase.MAIL)

    @property
    def over(self) -> bool:
        return self.state is State.OVER

    def outgoing(self) -> bytes:
        """What to write now; asked again, nothing."""
        out, self._out = self._out, b""
        return out

    def hello(self, verb: str, domain: str) -> None:
        """Say EHLO, or HELO to a server that does not know it (RFC 5321 3.2)."""
        self._say(Call.HELLO, Phase.EHLO, f"{verb} {domain}".encode())

    def starttls(self) -> None:
        self._say(Call.STARTTLS, Phase.STARTTLS, b"STARTTLS")

    def secured(self) -> None:
        """TLS is up: forget what was learnt in clear (RFC 3207 4.2)."""
        self._enter(Call.SECURED)
        self.pipelining = False

    def auth(self, mechanism: Mechanism) -> None:
        """Log in; challenges are answered in `receive`."""
        command = b"AUTH " + mechanism.name.encode()
        initial = mechanism.initial()
        if initial is not None:
            # RFC 4954 4: an empty initial response is written "=".
            complete = command + b" " + (b64encode(initial) or b"=")
            command = complete if len(complete) + 2 <= _MAX_COMMAND else command
        self._say(Call.AUTH, Phase.AUTH, command)
        self._mechanism = mechanism
        self._challenges = 0

    def begin(self, mail: bytes, rcpts: Sequence[bytes]) -> None:
        """Start a transaction.

        Ends in `GoAhead`, then `Settled` after `finish`; or in `Settled` at once when nobody was accepted. A
        transaction that did not run to its end is undone by a RSET in front of this one, in the same write.

        Args:
            mail: the MAIL command, without its line end.
            rcpts: the RCPT commands, at least one.

        Raises:
            IllegalCall: not now, or a command holds a line end or NUL.
        """
        commands = [(Phase.MAIL, mail), *((Phase.RCPT, rcpt) for rcpt in rcpts), (Phase.DATA, b"DATA")]
        if self._must_reset:
            commands.insert(0, (Phase.RSET, b"RSET"))
        whole = b"\r\n".join([command for _, command in commands])
        if b"\0" in whole or not whole.count(b"\r") == whole.count(b"\n") == len(commands) - 1:
            raise IllegalCall("a line end or NUL in a command")
        self._enter(Call.BEGIN)
        self._must_reset = True
        self._verdicts = Verdicts(len(rcpts))
        if self.pipelining:
            self._awaited.extend([phase for phase, _ in commands])
            self._out += whole + b"\r\n"
        else:
            self._unsaid.extend(commands)
            self._say_next()

    def finish(self) -> None:
        """The shell writes the final dot now: its reply is awaited."""
        self._enter(Call.FINISH)
        self._awaited.append(Phase.DOT)

    def quit(self) -> None:
        self._say(Call.QUIT, Phase.QUIT, b"QUIT")

    def receive(self, data: bytes) -> list[Event]:
        """Take the server's bytes, cut anywhere.

        Returns:
            What they complete, in order. `Broken` is always the last; what the server sends after it is
            ignored.
        """
        events: list[Event] = []
        self._reader.feed(data)
        try:
            while self.state is not State.OVER:
                phase = self.phase
                reply = self._reader.next(_FOR_US.get(phase, 0))
                if reply is None:
                    break
                if event := self._take(phase, reply):
                    events.append(event)
        except BadReply as bad:
            events.append(self._break(str(bad)))
        if self._reader.pending and self._out_of_turn and not self.over:
            events.append(self._break("the server spoke out of turn"))
        return events

    @property
    def _out_of_turn(self) -> bool:
        """Whatever the server says now, even half a reply, is one too many.

        Nothing is awaited, or what is awaited answers a command that has not left yet. After STARTTLS's 220
        it is what a man in the middle puts there (RFC 3207 4.2); elsewhere it is a reply out of step.
        """
        return not self._awaited or bool(self._out)

    def _enter(self, call: Call) -> None:
        legal, target = CALLS[call]
        if self.state not in legal:
            raise IllegalCall(f"{call} while {self.state}")
        self.state = target

    def _say(self, call: Call, phase: Phase, command: bytes) -> None:
        if b"\r" in command or b"\n" in command:
            raise IllegalCall("a line end in a command")
        self._enter(call)
        self._awaited.append(phase)
        self._out += command + b"\r\n"

    def _say_next(self) -> None:
        phase, command = self._unsaid.popleft()
        self._awaited.append(phase)
        self._out += command + b"\r\n"

    def _break(self, text: str, reply: Reply | None = None) -> Broken:
        # Words about a reply that was for us alone may still quote it.
        broken = Broken(self._conceal.words(text) if self._conceal else text, self.phase, reply)
        self.state = State.OVER
        return broken

    def _take(self, phase: Phase, reply: Reply) -> Event | None:
        """One complete reply, when the phase was this."""
        # To the final dot a 421 is a proper answer: refused, for now, and surely so.
        if reply.code == 421 and phase not in {Phase.DOT, Phase.QUIT}:
            if phase not in _COMMANDS or not self._awaited:
                return self._break(str(reply), reply)
            self._verdicts.take(phase, reply)
            refused = self._verdicts.final if phase is not Phase.RCPT else self._verdicts.refused
            return replace(self._break(str(reply), reply), refused=refused)
        if self.state is State.BODY and reply.code >= 400:
            return self._refuse_the_rest(reply)
        if self._out_of_turn:
            raise BadReply(f"a reply to nothing: {reply}")
        target = REPLIES[phase].get(reply.code // 100)
        if target is None:
            raise BadReply(f"{phase} answered with {reply}")
        self._awaited.popleft()
        self.answered += 1
        if phase in _TRANSACTION:
            return self._progress(phase, reply, target)
        self.state = target
        if target is not State.WAITING:
            return Answered(phase, reply)
        self._challenged(reply)
        return None

    def _challenged(self, reply: Reply) -> None:
        assert self._mechanism is not None
        self._challenges += 1
        if self._challenges > _MAX_CHALLENGES:
            raise BadReply("AUTH goes round in circles")
        try:
            challenge = b64decode(reply.lines[0], validate=True)
        except ValueError as wrong:
            raise BadReply(f"a challenge that is not base64: {reply}") from wrong
        self._awaited.append(Phase.AUTH)
        self._out += b64encode(self._mechanism.answer(challenge)) + b"\r\n"

    def _progress(self, phase: Phase, reply: Reply, target: State) -> Event | None:
        """A reply within a transaction."""
        self._verdicts.take(phase, reply)
        if phase is Phase.DATA and target is State.BODY:
            return self._granted()
        if phase in {Phase.DATA, Phase.DOT}:
            # RFC 5321 4.1.1.4: the final dot clears the server's buffers, whatever it answers. But a server
            # that refuses a message while its dot is under way may answer that too: not the next MAIL.
            self._must_reset = phase is Phase.DATA or not reply.positive
            return self._settle(State.OVER if reply.code == 421 else target)
        if self._unsaid:
            if self._verdicts.hopeless:  # without pipelining nothing more need be said
                self._unsaid.clear()
                return self._settle(State.READY)
            self._say_next()
        return None

    def _granted(self) -> Event | None:
        """354."""
        self.state = State.BODY
        if not self._verdicts.hopeless:
            return GoAhead(self._verdicts.refused)
        # RFC 2920 3.1: granted although nobody is to receive anything. A lone dot ends it, and whatever the
        # server says to that, nothing was sent to anyone.
        self.finish()
        self._out += b".\r\n"
        return None

    def _refuse_the_rest(self, reply: Reply) -> Settled:
        """The server has had enough of the message before its end: too large, or what it has seen so far.

        Nobody is sent it, since there was no dot. Whether the server takes what follows for the message or
        for commands cannot be known: the session is over.
        """
        self.answered += 1
        self._verdicts.take(Phase.DOT, reply)
        return self._settle(State.OVER)

    def _settle(self, state: State) -> Settled:
        self.state = state
        return Settled(self._verdicts.final)
