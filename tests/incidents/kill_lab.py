"""Load, sudden death, and the books: what was acknowledged, what arrived, what was in doubt at each death.

Nothing here shares a line with the product: submissions go through smtplib, arrivals are smtp-sink's files,
and spool files are read by `spools.walk`.
"""

import json
import random
import re
import smtplib
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from spools.walk import walk
from testbed.arrival import Arrival
from testbed.ports import LOOPBACK
from testbed.relay import PASSWORD, USERNAME, Relay

LARGEST = 20_000
"""`maxMessageSize` under the load, so that some messages are refused at their end."""
BACKLOG = 30
"""Messages that wait at most: beyond it the clients rest, and the machine starts the next programs."""
_TOKEN = re.compile(rb"^Subject: (\S+)\r$", re.MULTILINE)


@dataclass(frozen=True)
class Submission:
    """One message as a client sent it."""

    token: str
    recipients: tuple[str, ...]
    message: bytes
    hopeless: str = ""
    """One more recipient, which the next hop can never take: the sender is to get a bounce. Empty: none."""

    @classmethod
    def make(cls, token: str, chance: random.Random) -> "Submission":
        recipients = tuple(
            f"{token}.{number}@example.net" for number in range(chance.choice((1, 1, 1, 2, 5)))
        )
        size = chance.choice((0, 100, 3000, 15_000, 15_000, LARGEST + 1000))
        lines = b"".join(b".%d\r\n" % chance.getrandbits(64) for _ in range(size // 20))
        message = b"From: <app@example.com>\r\nSubject: %s\r\n\r\n" % token.encode() + lines
        hopeless = chance.choice(("", "", "", f"{token}@bücher.example"))
        return cls(token, recipients, message, hopeless)


@dataclass
class Books:
    """What the clients know of each token: `acknowledged`, `refused`, or neither (the reply was lost)."""

    file: Path
    submitted: dict[str, Submission] = field(default_factory=dict)
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Token to queue id."""
    refused: set[str] = field(default_factory=set)
    waiting: int = 0
    """Messages in `new/`, when somebody last looked."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def acknowledge(self, submission: Submission, reply: bytes) -> None:
        digest = sha256(submission.message).hexdigest()
        line = {"id": reply.split()[-1].decode(), "token": submission.token, "sha256": digest}
        with self._lock, self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.acknowledged[submission.token] = line["id"]


class Client(threading.Thread):
    """Submits one message after the other until told to stop; comes back when the connection is lost."""

    def __init__(self, name: str, relay: Relay, books: Books, seed: int) -> None:
        super().__init__(name=name, daemon=True)
        self.stop = threading.Event()
        self._relay = relay
        self._books = books
        self._chance = random.Random(seed)
        self._sent = 0

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                with smtplib.SMTP(LOOPBACK, self._relay.port, timeout=60) as session:
                    session.login(USERNAME, PASSWORD)
                    while not self.stop.is_set():
                        if self._books.waiting < BACKLOG:
                            self._submit(session)
                        else:
                            self.stop.wait(0.005)
            except (smtplib.SMTPException, OSError):
                self.stop.wait(0.005)  # the receiver is dead; its successor is not there yet

    def _submit(self, session: smtplib.SMTP) -> None:
        self._sent += 1
        submission = Submission.make(f"{self.name}-{self._sent}", self._chance)
        self._books.submitted[submission.token] = submission
        session.mail(USERNAME, ["SMTPUTF8"] if submission.hopeless else [])
        for recipient in (*submission.recipients, submission.hopeless):
            if recipient:
                session.rcpt(recipient)
        code, reply = session.data(submission.message)
        if code == 250:
            self._books.acknowledge(submission, reply)
        else:
            self._books.refused.add(submission.token)
            session.rset()


@dataclass
class Deaths:
    """What each dead runner left in doubt: the only messages that may arrive once more."""

    doubts: Counter[str] = field(default_factory=Counter)
    """Token to the number of deaths that left it handed over, and without an outcome."""
    most_at_once: int = 0
    _known: Counter[str] = field(default_factory=Counter)
    """Spool id to its `committing` lines at an earlier death: what was in doubt then is not so anew."""

    def look(self, spool: Path) -> None:
        """Read what the runner that has just died had in hand."""
        doubtful = [
            found for found in walk(spool, ("cur",)).values() if "uncertain" in found.statuses.values()
        ]
        lines = {found.name: found.kinds.count("committing") for found in doubtful}
        anew = [token_of(found.message) for found in doubtful if lines[found.name] > self._known[found.name]]
        self._known |= Counter(lines)
        self.most_at_once = max(self.most_at_once, len(anew))
        self.doubts.update(anew)


def token_of(message: bytes) -> str:
    """Return a message's token, or that of the one that a bounce has the header of."""
    found = _TOKEN.search(message)
    assert found, message[:500]
    return found[1].decode()


def violations(books: Books, deaths: Deaths, arrivals: list[Arrival]) -> Iterator[str]:
    """Everything that must not be, a sentence each."""
    mail = [arrival for arrival in arrivals if arrival.sender]
    bounces = [arrival for arrival in arrivals if not arrival.sender]
    yield from _of_mail(books, deaths, mail)
    yield from _of_bounces(books, deaths, bounces)


def _of_mail(books: Books, deaths: Deaths, arrivals: list[Arrival]) -> Iterator[str]:
    copies: Counter[tuple[str, str]] = Counter()
    for arrival in arrivals:
        submission = books.submitted[token_of(arrival.message)]
        copies.update((submission.token, recipient) for recipient in arrival.recipients)
        # Our Received field is on top; what was submitted follows byte for byte.
        if not arrival.message.endswith(submission.message):
            yield f"{submission.token} arrived with other bytes than were submitted"
        if set(arrival.recipients) - set(submission.recipients):
            yield f"{submission.token} went to {arrival.recipients}, and was for {submission.recipients}"
        if submission.token in books.refused:
            yield f"{submission.token} was refused, and delivered"
    for token in books.acknowledged:
        for recipient in books.submitted[token].recipients:
            if not copies[token, recipient]:
                yield f"{token} was acknowledged as {books.acknowledged[token]}, and {recipient} never got it"
    for (token, recipient), count in copies.items():
        if count > 1 + deaths.doubts[token]:
            yield f"{recipient} got {token} {count} times; it was in doubt at {deaths.doubts[token]} deaths"


def _of_bounces(books: Books, deaths: Deaths, arrivals: list[Arrival]) -> Iterator[str]:
    copies = Counter(token_of(arrival.message) for arrival in arrivals)
    for arrival in arrivals:
        submission = books.submitted[token_of(arrival.message)]
        about = [line for line in arrival.message.split(b"\r\n") if line.startswith(b"Final-Recipient: ")]
        if about != [f"Final-Recipient: utf-8; {submission.hopeless}".encode()]:
            yield f"{submission.token} has a bounce about {about}, not {submission.hopeless or 'anybody'}"
    for token in books.acknowledged:
        if books.submitted[token].hopeless and not copies[token]:
            yield f"{token} was acknowledged as {books.acknowledged[token]}, and its sender got no bounce"
    for token, count in copies.items():
        if count > 1 + deaths.doubts[token]:
            yield f"the sender of {token} got {count} bounces; in doubt at {deaths.doubts[token]} deaths"
