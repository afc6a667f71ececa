"""What a power cut left in a spool, before any program has run on it: what is lost, or would come again.

The judge in `verdict` sees what the programs make of an image, and takes a hundred times as long. This one
compares the files with what clients and destinations had seen before the cut.

It shares no line with `mailer.spool`, so that a mistake there cannot hide itself here.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from spools import walk as spool_walk
from spools.walk import GIVEN_UP, Found

from power_cuts.books import Event, failed_in, token_of
from power_cuts.story import Finding, Story
from power_cuts.world import kept

_SENT_FROM = ("cur", "new", "retry")
_LIVE = (*_SENT_FROM, "hold", "failed", "corrupt")
"""In this order: where a message has two names, a run works with the first."""
_ID = 26
_OPEN = {"pending", "deferred", "uncertain"}


@dataclass(frozen=True)
class Content:
    """What a file says.

    Attributes:
        id: the message's.
        token: the message's; of a bounce that of the mail that it is about; empty if it is not legible.
        statuses: what became of each recipient.
        notified: those of whom the journal says that the sender is told.
        digest: of all of it.
    """

    found: Found
    id: str
    token: str
    statuses: dict[str, str]
    notified: set[object]
    digest: str

    @property
    def is_open(self) -> bool:
        return bool(set(self.statuses.values()) & _OPEN)


@lru_cache(8192)
def _content(raw: bytes, path: str) -> Content:
    """Read a file; images of one recording have most of theirs in common."""
    found = spool_walk.parse(raw, path)
    try:
        token = token_of(found.message)
    except ValueError:
        token = ""
    notified = {to for e in found.events if e["event"] == "notified" for to in e.get("to", ())}  # type: ignore[attr-defined]
    _, _, written = raw.partition(b"Spool-Id: ")
    return Content(
        found,
        written[:_ID].decode("ascii", "replace"),
        token,
        found.statuses,
        notified,
        sha256(raw).hexdigest(),
    )


@dataclass(frozen=True)
class Left:
    """A file of the spool before any program has run."""

    path: str
    inode: int
    links: int
    content: Content

    @property
    def found(self) -> Found:
        return self.content.found

    @property
    def is_of_another(self) -> bool:
        """Whether the name is not that of the file: its own was deleted just now.

        On a filesystem without a journal the name may still be there, and the inode be that of a new file.
        What programs make of it is seen where they are started. The name may also be that of a new bucket,
        whose inode was a file before: no message stands there, and `fsck` names it.
        """
        if self.found.place == "retry" and not self.found.bucket:
            return True
        is_own = self.content.id == self.found.name
        return not is_own and (self.links > 1 or self.found.intact)

    @property
    def is_sent_from_here(self) -> bool:
        """Whether a run looks at it, sends it to those who are open, and tells its sender of the others."""
        return self.found.place in _SENT_FROM

    def open_to(self, to: str) -> bool:
        return self.content.statuses.get(to) in _OPEN

    def is_to_tell_of(self, to: str) -> bool:
        return self.content.statuses.get(to) in GIVEN_UP and to not in self.content.notified


@dataclass
class Standing:
    """What a walk has found.

    Attributes:
        findings: promises that are broken, whatever the programs do next.
        shape: a digest of all names, places and messages; those of one shape leave programs the same work.
    """

    findings: list[Finding]
    shape: str


@dataclass
class Spool:
    """Every file of a spool that says something of mail."""

    root: Path
    local: bool
    """Delivered mail is in its Maildir."""
    live: list[Left] = field(default_factory=list)
    sent: list[Left] = field(default_factory=list)
    tmp: list[Left] = field(default_factory=list)

    def __post_init__(self) -> None:
        for place in (*_LIVE, "sent", "tmp"):
            files = {"sent": self.sent, "tmp": self.tmp}.get(place, self.live)
            files += [self._look(path) for path in self.files(place)]
        self.drops = [path.read_bytes() for path in self.files("drop") if not path.name.startswith(".")]
        self.copies = Counter(kept(self.root / "local")) if self.local else Counter[tuple[str, str]]()

    def files(self, place: str) -> list[Path]:
        return sorted(path for path in (self.root / place).rglob("*") if path.is_file())

    def lines(self, place: str) -> Iterator[dict[str, Any]]:
        """Every JSON object that is a line of a file there."""
        for line in (line for path in self.files(place) for line in path.read_bytes().splitlines()):
            try:
                yield dict(json.loads(line))
            except ValueError:
                continue

    def _look(self, path: Path) -> Left:
        where, status = str(path.relative_to(self.root)), path.lstat()
        return Left(where, status.st_ino, status.st_nlink, _content(path.read_bytes(), where))

    @property
    def shape(self) -> str:
        every = [*self.live, *self.sent, *self.tmp]
        seen = [(file.path, file.links, file.content.digest) for file in every]
        names = [str(path) for place in ("drop", "once", "local") for path in self.files(place)]
        return sha256(repr((sorted(seen), names)).encode()).hexdigest()


class Walk:
    """Goes through the spool of one image."""

    def __init__(self, spool: Spool, story: Story, *, archived: bool) -> None:
        """
        Args:
            spool: as the power cut left it.
            story: what was promised and done before the cut.
            archived: delivered mail is to be in `sent/`.
        """
        self._spool = spool
        self._archived = archived
        self._story = story
        self._named = defaultdict[str, list[Left]](list)
        self._mail = defaultdict[str, list[Left]](list)
        """Mail by token, and what is to be sent of it is in the first file."""
        self._reports = defaultdict[str, list[Left]](list)
        for file in spool.live:
            if file.is_of_another:
                continue
            if not self._named[file.found.name]:
                (self._mail if file.found.sender else self._reports)[file.content.token].append(file)
            self._named[file.found.name].append(file)

    def standing(self) -> Standing:
        findings = [
            *self._of_files(),
            *(finding for mail in self._story.accepted for finding in self._of_mail(mail)),
            *(finding for token in list(self._reports) for finding in self._of_reports(token)),
        ]
        return Standing(findings, self._spool.shape)

    def _of_files(self) -> Iterator[Finding]:
        for name, files in self._named.items():
            first = files[0]
            where = f"{', '.join(file.path for file in files)}: {first.found.kinds}"
            if len({file.inode for file in files}) > 1:
                yield Finding("two files", where)
            if not all(file.found.intact for file in files):
                yield Finding("corrupt", where)
                continue
            mail = self._story.mail.get(first.content.token)
            if not mail or (first.found.sender and set(first.found.recipients) - set(mail.to)):
                yield Finding(
                    "stranger", f"{name} is about {first.content.token}, to {first.found.recipients}"
                )
            elif first.found.place == "hold" and self._story.orders.get(mail.token, "") not in {
                "hold",
                "either",
            }:
                yield Finding("held by nobody", f"{where}. {self._story.of(mail)}")

    def _of_mail(self, mail: Event) -> Iterator[Finding]:
        """Everything that was acknowledged before the cut."""
        files, life = self._mail.get(mail.token, []), self._story.of(mail)
        if len(files) > 1:
            yield Finding("queued twice", f"{[file.path for file in files]}. {life}")
        match self._story.orders[mail.token]:
            case "either":
                return
            case "rm":
                if files:
                    yield Finding("rm undone", f"it is {files[0].path}. {life}")
                return
            case "hold":
                if not files or not files[0].found.held:
                    yield Finding("hold undone", f"it is {[file.path for file in files]}. {life}")
                    return
        file = next((file for file in files if file.found.intact), None)
        for kind, wrong in (
            ("lost", self._lost(mail, file)),
            ("delivered again", self._again(mail, file)),
            ("told again", self._told_again(mail, file)),
            ("delivered although told", self._although_told(mail, file)),
        ):
            if wrong:
                where = f"{file.path}, {file.found.kinds}" if file else "nowhere"
                yield Finding(kind, f"to {wrong}; it is {where}. {life}")
        if (
            self._archived
            and not file
            and not any(each.content.token == mail.token for each in self._spool.sent)
        ):
            yield Finding("not archived", life)

    def _lost(self, mail: Event, file: Left | None) -> list[str]:
        """Name those who have not got it, and will not."""
        if not file and any(f"Subject: {mail.token}".encode() in drop for drop in self._spool.drops):
            return []
        return [
            to
            for to in mail.to
            if not self._has(mail.token, to)
            and not self._story.times("told", mail.token, to)
            and not (file and self._cared_for(file, to))
            and to not in self._being_told(mail.token)
        ]

    def _cared_for(self, file: Left, to: str) -> bool:
        """Whether programs will send it, or see that it was given up and nobody was told."""
        if file.found.place == "hold":
            return file.open_to(to)
        return file.is_sent_from_here and (file.open_to(to) or file.is_to_tell_of(to))

    def _being_told(self, token: str) -> set[str]:
        """Those whose failure is reported by a message that is to be sent, or is to be put into `new/`."""
        named = {event.get("notice") for file in self._mail.get(token, []) for event in file.found.events}
        waiting = [
            file for file in self._spool.tmp if file.found.name in named and file.content.token == token
        ]
        reports = [*self._reports.get(token, []), *waiting]
        return {
            name
            for report in reports
            if report.found.intact and report.content.is_open
            for name in failed_in(report.found.message)
        }

    def _again(self, mail: Event, file: Left | None) -> list[str]:
        """Name those who would get a second copy of what they had more than a second before the cut."""
        twice = [to for to in mail.to if self._spool.copies[mail.token, to] > 1]
        if not file or not file.is_sent_from_here:
            return twice
        open_to = filter(file.open_to, mail.to)
        return [*twice, *(to for to in open_to if self._story.is_late("delivered", mail.token, to))]

    def _told_again(self, mail: Event, file: Left | None) -> list[str]:
        if not file or not file.is_sent_from_here:
            return []
        again = filter(file.is_to_tell_of, mail.to)
        return [to for to in again if self._story.is_late("told", mail.token, to)]

    def _although_told(self, mail: Event, file: Left | None) -> list[str]:
        if not file or not file.is_sent_from_here:
            return []
        return [to for to in filter(file.open_to, mail.to) if self._story.times("told", mail.token, to)]

    def _of_reports(self, token: str) -> Iterator[Finding]:
        """A bounce that its sender has got for a while is not in the spool any more, or it is recorded."""
        for report in self._reports[token]:
            names = failed_in(report.found.message)
            late = [to for to in names if self._story.is_late("told", token, to)]
            if late and report.is_sent_from_here and report.content.is_open:
                yield Finding("told again", f"of {late}, by {report.path}: {report.found.kinds}")

    def _has(self, token: str, to: str) -> bool:
        if self._spool.local:
            return self._spool.copies[token, to] > 0
        return bool(self._story.times("delivered", token, to))
