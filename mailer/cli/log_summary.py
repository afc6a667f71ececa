"""The summary after the lines of `mailer log`: the state of the last messages, and what to do first.

An operator who knows only a recipient types `mailer log --to ADDRESS`, and should need no other command.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice

from mailer.cli.our_refusals import ours
from mailer.cli.outlook import outlook
from mailer.config.model import Config
from mailer.mail import clock
from mailer.mail.reply import printable
from mailer.maillog.ledger import Line
from mailer.maillog.search import Query, find
from mailer.monitor import message_story
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.layout import LOG
from mailer.spool.scan import spots
from mailer.spool.view.inspect import look

_DEFAULT_PERIOD = 86_400.0
"""Seconds back from now to search for refused submissions when the query has no `--since`."""
_FRESH = 3600.0
"""Seconds; when the newest line found is younger, the operator has probably found the mail in question."""
_MAX_OPENED = 5000
"""The most queue files to open when the ledger has no matching line."""
_REFUSED = frozenset({"rejected", "limited", "login-failed"})
_MESSAGES = 3
"""The number of messages whose state is printed, the newest."""
_NEVER_CAME = (
    "next: no such mail was submitted to this relay in that time. To see what was: mailer log -n 20; to "
    "check that it can be reached: mailer doctor; else see in the application's own log where it sends"
)


class LogSummary:
    """Collects ledger lines as they are printed, then summarizes them for people."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._newest = ""
        self._redirected = False
        self._ids: dict[str, None] = {}
        """The ids of the last messages, the newest last."""
        self._refused: Line | None = None
        """The last line, if it reports a refused submission."""

    def note(self, line: Line) -> None:
        """Record a line that the search found."""
        self._newest = max(self._newest, line.at)
        self._redirected = self._redirected or bool(line.redirected)
        if line.event in _REFUSED:
            self._refused = line
        elif line.id:
            self._refused = None
            self._ids.pop(line.id, None)
            self._ids[line.id] = None
            if len(self._ids) > _MESSAGES:
                del self._ids[next(iter(self._ids))]

    def lines(self, config: Config, spools: Sequence[Spool]) -> list[str]:
        """Return the summary, as lines for people.

        Args:
            config: of this host.
            spools: those whose ledgers were searched.
        """
        told = [
            *self._stand(config, spools),
            *self._went_astray(config),
            *self._was_refused(),
            *self._unnamed(spools),
        ]
        if not told and not self._newest:
            told = [*self._not_in_the_ledger(config, spools)] or [_NEVER_CAME]
        return [printable(line, 4000) for line in told]

    def _stand(self, config: Config, spools: Sequence[Spool]) -> Iterator[str]:
        how = [(spool, outlook(config, spool, time.time())) for spool in spools]
        for message_id in self._ids:
            stories = list[message_story.Story]()
            for spool, each in how:
                with suppress(message_story.NoStory):
                    stories.append(message_story.tell(spool, message_id, each, self._asked))
                    if stories[-1].seen:
                        break
            # A message that was moved from one host to another is known on both.
            stories.sort(key=lambda story: story.seen is None)
            if stories:
                yield f"next: {message_id}: {' '.join(stories[0].gist)}"

    def _not_in_the_ledger(self, config: Config, spools: Sequence[Spool]) -> Iterator[str]:
        """Describe messages that are in the spool although the ledger has no line about them."""
        if not self._query.to:
            return
        waits = (look(spool, spot) for spool in spools for spot in islice(spots(spool), _MAX_OPENED))
        meant = (
            seen.id
            for seen in waits
            if seen and seen.entry and any(map(self._asked, seen.entry.state.by_address))
        )
        self._ids = dict.fromkeys(islice(meant, _MESSAGES))
        if self._ids:
            yield (
                "the log has no line about it: files in log/ of the spool were removed, or could not be "
                "written (`mailer doctor`); the message itself is there"
            )
            yield from self._stand(config, spools)

    def _asked(self, address: str) -> bool:
        return (self._query.to or "").lower() in address.lower()

    def _went_astray(self, config: Config) -> Iterator[str]:
        if self._redirected and (to := config.redirect_all_to):
            yield (
                f"next: all mail goes to {to} instead of its recipients (redirectAllTo), for staging: "
                "unless this is a staging system, remove that key, then: mailer reload; mail accepted until "
                f"then goes to {to} only, so have its application submit it again"
            )

    def _was_refused(self) -> Iterator[str]:
        if self._refused and (meant := ours(self._refused.reply or self._refused.reason)):
            yield f"next: refused by this relay: {meant.meaning}; {meant.todo}"

    def _unnamed(self, spools: Sequence[Spool]) -> Iterator[str]:
        """Count the submissions refused before they named a recipient, which no search for one can find.

        The period is the one searched, or the last day. If the search found lines, it begins at the newest.
        """
        now = time.time()
        since = self._query.since if self._query.since is not None else now - _DEFAULT_PERIOD
        events = _REFUSED
        if self._newest:
            found = clock.seconds(self._newest)
            if now - found < _FRESH:
                events = _REFUSED - {
                    "login-failed"
                }  # A failed login may be anybody's, and the mail in question has probably been found.
            since = max(since, found)
        asked = Query(events=events, since=since, until=self._query.until)
        lines = [
            line for spool in spools for line, _ in find(partial(spool.directory, LOG), asked) if not line.to
        ]
        if not lines:
            return
        lines.sort(key=lambda line: line.at)
        last = lines[-1]
        kinds = " ".join(f"--status {kind}" for kind in sorted({line.event for line in lines}))
        said = last.reply or "login failed"
        if meant := ours(said):
            yield f"next: perhaps one of those that were refused: {meant.meaning}; {meant.todo}"
        count = words.count(len(lines), "submission")
        when = words.moment_of(last.at)
        since_when = words.moment(since)
        yield (
            f"since {since_when} {count} ended before a recipient was named, the last at {when}: {said}. "
            f"See them: mailer log {kinds} --since '{since_when.removesuffix('Z')}'"
        )
