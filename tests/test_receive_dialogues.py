"""Every dialogue in `tests/dialogues/`, over TCP; `dialogue.py` says how they are written."""

from pathlib import Path

import pytest
from dialogue import check_after, play, read, unescape
from receiving import running

DIALOGUES = sorted((Path(__file__).parent / "dialogues").glob("*.txt"))
SMUGGLING = [path for path in DIALOGUES if path.name.startswith("smuggling")]


@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: path.stem)
def test_the_dialogue_goes_as_written(path, tmp_path):
    dialogue = read(path)
    with running(tmp_path, dialogue.settings) as receiver:
        play(dialogue, receiver)
        receiver.stop(5)
        check_after(dialogue, receiver)


@pytest.mark.parametrize("path", SMUGGLING, ids=lambda path: path.stem)
def test_a_smuggled_message_is_none_wherever_the_bytes_are_split(path, tmp_path):
    """Case 28: each sequence in two writes, cut at every byte."""
    dialogue = read(path)
    longest = max(len(unescape(text)) for word, text in dialogue.steps if word == "C-")
    with running(tmp_path, dialogue.settings) as receiver:
        for split in range(1, longest):
            play(dialogue, receiver, split=split)
        receiver.stop(5)
        assert receiver.messages() == []
        assert receiver.leftovers() == []
