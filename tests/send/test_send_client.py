"""The SMTP client against a hostile server on real sockets."""

import asyncio
import socket
import struct
from itertools import product

import pytest
from msgspec import structs
from outbound.hostile import DROP, EXTENSIONS, HANG, RESET, Server, drip, flood, per_address
from outbound.outgoing import LONG, TEXT, THREE, Letter, Password, deliver, hop_to, only, send

from mailer.mail.envelope import Recipient
from mailer.mail.outcome import Outcome, Scope, Status
from mailer.mail.reply import Reply
from mailer.send.phase import Phase
from mailer.send.smtp.client import BLOCK, Session
from mailer.send.smtp.events import Answered, Broken, Event
from mailer.send.smtp.hop import Hop
from mailer.send.smtp.wire import Wire, connect
from mailer.send.trouble import HopTrouble, SessionLost

pytestmark = pytest.mark.fault_row(13, 14, 15, 16, 17, 18)

LOCKSTEP = tuple(extension for extension in EXTENSIONS if extension != "PIPELINING")
LARGE = Letter(b"Subject: large\r\n\r\n" + b"0123456789\r\n" * 100_000)
STATUS = {"2": Status.SENT, "4": Status.DEFERRED, "5": Status.BOUNCED}
REPLY = {"2": "250 2.1.5 ok", "4": "451 4.2.1 later", "5": "550 5.1.1 no such user"}


class Endless(Letter):
    """A message of 1 GB that nobody keeps in memory."""

    @property
    def size(self) -> int:
        return 1 << 30

    def read(self, _offset: int, length: int) -> bytes:
        return b"x" * (length - 2) + b"\r\n"


def test_the_message_arrives_as_it_was_sent_in_two_writes():
    body = b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\nlast\r\n"
    with Server() as server:
        (outcome,) = send(server, Letter(body))
    assert outcome.status is Status.SENT
    assert outcome.reply == "250 2.0.0 queued"
    assert outcome.hop == f"localhost[127.0.0.1]:{server.port}"
    assert server.delivered() == [(THREE[0], body)]
    ehlo, envelope, message, quit_ = server.sessions[0].writes
    assert ehlo == b"EHLO me.example\r\n"
    assert (envelope.count(b"\r\n"), envelope[-6:]) == (3, b"DATA\r\n")
    assert message.endswith(b"\r\n.\r\n")
    assert quit_ == b"QUIT\r\n"


@pytest.mark.parametrize("extensions", [EXTENSIONS, LOCKSTEP])
@pytest.mark.parametrize("mix", ["".join(mix) for mix in product("245", repeat=3)])
def test_each_recipient_of_every_mix_gets_its_own_outcome(mix, extensions):
    replies = [REPLY[digit] for digit in mix]
    committed: list[str] = []
    with Server({"rcpt": replies}, extensions=extensions) as server:
        outcomes = asyncio.run(deliver(hop_to(server), Letter(to=THREE), committed=committed))
        server.wait()
    assert [outcome.status for outcome in outcomes] == [STATUS[digit] for digit in mix]
    assert [outcome.address for outcome in outcomes] == list(THREE)
    accepted = [address for address, digit in zip(THREE, mix, strict=True) if digit == "2"]
    assert committed == accepted
    assert [to for to, _ in server.delivered()] == accepted
    assert not server.sessions[0].hasty


@pytest.mark.parametrize("extensions", [EXTENSIONS, LOCKSTEP])
def test_a_session_goes_on_after_a_transaction_without_recipients(extensions):
    async def twice(server):
        session = await Session.open(hop_to(server), LONG)
        outcomes = []
        for _ in range(2):
            letter = Letter()
            outcomes += await session.transact(letter, letter.envelope.recipients, lambda _: None)
        await session.close()
        return outcomes

    with Server({"rcpt": ["550 5.1.1 no", "250 ok"]}, extensions=extensions) as server:
        outcomes = asyncio.run(twice(server))
    assert [outcome.status for outcome in outcomes] == [Status.BOUNCED, Status.SENT]
    assert len(server.sessions) == 1


def test_a_banner_that_comes_before_anybody_waits_for_it_is_not_lost():
    """As after a TLS 1.2 handshake, whose last segment can bring the banner along."""

    async def run(server: Server) -> None:
        wire = await connect(hop_to(server), LONG)
        banner = b"220 hi\r\n"
        wire.get_buffer(-1)[: len(banner)] = banner
        wire.buffer_updated(len(banner))
        assert await wire.event() == Answered(Phase.BANNER, Reply(220, ("hi",)))
        await wire.close()

    with Server({"banner": HANG}) as server:
        asyncio.run(run(server))


@pytest.mark.parametrize("fault", [DROP, RESET, "421 4.3.2 going down", b"\xff\xfb garbage\r\n", "620 what"])
@pytest.mark.parametrize("extensions", [EXTENSIONS, LOCKSTEP])
@pytest.mark.parametrize("step", ["connect", "banner", "ehlo", "mail", "rcpt", "data", "body"])
def test_a_loss_before_the_dot_is_trouble_of_the_hop_and_nothing_was_sent(step, extensions, fault):
    """Whatever happens and wherever, nobody was sent the message and the caller knows it."""
    committed: list[str] = []
    with (
        Server({step: fault}, extensions=extensions, body_after=70_000) as server,
        pytest.raises(HopTrouble) as raised,
    ):
        asyncio.run(deliver(hop_to(server), Endless() if step == "body" else LARGE, committed=committed))
    trouble = raised.value
    assert (trouble.scope, trouble.temporary) == (Scope.HOST, True)
    assert isinstance(trouble, SessionLost) == (step in {"mail", "rcpt", "data", "body"})
    # A reset discards the replies that were under way, so the phase may be an earlier one.
    assert fault is RESET or trouble.phase == {"connect": "banner"}.get(step, step)
    assert trouble.text.isprintable()
    assert committed == []
    assert server.delivered() == []


@pytest.mark.parametrize("reply", ["421 4.3.2 going down", "451 4.3.0 disk", "554 5.3.2 no service"])
@pytest.mark.parametrize(("step", "phase"), [("banner", Phase.BANNER), ("ehlo", Phase.EHLO)])
def test_a_refused_session_is_trouble_of_the_hop_in_the_servers_own_words(step, phase, reply):
    with Server({step: reply, "helo": reply}) as server, pytest.raises(HopTrouble) as raised:
        send(server, Letter())
    assert (raised.value.phase, raised.value.text, raised.value.scope) == (phase, reply, Scope.HOST)
    assert raised.value.reply.code == int(reply[:3])


@pytest.mark.parametrize("fault", [DROP, RESET, b"garbage\r\n", "354 go on", "620 what"])
@pytest.mark.parametrize("extensions", [EXTENSIONS, LOCKSTEP])
def test_a_lost_reply_to_the_dot_leaves_doubt_about_those_who_were_accepted(extensions, fault):
    """The refused recipient keeps its refusal."""
    script = {"rcpt": [REPLY["2"], REPLY["5"], REPLY["2"]], "dot": fault}
    committed: list[str] = []
    with Server(script, extensions=extensions) as server:
        outcomes = asyncio.run(deliver(hop_to(server), Letter(to=THREE), committed=committed))
    assert [outcome.status for outcome in outcomes] == [Status.UNCERTAIN, Status.BOUNCED, Status.UNCERTAIN]
    assert committed == [THREE[0], THREE[2]]


@pytest.mark.parametrize("fault", [DROP, RESET, "421 4.3.2 bye"])
@pytest.mark.parametrize("step", ["after", "quit"])
def test_what_happens_after_the_final_reply_does_not_matter(step, fault):
    with Server({step: fault}) as server:
        (outcome,) = send(server, Letter())
    assert outcome.status is Status.SENT


@pytest.mark.parametrize(
    ("reply", "status"),
    [("451 4.3.0 x", Status.DEFERRED), ("450 x", Status.DEFERRED), ("554 5.6.0 x", Status.BOUNCED)],
)
@pytest.mark.parametrize("step", ["mail", "data", "dot"])
def test_a_refusal_of_the_message_is_the_outcome_of_all(step, reply, status):
    with Server({step: reply}) as server:
        outcomes = send(server, Letter(to=THREE))
    assert [(outcome.status, outcome.reply) for outcome in outcomes] == [(status, reply)] * 3
    assert server.delivered() == []


def test_421_to_the_dot_is_a_sure_refusal():
    with Server({"dot": "421 4.3.2 going down"}) as server:
        (outcome,) = send(server, Letter())
    assert (outcome.status, outcome.scope) == (Status.DEFERRED, Scope.HOST)


@pytest.mark.parametrize("tarpit", [HANG, drip(b"250-x\r\n"), drip(b"2"), drip(b"250 never ends ")])
@pytest.mark.parametrize("step", ["banner", "ehlo", "mail", "rcpt", "data"])
def test_a_tarpit_costs_one_deadline(step, tarpit):
    """A byte now and then buys no time. (That this test ends is the promise.)"""
    phase = Phase(step)
    with Server({step: tarpit}) as server, pytest.raises(HopTrouble) as raised:
        send(server, Letter(), only(**{step: 0.2}))
    assert (raised.value.phase, raised.value.text) == (phase, "Connection timed out")


def test_a_tarpit_after_the_dot_leaves_doubt():
    with Server({"dot": drip(b"2")}) as server:
        (outcome,) = send(server, Letter(), only(dot=0.2))
    assert (outcome.status, outcome.reply) == (Status.UNCERTAIN, "Connection timed out")


def test_each_reply_has_its_own_deadline():
    """Twenty slow answers are no tarpit, though together they take longer than one may."""

    def slowly(_session, _line):
        asyncio.run(asyncio.sleep(0.05))
        return "250 ok"

    to = [f"r{n}@example.net" for n in range(20)]
    with Server({"rcpt": slowly}) as server:
        outcomes = send(server, Letter(to=to), only(rcpt=0.7))
    assert {outcome.status for outcome in outcomes} == {Status.SENT}


@pytest.mark.parametrize("step", ["banner", "ehlo", "mail"])
@pytest.mark.parametrize(
    "data", [flood(b"250-x"), flood(b"x" * 100_000), flood(b"\0"), flood(b"250 " + b"x" * 100_000)]
)
def test_an_endless_reply_is_capped(step, data):
    with Server({step: data}) as server, pytest.raises(HopTrouble) as raised:
        send(server, Letter())
    assert raised.value.phase == step
    assert len(raised.value.text) < 200


def test_a_peer_that_stops_reading_costs_one_deadline():
    """Zero window; the message is far larger than the sockets' buffers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def run() -> HopTrouble:
            serving = asyncio.get_running_loop().run_in_executor(None, stall, listener)
            hop = Hop("localhost", listener.getsockname()[1], address="127.0.0.1")
            with pytest.raises(SessionLost) as raised:
                await deliver(hop, Endless(), only(body=0.3))
            (await serving).close()
            return raised.value

        trouble = asyncio.run(run())
    assert (trouble.phase, trouble.text) == (Phase.BODY, "Connection timed out")


def stall(listener: socket.socket) -> socket.socket:
    """A server that answers up to DATA and never reads again."""
    sock, _ = listener.accept()
    sock.sendall(b"220 hi\r\n")
    sock.recv(1000)
    sock.sendall(b"250-hi\r\n250 PIPELINING\r\n")
    sock.recv(1000)
    sock.sendall(b"250 ok\r\n250 ok\r\n354 go\r\n")
    return sock


@pytest.mark.parametrize(
    "early",
    [
        {"mail": "354 go"},
        {"mail": "250 ok\n250 early"},
        {"rcpt": "354 go"},
        {"data": "250 ok"},
        {"data": "354 go\n250 early"},
        {"banner": "220 hi\n250 early"},
        {"rcpt": ["250 ok", "421 4.3.2 going down"]},
        {"rcpt": b"250 o\0k\r\n"},
        {"rcpt": "250-a\n550 b"},
    ],
)
@pytest.mark.parametrize("extensions", [EXTENSIONS, LOCKSTEP])
def test_a_server_out_of_step_is_left_before_the_dot(early, extensions):
    committed: list[str] = []
    with Server(early, extensions=extensions) as server, pytest.raises(HopTrouble):
        asyncio.run(deliver(hop_to(server), Letter(to=THREE), committed=committed))
    assert committed == []
    assert server.delivered() == []


def test_a_connection_that_is_reset_at_once_is_trouble_like_any_other(caplog):
    """The socket then no longer knows its peer."""

    async def run(sock: socket.socket) -> Event:
        loop = asyncio.get_running_loop()
        hop = Hop("mx.example", 25)
        _, wire = await loop.create_connection(lambda: Wire(hop, "192.0.2.1", LONG, loop), sock=sock)
        assert wire.label == "mx.example[192.0.2.1]:25"
        broken = await wire.event()
        await wire.close()
        return broken

    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
    ours.setblocking(False)
    assert asyncio.run(run(ours)) == Broken("Connection reset by peer", Phase.BANNER)
    assert caplog.records == []


def test_nothing_listens_and_the_system_says_so():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(HopTrouble) as raised:
        asyncio.run(deliver(Hop("127.0.0.1", port), Letter()))
    assert str(raised.value) == f"127.0.0.1:{port}: connect: Connection refused"
    assert raised.value.scope is Scope.HOST


def test_a_name_without_addresses_is_trouble_of_the_hop():
    with pytest.raises(HopTrouble) as raised:
        asyncio.run(deliver(Hop("no-such-host.invalid", 25), Letter()))
    assert (raised.value.phase, raised.value.scope) == (Phase.CONNECT, Scope.HOST)


def test_a_source_address_that_is_not_ours_is_our_own_trouble():
    with Server() as server, pytest.raises(HopTrouble) as raised:
        send(server, Letter(), source_address="192.0.2.1")
    assert (raised.value.scope, raised.value.text) == (Scope.LOCAL, "Cannot assign requested address")


def test_a_server_that_only_knows_helo_gets_the_message_without_parameters():
    with Server({"ehlo": "502 5.5.1 what?"}) as server:
        (outcome,) = send(server, Letter(body=TEXT + "é\r\n".encode(), envid="x"))
    assert outcome.status is Status.SENT
    assert server.messages[0].mail_line == b"MAIL FROM:<app@example.com>"
    assert not server.sessions[0].hasty


def test_parameters_are_passed_on_to_a_server_that_offers_them():
    letter = Letter(body="8BITMIME", smtputf8=True, ret="HDRS", envid="QQ", to=())
    recipients = [Recipient("bob@example.net", "FAILURE", "rfc822;bob@example.net")]
    letter.body = TEXT

    async def run(server):
        session = await Session.open(hop_to(server), LONG)
        await session.transact(letter, recipients, lambda _: None)
        await session.close()

    letter.envelope = structs.replace(letter.envelope, body="8BITMIME")
    with Server() as server:
        asyncio.run(run(server))
    (message,) = server.messages
    assert message.mail_line == (
        b"MAIL FROM:<app@example.com> SIZE=%d BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ" % len(TEXT)
    )
    assert message.rcpt_lines == [b"RCPT TO:<bob@example.net> NOTIFY=FAILURE ORCPT=rfc822;bob@example.net"]


def test_an_original_recipient_beyond_ascii_is_left_out_where_smtputf8_is_not_offered():
    recipients = [Recipient("bob@example.net", "FAILURE", "utf-8;jörg@exämple.net")]

    async def run(server):
        session = await Session.open(hop_to(server), LONG)
        letter = Letter(smtputf8=True)
        outcomes = await session.transact(letter, recipients, lambda _: None)
        await session.close()
        return outcomes

    for extensions, parameter in ((("DSN",), ""), (("DSN", "SMTPUTF8"), " ORCPT=utf-8;jörg@exämple.net")):
        with Server(extensions=extensions) as server:
            (outcome,) = asyncio.run(run(server))
        assert outcome.status is Status.SENT
        expected = f"RCPT TO:<bob@example.net> NOTIFY=FAILURE{parameter}"
        assert server.messages[0].rcpt_lines == [expected.encode()]


def test_a_null_sender_goes_out_as_one():
    with Server() as server:
        send(server, Letter(sender=""))
    assert server.messages[0].mail_line.startswith(b"MAIL FROM:<> ")


def test_a_message_over_the_servers_limit_is_refused_without_asking():
    with Server(extensions=("SIZE 10",)) as server:
        outcomes = send(server, Letter(to=THREE))
    assert {(o.status, o.scope, o.reply[:9]) for o in outcomes} == {
        (Status.BOUNCED, Scope.MESSAGE, "552 5.3.4")
    }
    assert [command[:4] for command in server.sessions[0].commands] == [b"EHLO", b"QUIT"]


UTF8_HEADER = "Subject: grüß\r\n\r\nbody\r\n".encode()


@pytest.mark.parametrize(
    ("letter", "scopes"),
    [
        (Letter(to=["bob@example.net", "jörg@example.net"]), [None, Scope.RECIPIENT]),
        (Letter(to=["bob@example.net", "bob@exämple.net"]), [None, Scope.RECIPIENT]),
        (Letter(sender="jörg@example.net"), [Scope.MESSAGE]),
        (Letter(UTF8_HEADER, smtputf8=True), [Scope.MESSAGE]),
        (Letter(UTF8_HEADER), [None]),
        (Letter(TEXT + UTF8_HEADER, smtputf8=True), [None]),
    ],
)
def test_mail_that_needs_smtputf8_is_refused_once_and_clearly_where_it_is_not_offered(letter, scopes):
    with Server(extensions=("PIPELINING",)) as server:
        outcomes = send(server, letter)
    for outcome, scope in zip(outcomes, scopes, strict=True):
        if scope is None:
            assert outcome.status is Status.SENT
        else:
            assert (outcome.status, outcome.scope) == (Status.BOUNCED, scope)
            assert outcome.reply.startswith("550 5.6.7 ")
    wire = bytes(server.sessions[0].received)
    assert all(line.isascii() for line in wire.split(b"\r\n") if line[:5] in {b"MAIL ", b"RCPT "})
    assert b"SMTPUTF8" not in wire


@pytest.mark.parametrize("letter", [Letter(to=["jörg@example.net"]), Letter(sender="jörg@example.net")])
def test_an_address_that_is_not_ascii_declares_smtputf8_by_itself(letter):
    with Server() as server:
        (outcome,) = send(server, letter)
    assert outcome.status is Status.SENT
    assert b" SMTPUTF8" in server.messages[0].mail_line


def test_eight_bit_mail_passes_unchanged_whatever_the_server_offers():
    body = b"Subject: x\r\n\r\n\xff\xfe\r\n"
    letter = Letter(body)
    letter.envelope = structs.replace(letter.envelope, body="8BITMIME")
    for extensions in ((), ("8BITMIME",)):
        with Server(extensions=extensions) as server:
            send(server, letter)
        assert server.delivered() == [(THREE[0], body)]
        assert (b"BODY=8BITMIME" in server.messages[0].mail_line) == bool(extensions)


def test_a_large_message_is_streamed_block_by_block_and_arrives_whole():
    reads: list[int] = []

    class Counted(Letter):
        def read(self, offset: int, length: int) -> bytes:
            reads.append(length)
            return super().read(offset, length)

    with Server() as server:
        (outcome,) = send(server, Counted(LARGE.body))
    assert outcome.status is Status.SENT
    assert server.delivered() == [(THREE[0], LARGE.body)]
    assert max(reads) == BLOCK


def test_the_reply_to_the_dot_is_awaited_while_the_dot_still_waits_in_our_buffer():
    """With small kernel buffers the one write of body and dot goes out in pieces: it stops and goes on."""
    letter = Letter(b"x" * (BLOCK - 2) + b"\r\n")

    async def run(server: Server) -> list[Outcome]:
        session = await Session.open(hop_to(server), LONG)
        ours = session._wire._transport.get_extra_info("socket")
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        outcomes = await session.transact(letter, letter.envelope.recipients, lambda _: None)
        await session.close()
        return outcomes

    with Server() as server:
        server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        (outcome,) = asyncio.run(run(server))
    assert outcome.status is Status.SENT
    assert server.messages[0].body == letter.body


@pytest.mark.parametrize("letter", [Letter(), LARGE])
def test_if_the_commit_cannot_be_recorded_nothing_is_sent(letter):
    def full_disk(_recipients):
        raise OSError(28, "No space left on device")

    async def run(server):
        session = await Session.open(hop_to(server), LONG)
        with pytest.raises(OSError, match="No space left"):
            await session.transact(letter, letter.envelope.recipients, full_disk)
        assert not session.alive
        await session.close()

    with Server() as server:
        asyncio.run(run(server))
        server.wait()
    assert server.messages == []


def test_a_message_that_is_shorter_than_it_says_is_not_sent_in_part():
    class Torn(Letter):
        @property
        def size(self) -> int:
            return len(self.body) + 1

    with Server() as server:
        with pytest.raises(EOFError):
            send(server, Torn())
        server.wait()
    assert server.messages == []


def test_a_cancelled_transaction_takes_its_session_with_it():
    async def run(server):
        session = await Session.open(hop_to(server), LONG)
        letter = Letter()
        transacting = asyncio.ensure_future(
            session.transact(letter, letter.envelope.recipients, lambda _: None)
        )
        await asyncio.sleep(0)
        transacting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await transacting
        assert not session.alive
        await session.close()

    with Server({"mail": HANG}) as server:
        asyncio.run(run(server))


def test_what_a_server_says_cannot_break_a_log_line():
    with Server({"rcpt": b"550 5.1.1 no\rINJECTED\x1b[2J\r\n"}) as server:
        (outcome,) = send(server, Letter())
    assert outcome.reply == "550 5.1.1 no\\rINJECTED\\x1b[2J"


def test_refusals_by_address():
    with Server({"rcpt": per_address({THREE[1]: REPLY["5"]})}) as server:
        outcomes = send(server, Letter(to=THREE))
    assert [outcome.status for outcome in outcomes] == [Status.SENT, Status.BOUNCED, Status.SENT]


# AUTH.

LOGIN = {"username": "user", "password": Password("s3cret word")}


@pytest.mark.parametrize("mechanisms", ["PLAIN LOGIN", "LOGIN", "CRAM-MD5", "GSSAPI cram-md5 XOAUTH2"])
def test_logs_in_by_a_mechanism_that_is_offered(mechanisms):
    with Server(auth=mechanisms) as server:
        (outcome,) = send(server, Letter(), **LOGIN)
    assert outcome.status is Status.SENT


@pytest.mark.parametrize("reply", ["535 5.7.8 wrong", "454 4.7.0 later", "504 5.5.4 no", "530 5.7.0 no"])
def test_a_refused_login_is_trouble_of_our_account(reply):
    with Server({"auth": reply}, auth="PLAIN") as server, pytest.raises(HopTrouble) as raised:
        send(server, Letter(), **LOGIN)
    trouble = raised.value
    assert (trouble.scope, trouble.phase, trouble.text) == (Scope.PROVIDER, Phase.AUTH, reply)
    assert trouble.temporary == reply.startswith("4")


def test_a_login_that_cannot_be_is_trouble_of_our_account():
    with Server() as server, pytest.raises(HopTrouble) as raised:
        send(server, Letter(), **LOGIN)
    assert (raised.value.scope, raised.value.phase) == (Scope.PROVIDER, Phase.AUTH)


@pytest.mark.parametrize("fault", [DROP, RESET])
def test_a_loss_while_logging_in_is_trouble_of_the_hop(fault):
    with Server({"auth": fault}, auth="PLAIN") as server, pytest.raises(HopTrouble) as raised:
        send(server, Letter(), **LOGIN)
    assert raised.value.phase is Phase.AUTH


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("ending", ["535 5.7.8 wrong: {}", "what is {}"])
def test_a_server_that_quotes_the_password_does_not_get_it_into_our_words(mechanism, ending):
    def quote(_session, line):
        return ending.format(line.split()[-1].decode() + " s3cret word").encode() + b"\r\n"

    with Server({"auth": quote}, auth=mechanism) as server, pytest.raises(HopTrouble) as raised:
        send(server, Letter(), **LOGIN)
    trouble = raised.value
    told = f"{trouble!r} {trouble} {trouble.text} {trouble.reply} {hop_to(server, **LOGIN)!r}"
    assert "s3cret" not in told
    assert "AHVzZXIAczNjcmV0IHdvcmQ=" not in told
    assert "***" in told
