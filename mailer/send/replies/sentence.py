"""Find the meanings of a reply's words: the things it names, what it says of them, and where."""

from collections import defaultdict
from functools import cache, cached_property

from mailer.send.replies.lexicon import ABSENCES, NEGATIONS, STATES, THINGS

_AFTER, _BEFORE = 7, 4
"""The most words between a thing and a state that follows it, and between a state and a thing after it."""
_REACH = 3
"""Words after a negation that it applies to: `does not seem to exist`."""
_NEGATIONS, _ABSENCES = frozenset(NEGATIONS.split()), frozenset(ABSENCES.split())
_LONGEST = max(entry.count("?") for text in (THINGS | STATES).values() for entry in text.split()) + 1
"""The most words of an entry of the lexicon."""

Place = tuple[int, int]
"""Index of the first word, and index after the last."""
Entries = dict[str, set[str]]
"""Maps words to the things or states that they mean."""


class Sentence:
    """The words of a reply (`words.plain`) and their meanings, which are looked up on first use."""

    def __init__(self, words: str) -> None:
        self.words = words

    def said(self, things: str, states: str = "") -> str:
        """Return the words that name one of the things and say one of the states of it; empty: none.

        Args:
            things: names of `lexicon.THINGS`, separated by a comma and a blank.
            states: names of `lexicon.STATES`, likewise; empty: naming the thing is enough.
        """
        for thing in things.split(", "):
            for place in self._meanings.get(thing, ()):
                if not states:
                    return self._between(*place)
                if said := self._said_of(place, states):
                    return said
        return ""

    def _said_of(self, thing: Place, states: str) -> str:
        start, end = thing
        for state in states.split(", "):
            for first, last in self._meanings.get(state, ()):
                if first - end <= _AFTER and start - last <= _BEFORE:
                    return self._between(min(start, first), max(end, last))
        return ""

    def _between(self, start: int, end: int) -> str:
        return " ".join(self._tokens[start:end])

    @cached_property
    def _tokens(self) -> list[str]:
        return self.words.split()

    @cached_property
    def _meanings(self) -> dict[str, list[Place]]:
        """The things and states in the sentence, each with its places."""
        found = defaultdict(list)
        place = negated = 0
        while place < len(self._tokens):
            token = self._tokens[place]
            size, meanings = self._longest(place)
            if place < negated:
                meanings = meanings | _look_up(_entries()[1], token)
            for meaning in meanings:
                found[meaning].append((place, place + size))
            if place and self._tokens[place - 1] in _ABSENCES and not meanings.isdisjoint(THINGS):
                found["unknown"].append((place - 1, place))
            if token in _NEGATIONS:
                negated = place + 1 + _REACH
            place += size
        return found

    def _longest(self, place: int) -> tuple[int, set[str]]:
        """Return the number of words of the longest entry that begins at a place, and its meanings."""
        for size in range(min(_LONGEST, len(self._tokens) - place), 0, -1):
            if meanings := _look_up(_entries()[0], " ".join(self._tokens[place : place + size])):
                return size, meanings
        return 1, set()


@cache
def _entries() -> tuple[Entries, Entries]:
    """Return the lexicon's entries, and those that only count after a negation."""
    plain: Entries = defaultdict(set)
    negated: Entries = defaultdict(set)
    for meaning, text in (THINGS | STATES).items():
        words = iter(text.split())
        for word in words:
            if word == "not":
                negated[next(words)].add(meaning)
            else:
                plain[word.replace("?", " ")].add(meaning)
    return plain, negated


def _look_up(entries: Entries, words: str) -> set[str]:
    """Return the meanings of words; an entry that ends in `*` matches any ending of the last word."""
    if words in entries:
        return entries[words]
    for length in range(len(words), words.rfind(" ") + 3, -1):
        if (stem := f"{words[:length]}*") in entries:
            return entries[stem]
    return set()
