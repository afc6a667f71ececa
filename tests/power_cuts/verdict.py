"""What a power cut did to mail, judged from outside: what was promised before it, what arrived, what is left.

It shares no line with `mailer.spool`, so that a mistake there cannot hide itself here.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spools import walk as spool_walk

from power_cuts.books import Event
from power_cuts.image import Cut
from power_cuts.story import Finding, Story, short

_EMPTY = {"new", "cur", "retry"}
_LOOKED_INTO = (*spool_walk.QUEUE, "tmp", "sent")


@dataclass(frozen=True)
class Left:
    """A file of the spool after the drain."""

    path: str
    place: str
    name: str
    links: int
    to: tuple[str, ...]
    lines: str
    """Its journal's events and their recipients."""


@dataclass(frozen=True)
class Run:
    """A run of `mailer-send --once` that ended; `status` is None if it did not."""

    status: int | None
    output: str


@dataclass
class Aftermath:
    """What was seen of one cut once the programs had drained the spool."""

    cut: Cut
    promised: Sequence[Event]
    """All events of the recording, also those after the cut."""
    drained: Sequence[Event]
    """What happened while the programs drained the spool."""
    runs: Sequence[Run]
    left: Sequence[Left]
    maildir: Counter[tuple[str, str]] | None = None
    """Copies by token and recipient; None where mail does not go there."""
    archived: bool = False
    """Delivered mail is to be in `sent/`."""
    rationed: str = "nowhere"
    """The domain of which an allowance may keep mail waiting."""


def look(spool: Path) -> list[Left]:
    """Every file of the queue, of `tmp/` and of `sent/`.

    A name in `state/` is not counted as one of a message: on a filesystem without a journal it may be that of
    a replaced state file, whose inode the message uses now; the next change of that state replaces the name.
    """
    found = []
    state = Counter(path.lstat().st_ino for path in (spool / "state").iterdir())
    for place in _LOOKED_INTO:
        for directory, _, names in os.walk(spool / place):
            for path in (Path(directory, name) for name in sorted(names)):
                message = spool_walk.read(path, spool)
                lines = "; ".join(f"{e['event']} {e.get('to', '')}" for e in message.events)
                where, status = str(path.relative_to(spool)), path.lstat()
                links = status.st_nlink - state[status.st_ino]
                found.append(Left(where, place, path.name, links, message.recipients, lines))
    return found


class Judge:
    """Goes through one aftermath."""

    def __init__(self, aftermath: Aftermath) -> None:
        self._all = aftermath
        self._story = Story(aftermath.cut, aftermath.promised, aftermath.drained)

    def findings(self) -> list[Finding]:
        return [
            *self._of_runs(),
            *self._of_files(),
            *self._of_promises(),
            *self._of_copies("delivered"),
            *self._of_copies("told"),
            *self._of_the_told(),
            *self._of_strangers(),
        ]

    def _of_runs(self) -> Iterator[Finding]:
        last = self._all.runs[-1]
        if last.status is None:
            yield Finding("run does not end", f"mailer-send --once was still at work: {last.output[-2000:]}")
        elif last.status:
            yield Finding("run fails", f"mailer-send --once ended with {last.status}: {last.output[-2000:]}")
        elif "skipped" in last.output:
            yield Finding("skipped", f"mailer-send --once printed: {last.output[-2000:]}")

    def _of_files(self) -> Iterator[Finding]:
        named = {event.what: event for event in self._story.accepted}
        for name in dict.fromkeys(file.name for file in self._all.left):
            files, mail = [file for file in self._all.left if file.name == name], named.get(name)
            if kind := self._wrong(files, mail):
                where = ", ".join(f"{file.path} ({file.links} links)" for file in files)
                yield Finding(kind, f"left at {where}. {self._story.of(mail)} Its journal: {files[0].lines}")

    def _wrong(self, files: Sequence[Left], mail: Event | None) -> str:
        """Say what is wrong with the files of one name; nothing: nothing is."""
        places = {file.place for file in files}
        if len(files) > 1 or any(file.links > 1 for file in files):
            return "two names"
        if "corrupt" in places:
            return "corrupt"
        # What nobody was told of may lie in `tmp/` until it is a day old.
        if places & _EMPTY and not self._waits(files[0].to):
            return "stuck"
        # That it left `tmp/` is durable within a second; by then it may have been delivered, and be gone.
        if "tmp" in places and mail and mail.at < self._story.at - self._story.allowed:
            return "stuck"
        if "hold" in places and (not mail or self._story.orders[mail.token] not in {"hold", "either"}):
            return "held by nobody"
        return ""

    def _waits(self, recipients: Sequence[str]) -> bool:
        """A message to these may wait for its destination's allowance."""
        return all(to.endswith(self._all.rationed) for to in recipients)

    def _of_promises(self) -> Iterator[Finding]:
        places = {file.name: file.place for file in self._all.left}
        for mail in self._story.accepted:
            order = self._story.orders[mail.token]
            place = places.get(mail.what, "nowhere")
            if order == "hold" and place != "hold":
                yield Finding("hold undone", f"it lies {place}. {self._story.of(mail)}")
            elif order == "rm" and place != "nowhere":
                yield Finding("rm undone", f"it lies {place}. {self._story.of(mail)}")
            elif not order and not self._waits(mail.to):
                yield from self._of_one(mail, place)
                if self._all.archived and place not in {"sent", "failed"}:
                    yield Finding("not archived", f"it lies {place}. {self._story.of(mail)}")

    def _of_one(self, mail: Event, place: str) -> Iterator[Finding]:
        lost = [to for to in mail.to if not self._copies(mail.token, to) + self._told(mail.token, to)]
        if lost:
            yield Finding(
                "lost", f"neither delivered to {short(lost)} nor bounced; {place}. {self._story.of(mail)}"
            )

    def _told(self, token: str, to: str) -> int:
        return len(self._story.times("told", token, to))

    def _of_copies(self, kind: str) -> Iterator[Finding]:
        """Nothing again that was delivered, or told, more than a second before the cut."""
        for mail in self._story.mail.values():
            wrong = [story for to in mail.to if (story := self._again(kind, mail.token, to))]
            if wrong:
                yield Finding(f"{kind} again", f"{short(wrong)}. {self._story.of(mail)}")

    def _again(self, kind: str, token: str, to: str) -> str:
        """Say what is wrong with the copies that a recipient got after the cut; nothing: nothing is."""
        before = [at for at in self._story.times(kind, token, to) if at < self._story.at]
        again = self._copies_after(kind, token, to)
        ordered = self._story.orders.get(token) in {"hold", "rm"} and not before
        late = self._story.is_late(kind, token, to)
        if again > 1 or (again and (late or ordered)):
            when = f"{self._story.at - before[0]:.3f} s before the cut" if before else "not before the cut"
            return f"{to} was {kind} {when}, and {again} times afterwards"
        return ""

    def _of_the_told(self) -> Iterator[Finding]:
        """Who was reported to the sender as failed gets nothing any more."""
        for mail in self._story.mail.values():
            told = {
                to for e in self._story.before if (e.kind, e.token) == ("told", mail.token) for to in e.to
            }
            wrong = [to for to in mail.to if to in told and self._copies_after("delivered", mail.token, to)]
            if wrong:
                yield Finding("delivered although told", f"{short(wrong)}. {self._story.of(mail)}")

    def _copies_after(self, kind: str, token: str, to: str) -> int:
        if kind == "delivered" and self._all.maildir is not None:
            return max(0, self._all.maildir[token, to] - 1)
        return sum(1 for e in self._all.drained if (e.kind, e.token) == (kind, token) and to in e.to)

    def _copies(self, token: str, to: str) -> int:
        """How often a recipient has got a message, before the cut and after."""
        if self._all.maildir is not None:
            return self._all.maildir[token, to]
        return len(self._story.times("delivered", token, to))

    def _of_strangers(self) -> Iterator[Finding]:
        for event in (e for e in self._all.drained if e.kind in {"delivered", "told"}):
            mail = self._story.mail.get(event.token)
            if not mail or set(event.to) - set(mail.to):
                yield Finding("stranger", f"{event.kind} {event.token} to {event.to}")
