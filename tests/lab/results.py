"""The page of results: what was run, with date, commit and command."""

# ruff: noqa: E501, ISC004 - the rows of a table are one line each

import json
import subprocess
import time
from pathlib import Path

from call_faults.rows import ROWS
from seeded_defects.__main__ import PAGE as DEFECTS_PAGE
from seeded_defects.__main__ import ROOT
from seeded_defects.catalogue import DEFECTS

PAGE = Path(__file__).with_name("RESULTS.md")
TOTALS = ROOT / ".testbed" / "lab" / "totals.json"
DEFECTS_FILE = ROOT / ".testbed" / "lab" / "defects.tsv"
VERSION = 4
"""Of the simulator: goes up when its model, its stories or its judge change, so that its figures are run anew."""

_HEAD = """# The fault lab: what was run

`scripts/lab --results` writes this page; `tests/house/test_lab.py` fails when the simulator is another version than the one
that was run, or when a seeded defect was added or changed since. `README.md` beside it says what the simulator is,
and what it does not show.

**The promise**: what was acknowledged was delivered to each recipient, or bounced with one notification, or stands in
the spool; nobody gets a message twice, except where its file says that the reply was lost, or in the last second before
a power cut; what a client was refused is not delivered; the queue drains when faults stop; no file is stuck. What was
submitted under one key, or left in `drop/`, is queued once, as its user's. What the operator was told is done (removed,
held, paused, suppressed) stays so. No hop is sent more recipients in any minute or hour than it allows, nor gets more
sessions at a time. Nothing is given up that nobody has refused, whatever the clock says, and nothing is tried before its
pause is over while the clock is right. `fsck` finds nothing where nothing is wrong. A refresh token that was stored is there. Who is to be told of events hears of each at least
once. What another user puts into the spool is never sent, and a copy by hand takes no message's place. A message that moves to
another spool is in one of the two, and does not come back to the first once the command has said that it moved. A
message that is sent again under one request is queued once.

| lab | faults | figures | command |
| --- | --- | --- | --- |
"""
_LIMITS = """
## Limits of the method

- A simulated disk shows what its rules admit. The rules are those of `disk.py`: sectors of a file, its size and
  directory entries in any order that a kind of filesystem allows. Real controllers lie in other ways.
- "Crash points" counts system calls times the faults tried there. Points whose disk, logs and kind of fault are the
  same are tried once; the second figure counts those on which programs were started and run to the end.
- The receiver's SMTP, sockets, TLS and DNS, DKIM, budgets of domains and warm-ups are not in these stories; other tests
  have them.
- Each row says by which version of the simulator the defect was looked for; a seed is a story of that version.
- A defect that was not run is not in the table, and one that was not caught had the time that its row says; 40 worlds of
  each story are tried then, by chance. What is seen first need not be the defect's own harm.
- Where the disk has refused to write a message's journal and the power fails after that, a second delivery is not counted
  as a failure: no program can make that record durable. Nor is it after a runner died within a second of a delivery, and
  the power failed before its successor had recorded anything.
- `mailer spool hold` of mail that failed, ended by a fault between its line and its move, leaves that mail where it was,
  or under both names, until the operator gives the command again: no run looks into `failed/` and `hold/`. The operator
  of these stories does so once programs have run, and then one name is left.
- Both spools of a move are on one disk. A power cut of one of them is one of this disk that spares the other directory; on
  a filesystem with a journal a sync in one spool then makes what is older in the other durable, too.
- A recipient whose reply was lost, and whose address is suppressed after that, stays in doubt until the message is older
  than `retry.maxAge`: it is not sent to, nor reported as refused. That is not counted as a queue that does not drain.
- Of a power cut that leaves a hole in a journal (ext4 without one, ext2), a second notification about one recipient is
  not counted as a failure: the line `notified` may be on the disk without the line `bounced` before it.
"""


NOT_BROKEN = {
    "failed-sync-forgotten": "no program syncs one claim twice: after a failure it gives the message back. The check is for "
    "callers to come; `failed-sync-tried-again` is the same where two syncs of one journal do happen",
    "no-look-after-the-lock": "a message that was moved or removed is still found gone by its path. Another inode under the "
    "same path takes a hand that puts a copy there between an open and its lock",
    "sent-is-not-final": "no program writes a line about a recipient that it has read as sent. The rule is for journals that "
    "a hand or another version has written",
}
"""Seeded defects that break no promise on any disk that is admitted here, and why."""


def commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _defect_rows() -> list[str]:
    """Return the row of each defect: that of its last run here, or else the one that the page has."""
    rows = {line.split(" | ")[0][2:]: line for line in PAGE.read_text().splitlines() if line.startswith("| ")}
    digests = {defect.name: defect.digest for defect in DEFECTS}
    if DEFECTS_FILE.exists():
        for line in DEFECTS_FILE.read_text().splitlines():
            name, row = line.split("\t", 1)
            rows[name] = f"| {name} | {row} | {digests[name]} |"
    return [rows[defect.name] for defect in DEFECTS if defect.name in rows]


def page() -> str:
    """Return the page from the last runs; raises OSError when there were none."""
    totals = json.loads(TOTALS.read_text())
    rows = _defect_rows()
    caught = sum("not caught" not in row for row in rows)
    by_tests = [
        line for line in DEFECTS_PAGE.read_text().splitlines() if line.startswith("| ") and "/test_" in line
    ]
    figures = (
        f"{totals['points']:,.0f} crash points in {totals['stories']:,.0f} stories of {totals['calls']:,.0f} system "
        f"calls; {totals['worlds']:,.0f} differ; {totals['broken']} broken promises; {3600 * totals['points'] / totals['seconds']:,.0f} "
        f"points ({3600 * totals['worlds'] / totals['seconds']:,.0f} different ones) an hour of one processor"
    )
    lines = [
        f"| simulator, version {VERSION} | power cut and kill at every system call, and again in what follows; one program "
        "killed, also within a write; EIO, ENOSPC, EINTR, short reads and writes, a full disk, an aborted journal, damage; "
        f"races; files of others; a clock that jumps | {figures} | "
        "`scripts/lab --minutes M` |",
        f"| its power | {len(rows)} seeded defects of the spool, one at a time | {caught} caught; {len(NOT_BROKEN)} "
        "break no promise here | "
        "`scripts/lab --defects` |",
        f"| all tests' power | {len(DEFECTS)} seeded defects of all rooms | {len(by_tests)} caught | "
        "`scripts/defects`, see `tests/seeded_defects/RESULTS.md` |",
        "| power cuts on real filesystems | ext4 with and without a journal, XFS, btrfs: a loop device that logs writes "
        "and flushes | 600 images for each commit, up to 240 of them drained; more in `tests/fault_runs/RESULTS.md` | `scripts/faults power-cuts` |",
        f"| faults at system calls of real programs | kills, errors, short writes, delays, of {len(ROWS)} commands | each commit, in "
        "short; more there | `scripts/faults calls` |",
        "| fuzz | parsers and sessions, by coverage | each commit, in short; more there | `scripts/fuzz SECONDS` |",
    ]
    when = f"Simulator: run until {totals['date']}, on commit {totals['commit']}. Written {time.strftime('%Y-%m-%d')}."
    table = [
        "| defect | what the simulator saw first | seed | crash points until then | processor time | version | of |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        "Of these, some break no promise in any of these stories, so that nothing is to be seen:",
        "",
        *(f"- `{name}`: {why}." for name, why in NOT_BROKEN.items()),
    ]
    return (
        "\n".join([_HEAD + "\n".join(lines), "", when, "", "## Seeded defects", "", *table]) + "\n" + _LIMITS
    )
