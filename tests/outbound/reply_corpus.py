"""The corpus of real replies, and how the product reads them."""

import json
from pathlib import Path

from mailer.mail.reply import Reply
from mailer.send.phase import Phase
from mailer.send.replies.reader import read
from mailer.send.replies.reading import About

CORPUS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "replies.jsonl").read_text("utf-8").splitlines()
]


_PHASES = {"connect": Phase.BANNER, "body": Phase.DOT}


NEVER_THE_MAILS = {About.ACCOUNT, About.QUOTA, About.SESSION, About.HOST}
"""A whole queue would meet the same."""


BOUNCES = {About.RECIPIENT, About.MESSAGE}
"""A permanent refusal that is read so is final."""


def phase_of(entry) -> Phase:
    return _PHASES.get(entry["phase"]) or Phase(entry["phase"])


def reply_of(text: str) -> Reply:
    lines = text.split("\n")
    return Reply(int(lines[0][:3]), tuple(line[4:] for line in lines))


def reading_of(entry):
    return read(phase_of(entry), reply_of(entry["text"]))
