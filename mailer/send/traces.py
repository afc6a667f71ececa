"""Decide which failed sessions leave a trace in `traces/`, and write it (`maillog.traces`).

A queue of 100,000 messages to a server that is down must not write 100,000 traces, so failures that are alike
share one for a while. A session that fails costs some microseconds then, and one that succeeds costs nothing.
"""

from collections.abc import Sequence
from functools import partial

from mailer.mail.clock import Clock
from mailer.mail.reply import printable
from mailer.maillog.events import MailLog
from mailer.send import defects
from mailer.send.smtp.conversation import Conversation
from mailer.spool.directory import Spool
from mailer.spool.layout import TRACES

INTERVAL = 600.0
"""Seconds for which one trace stands for all failures like it."""
PER_HOP = 8
"""Different failures of one hop within `INTERVAL` that are traced; some servers have new words each time."""
PER_MINUTE = 30
"""Traces that a run writes in a minute: most mail of a run may go to different servers."""
FREE = 64 * 2**20
"""Octets that must be free on the disk: the last ones belong to the mail."""
_MAX_LINE = 500
"""Characters of a line; the last one must fit beside the first ones."""
_MAX_HOPS = 1000
"""Hops to remember; beyond that, all are forgotten."""


class Traces:
    """The traces that a run writes."""

    def __init__(self, spool: Spool, log: MailLog, clock: Clock) -> None:
        """Prepare; reads and writes nothing yet.

        Args:
            spool: the traces are written to its `traces/`.
            log: receives defects.
            clock: returns the wall-clock time.
        """
        self._spool = spool
        self._directory = partial(spool.directory, TRACES)
        self._log = log
        self._clock = clock
        self._known: dict[str, dict[str, float]] | None = None
        """For each hop, the words of its failures, and when they were traced; None: not read yet."""
        self._minute = 0
        self._written = 0
        """The minute of the last trace, and the number of traces in it."""

    def keep(self, conversation: Conversation, failures: Sequence[tuple[str, str]], message_id: str) -> None:
        """Write a trace of a session that failed, unless another one stands for it; never raises.

        Args:
            conversation: what was said.
            failures: the phase and the text of each failure, as the journal will have it.
            message_id: the message that was sent; empty if the session could not be opened.
        """
        try:
            self._keep(conversation, tuple(dict.fromkeys(failures)), message_id)
        except OSError:
            return  # A lost trace changes nothing; the journal's own write reports the disk.
        except Exception as error:  # noqa: BLE001 - some recipients may have got the mail, which comes next
            defects.report(self._log, message_id, error)

    def _keep(
        self, conversation: Conversation, failures: tuple[tuple[str, str], ...], message_id: str
    ) -> None:
        from mailer.maillog import traces  # noqa: PLC0415 - only for a session that failed

        now, hop = self._clock(), conversation.hop
        if self._known is None:
            self._known = {}
            for trace in traces.traces(self._directory, now - INTERVAL):
                for _, text in trace.failures:
                    self._known.setdefault(trace.hop, {})[traces.likeness(trace.hop, text)[1]] = trace.at
        words = {traces.likeness(hop, text)[1] for _, text in failures[: traces.MOST_FAILURES]}
        if not self._may_write(hop, words, now):
            return
        free = self._spool.free_space()
        if free.is_under(FREE) or free.lacks_inodes:
            return
        lines = [printable(f"{at:9.3f}  {line}", _MAX_LINE) for at, line in conversation.lines()]
        trace = traces.Trace(now, hop, failures[: traces.MOST_FAILURES], message_id)
        self._spool.make_directory(TRACES)
        traces.write(self._directory, trace, lines)

    def _may_write(self, hop: str, words: set[str], now: float) -> bool:
        """Tell whether a failure is to be traced, and if so remember it, even if it cannot be written."""
        assert self._known is not None
        known = {word: at for word, at in self._known.get(hop, {}).items() if 0 <= now - at < INTERVAL}
        if words <= known.keys() or len(known) >= PER_HOP:
            return False
        if self._minute != (minute := int(now // 60)):
            self._minute, self._written = minute, 0
        if self._written >= PER_MINUTE:
            return False
        self._written += 1
        if len(self._known) >= _MAX_HOPS:
            self._known.clear()
        self._known[hop] = known | dict.fromkeys(words, now)
        return True
