"""The order of commands: whatever a client says, in whatever order, each command has the one right reply."""

import random
from base64 import b64encode

import pytest
from inbound.conversation import Conversations

from mailer.receive import replies
from mailer.receive.settings import Settings
from mailer.receive.smtp.order import REFUSALS, Stage

LOGIN = b"AUTH PLAIN " + b64encode(b"\0app\0secret") + b"\r\n"
COMMANDS = {
    "EHLO": b"EHLO client.example\r\n",
    "AUTH": LOGIN,
    "MAIL": b"MAIL FROM:<app@example.com>\r\n",
    "RCPT": b"RCPT TO:<bob@example.net>\r\n",
    "chunk": b"BDAT 6\r\nA: b\r\n",
    "last chunk": b"BDAT 6 LAST\r\nA: b\r\n",
    "RSET": b"RSET\r\n",
    "NOOP": b"NOOP\r\n",
    "message": b"DATA\r\n",
}
SEQUENCES = 300


class Client:
    """What RFC 5321 4.1.4, RFC 4954 4 and RFC 3030 2 say, told by what has happened."""

    def __init__(self, *, must_log_in: bool) -> None:
        self.must_log_in = must_log_in
        self.greeted = self.logged_in = self.begun = self.received = self.chunks = False

    def expects(self, what: str) -> str:
        """Return the beginning of the reply, and take note of what it means."""
        if what in {"EHLO", "RSET"}:
            self.greeted |= what == "EHLO"
            self.begun = self.received = self.chunks = False
        if what in {"EHLO", "RSET", "NOOP"}:
            return "250"
        if not self.greeted:
            return str(replies.NEED_EHLO)
        if what == "AUTH":
            return self._auth()
        if self.must_log_in and not self.logged_in:
            return str(replies.NEED_AUTH)
        return self._mail(what)

    def _auth(self) -> str:
        if self.begun:
            return str(replies.AUTH_IN_MAIL)
        if self.logged_in:
            return str(replies.AUTH_TWICE)
        self.logged_in = True
        return "235"

    def _mail(self, what: str) -> str:
        if what == "MAIL":
            reply = str(replies.NESTED_MAIL) if self.begun else "250"
            self.begun = True
            return reply
        if self.chunks and what in {"RCPT", "message"}:
            return str(replies.CHUNKS_BEGUN)
        if not self.begun:
            reply = str(replies.NEED_MAIL)
        elif what == "RCPT":
            self.received = True
            return "250"
        elif not self.received:
            reply = str(replies.NEED_RCPT)
        elif what == "chunk":
            self.chunks = True
            return "250"
        else:
            reply = "354" if what == "message" else "250"
        if "chunk" in what or reply == "354":
            # A message, taken or not, ends its transaction.
            self.begun = self.received = self.chunks = False
        return reply


def unfolded(said: bytes) -> list[str]:
    lines = said.decode().split("\r\n")[:-1]
    return [line for line in lines if line[3] == " "][1:]


@pytest.mark.parametrize("must_log_in", [False, True])
def test_any_sequence_of_commands_gets_the_replies_of_the_rules(must_log_in) -> None:
    conversations = Conversations(Settings(require_auth=must_log_in))
    for seed in range(SEQUENCES):
        draw, client = random.Random(seed), Client(must_log_in=must_log_in)
        sent, expected = [], []
        # Most begin as clients do, else they would come to nothing.
        for what in [*draw.choice([[], ["EHLO"], ["EHLO", "AUTH"]]), *draw.choices([*COMMANDS], k=12)]:
            sent.append(COMMANDS[what])
            expected.append(client.expects(what))
            if expected[-1] == "354":
                sent.append(b"A: b\r\n\r\ntext\r\n.\r\n")
                expected.append("250 2.0.0 Ok: queued")
        result = conversations.hold(sent, wait=True)
        said = unfolded(result.replies)
        assert len(said) == len(expected), (seed, said, expected)
        for got, wanted in zip(said, expected, strict=True):
            assert got.startswith(wanted), (seed, sent, said, expected)
        assert len(result.files) == result.replies.count(b"queued as")
        assert not result.leftovers
    conversations.close()


def test_each_row_of_the_table_is_a_command_that_a_stage_allows() -> None:
    """A command that is served nowhere, or a stage without a way on, would be a mistake in the table."""
    for verb, refused in REFUSALS.items():
        assert set(Stage) - set(refused), verb
    for stage in set(Stage) - {Stage.CONNECTED, Stage.PLAINTEXT, Stage.PLAINTEXT_ELSEWHERE}:
        assert any(stage not in refused for verb, refused in REFUSALS.items() if verb != "STARTTLS"), stage
