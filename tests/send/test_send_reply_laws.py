"""Laws about refusals, for any sequence of replies from a provider, through whole runs.

1. A mail bounces only when the provider refused it clearly, or twice. What it says of us, whatever its code,
   is no refusal of a mail.
2. Whatever a provider says to everybody, nothing bounces; and when it says yes again, all that waited is sent
   within the documented pause.

`MAILER_REPLY_EXAMPLES=1000 pytest tests/send/test_send_reply_laws.py` tries that many instead of a few.
"""

import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from outbound.hostile import Server, Session
from outbound.reply_corpus import BOUNCES, CORPUS, NEVER_THE_MAILS, phase_of, reading_of, reply_of
from outbound.runs import HOUR, Cron
from outbound.sending import forward_to
from outbound.unrelated_mail import PAUSE, bounced, strangers

from mailer.mail.reply import Reply
from mailer.send.phase import Phase
from mailer.send.replies.reader import read
from mailer.send.replies.reading import About

pytestmark = pytest.mark.exhaustive

EXAMPLES = int(os.environ.get("MAILER_REPLY_EXAMPLES", "8"))
few = settings(
    max_examples=EXAMPLES,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
STEPS = ("mail", "rcpt", "data", "dot")
CLEAR = BOUNCES | {About.DESTINATION}

# As they are read rightly: how often they are is another test's. In one line, hence no hyphen after the code:
# a client would wait for the next line.
REAL = [
    (f"{entry['text'][:3]} {entry['text'][4:]}".replace("\n", " "), About(entry["about"]))
    for entry in CORPUS
    if "also" not in entry and phase_of(entry) in set(STEPS) and reading_of(entry).about == entry["about"]
]


@st.composite
def refusals(draw: st.DrawFn) -> tuple[str, str]:
    """A step, and what it is answered with: real words, or any."""
    step = draw(st.sampled_from(STEPS))
    if draw(st.booleans()):
        text = draw(st.sampled_from(REAL))[0]
    else:
        words = draw(st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=40))
        text = f"{draw(st.sampled_from([421, 450, 451, 452, 550, 551, 552, 553, 554, 571]))} {words}"
    return step, text


def about(step: str, text: str) -> About:
    """What a refusal is about, as it is sent: in one line."""
    return read(Phase(step), Reply(int(text[:3]), (text[4:],))).about


class Whim:
    """Answers each transaction by the next of a list, or well; and remembers what it said to whom."""

    def __init__(self, answers: list[tuple[str, str] | None]) -> None:
        self.answers = answers
        self.begun = 0
        self.now: tuple[str, str] | None = None
        self.sender = b""
        self.said: Counter[tuple[bytes, str]] = Counter()

    def script(self) -> dict[str, object]:
        return {"mail": self._mail, **{step: self._at(step) for step in STEPS[1:]}}

    def _mail(self, session: Session, line: bytes) -> str | None:
        self.sender = line
        self.now = self.answers[self.begun % len(self.answers)]
        self.begun += 1
        return self._answer("mail")

    def _at(self, step: str) -> object:
        return lambda _session, _line: self._answer(step)

    def _answer(self, step: str) -> str | None:
        if self.now is None or self.now[0] != step:
            return None
        text = self.now[1]
        if text.startswith("5"):
            meant = about(step, text)
            kind = "clear" if meant in CLEAR else "ours" if meant in NEVER_THE_MAILS else "unclear"
            self.said[self.sender.split(b"<")[1].split(b">")[0], kind] += 1
        return text


@few
@given(st.lists(st.none() | refusals(), min_size=1, max_size=6))
def test_a_mail_bounces_only_when_it_was_refused_clearly_or_twice(
    answers: list[tuple[str, str] | None],
) -> None:
    whim = Whim(answers)
    alone = {"concurrency": 1, "maxSessionsPerHop": 1}
    with tempfile.TemporaryDirectory() as directory, Server(whim.script(), extensions=()) as server:
        cron = Cron(Path(directory), forward_to(server, sending=alone))
        strangers(cron, 3)
        cron.run()
        cron.run_for(HOUR)
        note(f"{whim.said}")
        for message in cron.found().values():
            if "bounced" in message.statuses.values():
                sender = message.sender.encode()
                assert whim.said[sender, "clear"] or whim.said[sender, "unclear"] >= 2


@few
@given(refusal=refusals(), mails=st.integers(2, 5), one_sender=st.booleans())
def test_what_everybody_is_told_bounces_nothing_and_all_is_sent_when_it_ends(
    refusal: tuple[str, str], mails: int, *, one_sender: bool
) -> None:
    step, text = refusal
    if about(step, text) in CLEAR or reply_of(text).positive:
        step, text = "rcpt", "550 no"
    with tempfile.TemporaryDirectory() as directory, Server({step: text}) as server:
        cron = Cron(Path(directory), forward_to(server))
        if one_sender:
            for number in range(mails + 1):
                cron.queue("app@example.com", [f"bob@{number}.example.net"])
        else:
            strangers(cron, mails)
        waiting = len(cron.found())
        cron.run()
        cron.run_for(3 * HOUR)
        assert bounced(cron) == []
        assert len(cron.statuses()) == waiting
        server.script.clear()
        cron.run_for(PAUSE)
        assert cron.found() == {}
        assert len(server.delivered()) == waiting
