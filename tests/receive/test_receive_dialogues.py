"""Every dialogue in `tests/dialogues/`, over TCP and over TLS; `dialogue.py` says how they are written."""

import re
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from inbound.dialogue import Dialogue, check_after, play, read, unescape
from inbound.receiving import PASSWORD, USER, certificate, login, running
from msgspec import structs

from mailer.mail.patterns import AddressPatterns
from mailer.receive.settings import Endpoint
from mailer.receive.users.accounts import single_login
from mailer.receive.users.rates import Rate, RateLimiter, RateRules

DIALOGUES = sorted((Path(__file__).parents[1] / "dialogues").glob("*.txt"))
SMUGGLING = [path for path in DIALOGUES if path.name.startswith("smuggling")]
# In TLS a client that closes its sending side has closed the connection; and what is said before or about
# STARTTLS cannot be said.
IN_CLEAR_ONLY = {"tls", "garbage", "half-close"}
# The server closes while megabytes are on their way, and a reset takes the last reply with it.
RESET_IN_TLS = {"02-a-line-without-end"}


IN_TLS = [
    path
    for path in DIALOGUES
    if "starttls" not in path.stem
    and path.stem not in RESET_IN_TLS
    and not IN_CLEAR_ONLY.intersection(word for word, _ in read(path).steps)
]


_NUMBER = re.compile(r"(?:smuggling-)?(\d+)-")


def cases(paths: Sequence[Path]) -> list[ParameterSet]:
    """The dialogues with the security case that a name begins with, for `-k security_case`."""
    numbers = {path: _NUMBER.match(path.stem) for path in paths}
    return [
        pytest.param(path, id=path.stem, marks=[pytest.mark.security_case(int(number[1]))] if number else [])
        for path, number in numbers.items()
    ]


@contextmanager
def prepared(dialogue: Dialogue, directory: Path, *, tls: bool = False):
    """Run the receiver that a dialogue needs."""
    setup = dialogue.setup
    settings, authenticator = setup.settings, None
    if settings.require_auth:
        account = single_login(USER, PASSWORD)
        if setup.senders:
            patterns = AddressPatterns.of(setup.senders)
            account = structs.replace(account, identity=replace(account.identity, may_send_as=patterns))
        authenticator = login(account, cram_md5={USER: PASSWORD} if setup.cram_md5 else None)
    if tls:
        settings = replace(settings, endpoints=(Endpoint(port=0, tls=True),))
    with running(
        directory,
        settings,
        authenticator,
        certificate=certificate(directory) if tls or setup.certificate else None,
        rates=RateLimiter(RateRules(Rate(per_hour=setup.per_hour)), time.time) if setup.per_hour else None,
    ) as receiver:
        yield receiver


@pytest.mark.parametrize("path", cases(DIALOGUES))
def test_the_dialogue_goes_as_written(path, tmp_path):
    dialogue = read(path)
    with prepared(dialogue, tmp_path) as receiver:
        play(dialogue, receiver)
        receiver.stop(5)
        check_after(dialogue, receiver)


@pytest.mark.parametrize("path", IN_TLS, ids=lambda path: path.stem)
def test_the_dialogue_goes_as_written_in_tls(path, tmp_path):
    dialogue = read(path)
    with prepared(dialogue, tmp_path, tls=True) as receiver:
        play(dialogue, receiver, tls=receiver.trust)
        receiver.stop(5)
        check_after(dialogue, receiver)


@pytest.mark.security_case(28)
@pytest.mark.parametrize("path", cases(SMUGGLING))
def test_a_smuggled_message_is_none_wherever_the_bytes_are_split(path, tmp_path):
    """Case 28: each sequence in two writes, cut at every byte."""
    dialogue = read(path)
    longest = max(len(unescape(text)) for word, text in dialogue.steps if word == "C-")
    with prepared(dialogue, tmp_path) as receiver:
        for split in range(1, longest):
            play(dialogue, receiver, split=split)
        receiver.stop(5)
        assert receiver.messages() == []
        assert receiver.leftovers() == []
