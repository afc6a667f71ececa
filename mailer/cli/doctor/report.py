"""Print the findings of `mailer doctor`, as text or as JSON, with a progress line on a terminal."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from mailer.cli.exits import Exit
from mailer.cli.output import json_line, tell
from mailer.mail.finding import Finding, Grade
from mailer.mail.reply import printable
from mailer.send.checks.name_trouble import servers_in, todo

_WIDTH = max(map(len, Grade))
_CLEAR = "\r\x1b[K"
_COLUMNS = 79
_MIN_LOOKUPS = 2
"""The number of checks that must fail for lack of DNS answers to be reported as one problem of DNS."""
_ORDER = (Grade.PROBLEM, Grade.WARNING, Grade.UNKNOWN, Grade.OK, Grade.SKIPPED)


class Report:
    """Collects findings, and prints problems first and all that is ok in one line, or everything in order."""

    def __init__(self, *, as_json: bool, everything: bool = False) -> None:
        self._as_json = as_json
        self._at_once = as_json or everything
        self._kept: list[tuple[str, Finding]] = []
        self._progress = sys.stderr.isatty()
        self._shown = False
        self._counts: Counter[Grade] = Counter()

    def group(self, title: str, findings: Iterable[Finding]) -> None:
        """Add a group of findings, and print it now if everything is to be printed."""
        found = list(findings)
        if not found:
            return
        self._clear()
        self._counts.update(finding.grade for finding in found)
        if not self._at_once:
            self._kept += [(title, each) for each in found]
            return
        lines = [_json(title, each) if self._as_json else _text(each) for each in found]
        heading = "" if self._as_json else f"{printable(title)}\n"
        # Use `tell`, so that sessions with servers are ended properly even when the reader closes the pipe.
        tell(sys.stdout, heading + "".join(lines))

    def waiting_for(self, titles: Sequence[str]) -> None:
        """Show on a terminal which checks are still running."""
        if self._progress:
            line = f"... {', '.join(printable(title) for title in titles)}"
            sys.stderr.write(f"{_CLEAR}{line[:_COLUMNS]}")
            sys.stderr.flush()
            self._shown = True

    def end(self, *, strict: bool) -> Exit:
        """Print the counts, and return the exit code; with `strict` a warning counts as a problem."""
        self._clear()
        if not self._at_once:
            tell(sys.stdout, "".join(_summary(self._kept)))
        if not self._as_json:
            counted = (_counted(self._counts[grade], grade) for grade in _ORDER if self._counts[grade])
            tell(sys.stdout, f"{', '.join(counted)}\n")
        if self._counts[Grade.PROBLEM] or (strict and self._counts[Grade.WARNING]):
            return Exit.FINDINGS
        return Exit.TEMPORARY if self._counts[Grade.UNKNOWN] else Exit.OK

    def _clear(self) -> None:
        if self._shown:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
            self._shown = False


def _summary(kept: Sequence[tuple[str, Finding]]) -> Iterator[str]:
    """Yield the findings that are not ok, the worst first, and then the groups that are ok, in one line."""
    blamed = _silent_name_servers(kept)
    if blamed:
        yield _text(blamed)
    for grade in _ORDER[:3]:
        for _, finding in kept:
            if finding.grade is grade and not (blamed and servers_in(finding.found)):
                yield _text(finding)
    well = [(title, finding) for title, finding in kept if finding.grade is Grade.OK]
    yield from (_text(finding) for _, finding in well if finding.always_shown)
    fine = [title for title, finding in well if not finding.always_shown]
    if fine:
        yield f"  {Grade.OK:<{_WIDTH}} {len(fine)} checks: {', '.join(map(printable, dict.fromkeys(fine)))}"
        yield " (--all shows each)\n"


def _silent_name_servers(kept: Sequence[tuple[str, Finding]]) -> Finding | None:
    """Combine several failed DNS lookups into one finding about the name servers."""
    silent = [finding for _, finding in kept if servers_in(finding.found)]
    if len(silent) < _MIN_LOOKUPS:
        return None
    servers = servers_in(silent[0].found)
    found = f"gave no usable answer, and so {len(silent)} checks could not be made: {silent[0].found}"
    return Finding(servers, "dns", Grade.PROBLEM, found, todo(silent[0].found))


def _counted(number: int, grade: Grade) -> str:
    plural = "s" if number > 1 and grade in {Grade.PROBLEM, Grade.WARNING} else ""
    return f"{number} {grade}{plural}"


def _text(finding: Finding) -> str:
    found = f"{printable(finding.about)}: {printable(finding.found)}"
    text = f"  {finding.grade:<{_WIDTH}} {finding.what:<10} {found}\n"
    if finding.todo:
        text += f"  {'':<{_WIDTH}} {'':<10} to do: {printable(finding.todo)}\n"
    return text


def _json(title: str, finding: Finding) -> str:
    line = {
        "group": title,
        "what": finding.what,
        "about": finding.about,
        "grade": finding.grade.value,
        "found": finding.found,
        "todo": finding.todo,
    }
    return json_line(line)
