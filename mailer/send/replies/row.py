"""One row of the table, and the pattern language of its phrases.

A row requires phrases (`words`), a thing and a state in any words of the lexicon (`thing`, `state`), or codes
alone. Each line of `words` is a phrase, matched against whole words of `words.plain`: ` ~ ` matches up to six
words in between, `*` the rest of a word; `( | )` and `?` are as in regular expressions, and a line that ends
in `|` is continued. Matching takes linear time: gaps are bounded, and there are no nested repetitions.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from mailer.send.replies.reading import About
from mailer.send.replies.sentence import Sentence

OPENING = frozenset({"connect", "banner", "ehlo", "starttls", "tls", "auth"})
"""The phases before MAIL, in which no reply can be about a message."""
AUTH = frozenset({"auth"})
SENDER = frozenset({"mail"})
RECIPIENT = frozenset({"rcpt"})
CONTENT = frozenset({"data", "body", "dot"})
DATA = frozenset({"data"})
UNKNOWN = frozenset({""})
MAIL = SENDER | RECIPIENT | CONTENT
"""The phases of a transaction."""


_OF_A_MAIL = frozenset({About.RECIPIENT, About.MESSAGE, About.SENDER, About.DESTINATION, About.TRANSACTION})


@dataclass(frozen=True)
class Row:
    """Replies that match all given conditions are about `about`."""

    about: About
    words: str = ""
    """Phrases, at least one of which the reply must have; empty: no condition."""
    unless: str = ""
    """Phrases that the reply must not have."""
    beside: str = ""
    """Phrases, at least one of which it must have in addition to one of `words`."""
    codes: str = ""
    """A regular expression for the reply's code."""
    enhanced: str = ""
    """A regular expression for the enhanced code without its class, which is unreliable, such as `1.1`."""
    bare: bool = False
    """Match only replies without an enhanced code."""
    thing: str = ""
    """Things of the lexicon, separated by a comma: the reply must name one of them."""
    state: str = ""
    """States of the lexicon, likewise: it must say one of them of that thing; empty: naming it is enough."""
    without: str = ""
    """Things of the lexicon that it must not name."""
    phases: frozenset[str] = frozenset()
    """The phases to match; empty: all that are possible for `about`, and an unknown one."""
    here: bool = False
    pause: float = 0.0
    reason: str = ""
    source: str = ""

    def evidence(self, phase: str, code: str, enhanced: str, sentence: Sentence) -> str:
        """Return the part of a reply by which the row matches; empty: it does not match."""
        if not self._fits(phase, code, enhanced):
            return ""
        found = self._said(sentence)
        if not found and (self.words or self.thing):
            return ""
        if self.without and sentence.said(self.without):
            return ""
        if self.unless and self._unless.search(sentence.words):
            return ""
        if found:
            return f'words "{found}"'
        return f"code {enhanced}" if self.enhanced and enhanced else f"code {code}"

    def _said(self, sentence: Sentence) -> str:
        """Return the words that match a phrase, or a thing and its state; empty: there are none."""
        if self.thing:
            return sentence.said(self.thing, self.state)
        found = self._words.search(sentence.words) if self.words else None
        if found is None or (self.beside and not self._beside.search(sentence.words)):
            return ""
        return found.group().strip()

    def _fits(self, phase: str, code: str, enhanced: str) -> bool:
        """Tell whether phase and codes match the row."""
        return (
            (phase in self.phases if self.phases else phase not in OPENING or self.about not in _OF_A_MAIL)
            and (not self.thing or code >= "400")  # Text without a code is our own or the system's.
            and (not self.codes or self._codes.fullmatch(code) is not None)
            and not (self.bare and enhanced)
            and (not self.enhanced or self._enhanced.fullmatch(enhanced[2:]) is not None)
        )

    # Compiled on first use: most runs meet few refusals, and the table has many patterns.
    @cached_property
    def _words(self) -> re.Pattern[str]:
        return phrases(self.words)

    @cached_property
    def _unless(self) -> re.Pattern[str]:
        return phrases(self.unless)

    @cached_property
    def _beside(self) -> re.Pattern[str]:
        return phrases(self.beside)

    @cached_property
    def _codes(self) -> re.Pattern[str]:
        return re.compile(self.codes, re.ASCII)

    @cached_property
    def _enhanced(self) -> re.Pattern[str]:
        return re.compile(self.enhanced, re.ASCII)


def phrases(text: str) -> re.Pattern[str]:
    """Compile phrases, one a line, to one regular expression."""
    joined = re.sub(r"\|\s*\n\s*", "|", text)
    lines = "|".join(line for each in joined.splitlines() if (line := each.strip()))
    pattern = lines.replace("*", r"\S*").replace(" ~ ", r" (?:\S+ ){0,6}")
    return re.compile(f" (?:{pattern}) ")
