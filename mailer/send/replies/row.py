"""One row of the table, and the small language of its words.

Each line of a row's `words` is a phrase, matched against whole words of `words.plain`: ` ~ ` stands for up to
six words between, `*` for the rest of a word; `( | )` and `?` are as in regular expressions, and a line that
ends in `|` goes on. What a phrase can do takes linear time: gaps are bounded, and nothing is repeated
within a repetition.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from mailer.send.replies.reading import About

OPENING = frozenset({"connect", "banner", "ehlo", "starttls", "tls", "auth"})
"""The phases in which no mail has been mentioned yet, so that no reply can be about one."""
AUTH = frozenset({"auth"})
SENDER = frozenset({"mail"})
RECIPIENT = frozenset({"rcpt"})
CONTENT = frozenset({"data", "body", "dot"})
UNKNOWN = frozenset({""})
MAIL = SENDER | RECIPIENT | CONTENT
"""The phases of a transaction."""


_OF_A_MAIL = frozenset({About.RECIPIENT, About.MESSAGE, About.SENDER, About.DESTINATION, About.TRANSACTION})


@dataclass(frozen=True)
class Row:
    """What is said in some way is about something. All conditions that are given must hold."""

    about: About
    words: str = ""
    unless: str = ""
    """Phrases that the reply must not have."""
    beside: str = ""
    """Phrases one of which it must have as well."""
    codes: str = ""
    """A regular expression for the reply's code."""
    enhanced: str = ""
    """One for the enhanced code without its class, such as `1.1`: the classes of both codes may differ."""
    bare: bool = False
    """Only without an enhanced code."""
    phases: frozenset[str] = frozenset()
    """Empty: any that the row can be about, also if it is not known."""
    here: bool = False
    pause: float = 0.0
    reason: str = ""
    source: str = ""

    def evidence(self, phase: str, code: str, enhanced: str, words: str) -> str:
        """Return what in a reply fulfils the row; empty if it is not fulfilled."""
        if not self._fits(phase, code, enhanced):
            return ""
        evidence = f"code {enhanced}" if self.enhanced and enhanced else f"code {code}"
        if self.words:
            found = self._words.search(words)
            if found is None or (self.beside and not self._beside.search(words)):
                return ""
            evidence = f'words "{found.group().strip()}"'
        return "" if self.unless and self._unless.search(words) else evidence

    def _fits(self, phase: str, code: str, enhanced: str) -> bool:
        """Tell whether phase and codes are as the row wants them."""
        return (
            (phase in self.phases if self.phases else phase not in OPENING or self.about not in _OF_A_MAIL)
            and (not self.codes or self._codes.fullmatch(code) is not None)
            and not (self.bare and enhanced)
            and (not self.enhanced or self._enhanced.fullmatch(enhanced[2:]) is not None)
        )

    # Compiled when first needed: most runs meet few refusals, and the table has many patterns.
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
    """Compile phrases, one a line."""
    joined = re.sub(r"\|\s*\n\s*", "|", text)
    lines = "|".join(line for each in joined.splitlines() if (line := each.strip()))
    pattern = lines.replace("*", r"\S*").replace(" ~ ", r" (?:\S+ ){0,6}")
    return re.compile(f" (?:{pattern}) ")
