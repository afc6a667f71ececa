"""A scripted SMTP server that misbehaves on purpose, on real sockets, and records what it was told.

    with Server({"rcpt": ["250 ok", "550 5.1.1 no such user"], "dot": DROP}) as server:
        ... send to 127.0.0.1:server.port ...
    assert server.messages[0].recipients == ["bob@example.net"]

A script says for each step what happens there; a step without an entry goes well. The steps, in the order of
a session: connect, handshake (TLS), banner, ehlo, helo, starttls, auth, challenge, welcome (in place of the
235 to a password), rset, mail, rcpt, data, body (in the middle of the message, after `body_after` octets),
dot (in place of its reply), after (after a 2yz to the dot), refused (in place of the 535 to a bad token),
quit, other. What happens there is one of

    "451 4.3.0 later"     a reply (several lines if the text has several; the codes are yours)
    b"..."                raw bytes
    DROP, RESET           close the connection; reset it
    HANG                  say nothing until the client goes away
    STALL                 say nothing and read nothing
    drip(b"250 ok"), flood(b"250-x"), pour(b"x")
                          a byte at a time, for ever; the same line again, for ever; a line without end
    said("552 no", DROP)  a reply, and then DROP or RESET
    [a, b, ...]           one for each time the step is reached in the server's life; the last one stays
    per_address({...})    for mail and rcpt: by the address
    reached(event, then)  sets a threading.Event, for a test that waits for this moment
    f(session, line)      any of these, computed

Every thread is the server's own, so it serves asynchronous code and whole processes alike.
"""

import contextlib
import re
import socket
import ssl
import struct
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

EXTENSIONS = ("PIPELINING", "SIZE 0", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")
SMALL_WINDOW = 16384
"""Octets of a message that a server takes before it reads them."""
_BEARER = {
    b"XOAUTH2": "user=(?P<user>[^\1]*)\1auth=Bearer (?P<token>[^\1]*)\1\1",
    b"OAUTHBEARER": "n,a=(?P<user>[^,]*),\1host=[^\1]+\1port=[0-9]+\1auth=Bearer (?P<token>[^\1]*)\1\1",
}
_ADDRESS = re.compile(rb"<([^>]*)>")


@dataclass(frozen=True)
class _Do:
    """Something other than a reply."""

    what: str
    data: bytes = b""
    every: float = 0.0


DROP = _Do("drop")
RESET = _Do("reset")
HANG = _Do("hang")
STALL = _Do("stall")


def said(reply: str, then: _Do) -> _Do:
    """Send a reply, and close or reset the connection at once."""
    return replace(then, data=reply.encode() + b"\r\n")


def drip(data: bytes, every: float = 0.01) -> _Do:
    """Send the bytes one by one, `every` seconds, starting again at the end, until the client goes away."""
    return _Do("endless", data, every)


def flood(line: bytes) -> _Do:
    """Send the same line as fast as the client takes it, until it goes away."""
    return _Do("endless", (line + b"\r\n") * 100)


def pour(octet: bytes) -> _Do:
    """Send the same octet as fast as the client takes it, until it goes away."""
    return _Do("endless", octet * 65536)


Action = Any  # a step's entry, as the module's docstring lists them
Script = Mapping[str, Action]


def per_address(
    actions: Mapping[str, Action], default: Action = None
) -> Callable[["Session", bytes], Action]:
    return lambda _session, line: actions.get(_address(line), default)


def reached(event: threading.Event, then: Action) -> Callable[["Session", bytes], Action]:
    """Tell the test that the session is here, then do as usual or otherwise."""

    def tell(_session: "Session", _line: bytes) -> Action:
        event.set()
        return then

    return tell


@dataclass
class Message:
    """One message that got as far as its final dot."""

    sender: str
    recipients: list[str]
    """Those whose RCPT was accepted."""
    body: bytes
    """Unstuffed."""
    mail_line: bytes
    rcpt_lines: list[bytes]
    reply: str
    """What the dot was answered with; empty: nothing."""

    @property
    def accepted(self) -> bool:
        return self.reply.startswith("2")


@dataclass
class Session:
    """One connection's record."""

    peer: str = ""
    """The client's address."""
    received: bytearray = field(default_factory=bytearray)
    """Every byte from the client, decrypted."""
    sent: bytearray = field(default_factory=bytearray)
    commands: list[bytes] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    tls: str = ""
    clear: bytearray = field(default_factory=bytearray)
    """The part of `received` that came before TLS."""
    hasty: bool = False
    """The client sent a command before the reply to the one before, although PIPELINING was not offered."""
    writes: list[bytes] = field(default_factory=list)
    """`received` as recv() cut it."""
    finished: bool = False


class _Gone(Exception):
    """The script wants the session to end, or the client has ended it."""


class Server:
    """Listens on `host` from `__enter__` to `__exit__`; `port` is its."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        extensions: Sequence[str] = EXTENSIONS,
        auth: str = "",
        bearers: Callable[[str], bool] | None = None,
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        body_after: int = 0,
        forgets_behind: bool = False,
        patience: float | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """Prepare a server.

        Args:
            script: what goes wrong where.
            extensions: of the EHLO reply; AUTH and STARTTLS are added by the next two.
            auth: mechanisms to offer, such as "PLAIN LOGIN"; any login is accepted unless the script objects.
            bearers: tells which access tokens are good, for XOAUTH2 and OAUTHBEARER.
            tls: the server's side of TLS; offers STARTTLS unless `implicit_tls`.
            implicit_tls: TLS from the first byte.
            body_after: octets of a message's body after which the step `body` happens.
            forgets_behind: drop what has come behind a final dot by the time of its reply.
            patience: seconds that a client may be silent; None: for ever.
            host: the address to listen on.
            port: the port; 0: any that is free.
        """
        self.script: dict[str, Action] = dict(script or {})
        self.extensions = tuple(extensions)
        self.auth = auth
        self.bearers = bearers or (lambda _token: True)
        self.tls = tls
        self.implicit_tls = implicit_tls
        self.body_after = body_after
        self.forgets_behind = forgets_behind
        self.patience = patience
        self.host = host
        self.sessions: list[Session] = []
        self.port = port
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # 64 runners come at once with 20 sessions each, and a full queue looks like a host that is down.
        self.listener = socket.create_server((self.host, self.port), family=family, backlog=4096)
        if "body" in self.script:
            # Else a whole message, final dot included, may be in the kernel before the step happens.
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
        self.port = self.listener.getsockname()[1]
        self._spawn(self._listen)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    @property
    def messages(self) -> list[Message]:
        """All that got to their final dot, whatever it was answered with."""
        return [message for session in self.sessions for message in session.messages]

    def delivered(self) -> list[tuple[str, bytes]]:
        """(recipient, body) for each that was accepted, in order."""
        return [(to, m.body) for m in self.messages if m.accepted for to in m.recipients]

    def wait(self) -> None:
        """Until every session so far has ended: after that nothing more is recorded."""
        for thread in self._threads[1:]:
            thread.join(30)
            assert not thread.is_alive(), "a session that does not end"

    def action(self, step: str, session: Session, line: bytes) -> Action:
        """The script's entry for this step, this time; None: it goes well."""
        entry = self.script.get(step)
        if isinstance(entry, list):
            with self._lock:
                turn = self._seen.get(step, 0)
                self._seen[step] = turn + 1
            entry = entry[min(turn, len(entry) - 1)]
        return entry(session, line) if callable(entry) else entry

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                sock, peer = self.listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(sock)
            session = Session(peer=peer[0])
            self.sessions.append(session)
            self._spawn(_Conversation(self, sock, session).run)

    def _spawn(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def closed(self, sock: socket.socket) -> None:
        with self._lock:
            self._open.discard(sock)
        sock.close()

    def wait_for_stop(self, seconds: float | None) -> bool:
        return self._stop.wait(seconds)


class _Conversation:
    """One connection: reads lines, looks each step up, answers."""

    def __init__(self, server: Server, sock: socket.socket, session: Session) -> None:
        self.server = server
        self.raw = sock
        self.sock = sock
        self.session = session
        self.buffer = b""
        self.sender: str | None = None
        self.mail_line = b""
        self.accepted: list[bytes] = []

    def run(self) -> None:
        self.raw.settimeout(self.server.patience)
        try:
            self._converse()
        except (_Gone, OSError):
            pass
        finally:
            self.session.finished = True
            self.server.closed(self.sock)

    def _converse(self) -> None:
        self._act("connect")
        if self.server.implicit_tls:
            self._handshake()
        self._reply("banner", b"", "220 hostile.example ESMTP")
        for line in self._lines():
            verb = line[:4].upper().decode("latin-1").strip().lower()
            self.session.commands.append(line)
            pipelined = any(e.upper() == "PIPELINING" for e in self.server.extensions)
            if self.buffer and not pipelined:
                self.session.hasty = True
            getattr(self, f"_on_{verb}", self._on_other)(line)

    # Commands. The default behaviour is that of a sane server.

    def _on_ehlo(self, line: bytes) -> None:
        offered = list(self.server.extensions)
        if self.server.auth:
            offered.append(f"AUTH {self.server.auth}")
        if self.server.tls and not self.session.tls:
            offered.append("STARTTLS")
        lines = ["hostile.example", *offered]
        self._reply(
            "ehlo", line, "\n".join(f"250{'-' if n < len(lines) else ' '}{x}" for n, x in enumerate(lines, 1))
        )

    def _on_helo(self, line: bytes) -> None:
        self._reply("helo", line, "250 hostile.example")

    def _on_star(self, line: bytes) -> None:
        if self._reply("starttls", line, "220 go ahead"):
            self.session.clear += self.session.received
            self._handshake()

    def _on_auth(self, line: bytes) -> None:
        mechanism, *initial = line.split()[1:]
        if action := self.server.action("auth", self.session, line):
            self._perform(action)
            return
        if mechanism in {b"XOAUTH2", b"OAUTHBEARER"}:
            self._take_token(mechanism, initial)
            return
        rounds = {b"PLAIN": 1, b"LOGIN": 2, b"CRAM-MD5": 1}[mechanism.upper()] - len(initial)
        for turn in range(rounds):
            prompt = {b"LOGIN": (b"Username:", b"Password:"), b"CRAM-MD5": (b"<1.2@hostile>",)}.get(
                mechanism, (b"",)
            )
            self._reply("challenge", line, f"334 {b64encode(prompt[turn]).decode()}")
            line = next(self._lines())
            self.session.commands.append(line)
        self._reply("welcome", line, "235 2.7.0 welcome")

    def _take_token(self, mechanism: bytes, initial: list[bytes]) -> None:
        """Look at a token; a bad one is answered with a challenge first, as RFC 7628 3.2.3 has it."""
        if not initial:
            self._send(b"334 \r\n")
            initial = [next(self._lines())]
            self.session.commands.append(initial[0])
        text = b64decode(initial[0], validate=True).decode()
        found = re.fullmatch(_BEARER[mechanism], text)
        if found and self.server.bearers(found["token"]):
            self._send(b"235 2.7.0 welcome\r\n")
            return
        told = b64encode(b'{"status":"400","schemes":"Bearer","scope":"mail"}')
        self._send(b"334 " + told + b"\r\n")
        answer = next(self._lines())
        self.session.commands.append(answer)
        if answer == {b"XOAUTH2": b"", b"OAUTHBEARER": b"AQ=="}[mechanism]:
            self._reply("refused", answer, "535 5.7.8 no such token")
        else:
            self._send(b"501 5.5.2 cancelled?\r\n")

    def _on_mail(self, line: bytes) -> None:
        if self.sender is not None:
            self._send(b"503 5.5.1 nested MAIL\r\n")
        elif self._reply("mail", line, "250 2.1.0 ok"):
            self.sender, self.mail_line = _address(line), line

    def _on_rcpt(self, line: bytes) -> None:
        if self.sender is None:
            self._send(b"503 5.5.1 MAIL first\r\n")
        elif self._reply("rcpt", line, "250 2.1.5 ok"):
            self.accepted.append(line)

    def _on_data(self, line: bytes) -> None:
        action = self.server.action("data", self.session, line)
        if not self.accepted and action is None:
            action = "503 5.5.1 RCPT first" if self.sender is None else "554 5.5.1 no valid recipients"
        said = self._perform(action or "354 go ahead")
        if said.startswith("354"):
            self._take_message()

    def _on_rset(self, line: bytes) -> None:
        if self._reply("rset", line, "250 2.0.0 ok"):
            self._forget()

    def _on_quit(self, line: bytes) -> None:
        self._reply("quit", line, "221 2.0.0 bye")
        raise _Gone

    def _on_other(self, line: bytes) -> None:
        self._reply("other", line, "500 5.5.2 what?")

    def _take_message(self) -> None:
        body = bytearray()
        halfway = "body" not in self.server.script
        for line in self._lines():
            if line == b".":
                break
            body += line.removeprefix(b".") + b"\r\n"
            if not halfway and len(body) >= self.server.body_after:
                halfway = True
                self._act("body")
        if self.server.forgets_behind:
            self.buffer = b""
        recipients = [_address(line) for line in self.accepted]
        message = Message(self.sender or "", recipients, bytes(body), self.mail_line, self.accepted, "")
        self.session.messages.append(message)
        action = self.server.action("dot", self.session, b".") or "250 2.0.0 queued"
        if isinstance(action, str):
            message.reply = action  # before it is sent: who has read it finds it recorded
        self._perform(action)
        self._forget()
        if message.accepted:
            self._act("after")

    def _forget(self) -> None:
        self.sender, self.accepted = None, []

    # Doing.

    def _reply(self, step: str, line: bytes, usual: str) -> bool:
        """What the script says, else the usual; True if that was positive."""
        action = self.server.action(step, self.session, line)
        return self._perform(usual if action is None else action).startswith("2")

    def _act(self, step: str) -> None:
        action = self.server.action(step, self.session, b"")
        if action is not None:
            self._perform(action)

    def _perform(self, action: Action) -> str:
        """Do it; return the reply in words."""
        if isinstance(action, str):
            self._send(action.replace("\n", "\r\n").encode() + b"\r\n")
            return action
        if isinstance(action, bytes):
            self._send(action)
            return action.decode("latin-1")
        if action.data and action.what in {"drop", "reset"}:
            self._send(action.data)
        if action.what == "reset":
            # SO_LINGER of zero: RST instead of FIN.
            self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif action.what == "hang":
            while self._receive():
                pass
        elif action.what == "stall":
            self.server.wait_for_stop(None)
        elif action.what == "endless":
            self._send_for_ever(action.data, action.every)
        raise _Gone

    def _send_for_ever(self, data: bytes, every: float) -> None:
        while True:
            for piece in [data[i : i + 1] for i in range(len(data))] if every else [data]:
                self.sock.sendall(piece)
                if self.server.wait_for_stop(every):
                    raise _Gone

    def _send(self, data: bytes) -> None:
        self.session.sent += data
        self.sock.sendall(data)

    def _receive(self) -> bytes:
        data = self.sock.recv(65536)
        self.session.received += data
        if data:
            self.session.writes.append(data)
        return data

    def _lines(self) -> Iterator[bytes]:
        """Command and body lines, without CRLF; a bare CR or LF is part of its line, for tests to find."""
        while True:
            line, end, rest = self.buffer.partition(b"\r\n")
            if end:
                self.buffer = rest
                yield line
                continue
            data = self._receive()
            if not data:
                raise _Gone
            self.buffer += data

    def _handshake(self) -> None:
        self._act("handshake")
        assert self.server.tls is not None
        self.buffer = b""
        secured = self.server.tls.wrap_socket(self.sock, server_side=True)
        with self.server._lock:
            self.server._open.discard(self.sock)
            self.server._open.add(secured)
        self.sock = self.raw = secured
        self.session.tls = secured.version() or ""


def _address(line: bytes) -> str:
    found = _ADDRESS.search(line)
    return found[1].decode("utf-8", "replace") if found else ""


ESTABLISHED = b"\x01"


def established(server: Server) -> int:
    """Count the connections that neither end has closed."""
    with server._lock:
        states = [sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) for sock in server._open]
    return states.count(ESTABLISHED)


class AtMost:
    """RCPT by RCPT: a reply of the server's for each recipient of a transaction beyond a number."""

    def __init__(self, number: int, reply: str) -> None:
        self.number, self.reply = number, reply

    def __call__(self, session, _line):
        since = max(at for at, command in enumerate(session.commands) if command.startswith(b"MAIL"))
        return self.reply if len(session.commands) - since - 1 > self.number else None
