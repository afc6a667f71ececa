"""An SMTP client's side of a session as a state machine (RFC 5321 3, 4.1.4): bytes in, events and bytes out.

The machine has no sockets, no clock and no message; its shell, `client`, has those. A call makes the client
say something. Each call is legal in some states only; an illegal call raises and changes nothing. A reply is
what the server says. It must answer the command whose reply is due, with a code that is valid for it. After
anything else (garbage, a reply without a command, 354 to MAIL) it is no longer known which reply belongs to
which command, and one recipient's refusal would sooner or later be taken for another's. So the session is
over (`Broken`), whichever side is to blame. One reply may come early: a refusal while the message is sent
answers the message.

Within a transaction, commands are pipelined if the server offers that (RFC 2920): `MAIL RCPT... DATA` are
sent in one piece and the replies are matched one by one. Otherwise each command waits for the reply to the
one before. With pipelining, the next transaction may also be begun behind the final dot, before its reply.
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
    """The state of a session."""

    WAITING = "waiting"
    """A reply is due before anything else may be sent."""
    GREETED = "greeted"
    """The banner was received, or TLS has just started: EHLO comes next."""
    READY = "ready"
    HANDSHAKE = "handshake"
    """STARTTLS was accepted: nothing may be sent or received in clear until `secured`."""
    BODY = "body"
    """The server waits for the message."""
    ENDED = "ended"
    """The final dot is on its way: its reply is due, and with pipelining the next transaction may begin."""
    OVER = "over"


class Call(StrEnum):
    HELLO = "hello"
    STARTTLS = "starttls"
    SECURED = "secured"
    AUTH = "auth"
    BEGIN = "begin"
    FINISH = "finish"
    QUIT = "quit"


# Each call: the states in which it is legal, and the state it leads to.
CALLS: dict[Call, tuple[frozenset[State], State]] = {
    # READY too: RFC 5321 4.1.4 allows EHLO again, and after STARTTLS it is required (RFC 3207 4.2).
    Call.HELLO: (frozenset({State.GREETED, State.READY}), State.WAITING),
    Call.STARTTLS: (frozenset({State.READY}), State.WAITING),
    Call.SECURED: (frozenset({State.HANDSHAKE}), State.GREETED),
    Call.AUTH: (frozenset({State.READY}), State.WAITING),
    Call.BEGIN: (frozenset({State.READY, State.ENDED}), State.WAITING),
    Call.FINISH: (frozenset({State.BODY}), State.ENDED),
    Call.QUIT: (frozenset({State.GREETED, State.READY}), State.WAITING),
}

# Each command: the valid first digits of its reply, and the states they lead to. Any other digit breaks the
# session. 421 is not included: it ends the session whatever it answers (RFC 5321 3.8), even if it answers no
# command.
REPLIES: dict[Phase, dict[int, State]] = {
    Phase.BANNER: {2: State.GREETED, 4: State.OVER, 5: State.OVER},
    Phase.EHLO: {2: State.READY, 4: State.GREETED, 5: State.GREETED},
    Phase.STARTTLS: {2: State.HANDSHAKE, 4: State.READY, 5: State.READY},
    Phase.AUTH: {2: State.READY, 3: State.WAITING, 4: State.READY, 5: State.READY},
    # With a server that refuses RSET, no transaction can be begun safely.
    Phase.RSET: {2: State.WAITING},
    Phase.MAIL: {2: State.WAITING, 4: State.WAITING, 5: State.WAITING},
    Phase.RCPT: {2: State.WAITING, 4: State.WAITING, 5: State.WAITING},
    Phase.DATA: {3: State.BODY, 4: State.READY, 5: State.READY},
    Phase.DOT: {2: State.READY, 4: State.READY, 5: State.READY},
    Phase.QUIT: {2: State.OVER, 4: State.OVER, 5: State.OVER},
}

# First digits of replies that are only parsed and never shown: what a server offers, and AUTH challenges.
# Nothing is concealed in them.
_VERBATIM = {Phase.EHLO: 2, Phase.AUTH: 3}

# As globals, since Python 3.11 takes 15 times as long to look a member up in its enumeration.
_OVER, _BODY, _ENDED = State.OVER, State.BODY, State.ENDED
_BEGIN, _FINISH = Call.BEGIN, Call.FINISH
_MAIL, _RCPT, _DATA, _DOT = Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT

_TRANSACTION = frozenset({Phase.RSET, Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT})
_ENVELOPE = frozenset({Phase.MAIL, Phase.RCPT})
_COMMANDS = _ENVELOPE | {Phase.DATA}
_ENDS = frozenset({Phase.DATA, Phase.DOT})
_OUR_TURN = {State.HANDSHAKE: Phase.TLS, State.BODY: Phase.BODY}
_MAX_CHALLENGES = 2  # LOGIN has two, the others one
_MAX_COMMAND = 512  # RFC 5321 4.5.3.1.4, with CRLF. RFC 4954 4: send a longer initial response after the 334


class IllegalCall(RuntimeError):
    """The call is not legal in this state; nothing was changed and nothing is sent."""


class Dialogue:
    """One session, from the banner to its end.

    `receive` takes the server's bytes and returns events. `outgoing` returns the bytes to write; the shell
    asks for them after every call and every `receive`.
    """

    def __init__(self, conceal: Concealment | None = None) -> None:
        """Prepare; args: conceal: hides the login in events, since the server may quote it."""
        self.state = State.WAITING
        self.pipelining = False
        """Set by the caller after it has parsed the EHLO reply."""
        self.answered = 0
        """Number of replies taken so far, so that the shell can give each its own deadline."""
        self.conceal = conceal
        """Hides the login in events, with what AUTH has derived from it."""
        self._reader = ReplyReader(conceal)
        self._awaited: deque[Phase] = deque((Phase.BANNER,))
        self._unsaid: deque[tuple[Phase, bytes]] = deque()
        self._out = b""
        self._mechanism: Mechanism | None = None
        self._challenges = 0
        self._verdicts = Verdicts(0)
        self._behind: Verdicts | None = None
        """Of the transaction that was begun behind the dot whose reply is due."""
        self._must_reset = False
        self._lacks_reset = False
        """Whether the transaction was begun behind a dot that was refused, without a RSET between the two."""

    @property
    def phase(self) -> Phase:
        """The phase whose reply is due, or else what the client does next: TLS, body or a new transaction."""
        return self._awaited[0] if self._awaited else _OUR_TURN.get(self.state, _MAIL)

    @property
    def over(self) -> bool:
        return self.state is _OVER

    def outgoing(self) -> bytes:
        """Return the bytes to write now, once."""
        out, self._out = self._out, b""
        return out

    def hello(self, verb: str, domain: str) -> None:
        """Send EHLO, or HELO to a server that does not know EHLO (RFC 5321 3.2)."""
        self._say(Call.HELLO, Phase.EHLO, f"{verb} {domain}".encode())

    def starttls(self) -> None:
        self._say(Call.STARTTLS, Phase.STARTTLS, b"STARTTLS")

    def secured(self) -> None:
        """Note that TLS has started, and forget what was learnt in clear (RFC 3207 4.2)."""
        self._enter(Call.SECURED)
        self.pipelining = False

    def auth(self, mechanism: Mechanism) -> None:
        """Send AUTH; `receive` answers the challenges."""
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

        It yields `GoAhead`, and then `Settled` after `finish`; or only `Settled`, if no recipient was
        accepted. If the transaction before was not completed, a RSET precedes this one in the same write.
        Between `finish` and its `Settled` this is legal with pipelining only; the events of this transaction
        then follow that `Settled`. If the dot is refused, only acceptance is believed: any other reply may be
        out of step, and is `Broken` in the phase of the missing RSET.

        Args:
            mail: the MAIL command, without its line end.
            rcpts: the RCPT commands, at least one.

        Raises:
            IllegalCall: not legal in this state, or a command contains a line end or NUL.
        """
        commands = [mail, *rcpts, b"DATA"]
        phases = [_MAIL, *[_RCPT] * len(rcpts), _DATA]
        is_behind = self.state is _ENDED
        if is_behind and not self.pipelining:
            raise IllegalCall("a transaction behind the dot, without pipelining")
        if self._must_reset and not is_behind:
            commands.insert(0, b"RSET")
            phases.insert(0, Phase.RSET)
        whole = b"\r\n".join(commands)
        if 0 in whole or not whole.count(b"\r") == whole.count(b"\n") == len(commands) - 1:
            raise IllegalCall("a line end or NUL in a command")
        self._enter(_BEGIN)
        if is_behind:
            self._behind = Verdicts(len(rcpts))
        else:
            self._verdicts = Verdicts(len(rcpts))
            self._must_reset, self._lacks_reset = True, False
        if self.pipelining:
            self._awaited.extend(phases)
            self._out += whole + b"\r\n"
        else:
            self._unsaid.extend(zip(phases, commands, strict=True))
            self._say_next()

    def finish(self) -> None:
        """Expect the reply to the final dot, which the shell writes now."""
        self._enter(_FINISH)
        self._awaited.append(_DOT)

    def quit(self) -> None:
        self._say(Call.QUIT, Phase.QUIT, b"QUIT")

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the server, cut anywhere.

        Returns:
            The events that they complete, in order. `Broken` is always the last; everything that the server
            sends after it is ignored.
        """
        events: list[Event] = []
        awaited, reader = self._awaited, self._reader
        reader.feed(data)
        try:
            while reader.unread and self.state is not _OVER:
                phase = awaited[0] if awaited else self.phase
                reply = reader.next(_VERBATIM.get(phase, 0))
                if reply is None:
                    break
                if phase in _ENVELOPE and reply.code < 300 and awaited and not (self._unsaid or self._out):
                    # The fast path: nearly all replies to MAIL and RCPT accept and need no more attention.
                    awaited.popleft()
                    self.answered += 1
                    self._verdicts.accept(phase)
                elif event := self._take(phase, reply):
                    events.append(event)
        except BadReply as bad:
            events.append(self._break(str(bad)))
        if (reader.unread or reader.lines) and self._is_out_of_turn() and self.state is not _OVER:
            events.append(self._break("the server spoke out of turn"))
        return events

    def _is_out_of_turn(self) -> bool:
        """Tell whether anything that the server sends now, even half a reply, is an error.

        It is if no reply is due, or if its command has not been sent yet. After the 220 to STARTTLS, such
        data was injected by a man in the middle (RFC 3207 4.2); elsewhere it is a reply out of step.
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
        phase = Phase.RSET if self._lacks_reset and self.phase in _COMMANDS else self.phase
        # The text may quote a reply from which nothing was concealed (`_VERBATIM`).
        broken = Broken(self.conceal.words(text) if self.conceal else text, phase, reply)
        self.state = _OVER
        return broken

    def _take(self, phase: Phase, reply: Reply) -> Event | None:
        """Handle one complete reply that came in this phase; return its event, if it has one."""
        # A 421 to the final dot is an ordinary reply: the message was definitely refused, temporarily.
        if reply.code == 421 and phase not in {_DOT, Phase.QUIT}:
            if phase not in _COMMANDS or not self._awaited or self._lacks_reset:
                return self._break(str(reply), reply)
            self._verdicts.add(phase, reply)
            refused = self._verdicts.final if phase is not _RCPT else self._verdicts.refused
            return replace(self._break(str(reply), reply), refused=refused)
        if self.state is _BODY and reply.code >= 400:
            return self._refuse_the_rest(reply)
        if self._is_out_of_turn():
            raise BadReply(f"an unexpected reply: {reply}")
        target = REPLIES[phase].get(reply.code // 100)
        if target is None or (self._lacks_reset and phase in _COMMANDS and reply.code >= 400):
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
            raise BadReply("too many AUTH challenges")
        try:
            challenge = b64decode(reply.lines[0], validate=True)
        except ValueError as wrong:
            raise BadReply(f"a challenge that is not base64: {reply}") from wrong
        self._awaited.append(Phase.AUTH)
        answer = self._mechanism.answer(challenge)
        if self.conceal:
            self.conceal = self._reader.conceal = self.conceal.with_answer(answer)
        self._out += b64encode(answer) + b"\r\n"

    def _progress(self, phase: Phase, reply: Reply, target: State) -> Event | None:
        """Handle a reply within a transaction."""
        self._verdicts.add(phase, reply)
        if phase is _DATA and target is _BODY:
            return self._granted()
        if phase in _ENDS:
            # RFC 5321 4.1.1.4: the final dot clears the server's buffers, whatever the reply. But a server
            # that refuses a message while the dot is on its way may answer the dot as well. RSET keeps that
            # second reply from being taken for the reply to the next MAIL.
            self._must_reset = phase is _DATA or not reply.positive
            if self._behind and reply.code != 421:
                return self._turn_over(self._behind)
            return self._settle(_OVER if reply.code == 421 else target)
        if self._unsaid:
            if self._verdicts.all_refused:  # without pipelining, the remaining commands need not be sent
                self._unsaid.clear()
                return self._settle(State.READY)
            self._say_next()
        return None

    def _granted(self) -> Event | None:
        """Handle 354 to DATA."""
        self.state = _BODY
        if not self._verdicts.all_refused:
            return GoAhead(self._verdicts.refused)
        # RFC 2920 3.1: the server accepts DATA although no recipient was accepted. A lone dot ends the
        # transaction; whatever the reply, nothing was sent to anyone.
        self.finish()
        self._out += b".\r\n"
        return None

    def _refuse_the_rest(self, reply: Reply) -> Settled:
        """Handle a refusal that comes before the end of the message, because of its size or its content.

        No recipient gets the message, since there was no dot. It is unknown whether the server would take
        further data for the message or for commands, so the session is over.
        """
        self.answered += 1
        self._verdicts.add(_DOT, reply)
        return self._settle(_OVER)

    def _turn_over(self, behind: Verdicts) -> Settled:
        """Go on with the transaction that was begun behind the dot, which has just been answered."""
        settled = Settled(self._verdicts.final, len(self._reader.unread))
        self._verdicts, self._behind = behind, None
        self._lacks_reset, self._must_reset = self._must_reset, True
        return settled

    def _settle(self, state: State) -> Settled:
        self.state = state
        return Settled(self._verdicts.final)
