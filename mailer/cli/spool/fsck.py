"""`mailer spool fsck`: check the consistency of the spool."""

import sys
import time

import click

from mailer.cli.exits import Exit
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.setup import command_context
from mailer.cli.spool import records
from mailer.mail.reply import printable
from mailer.spool import words
from mailer.spool.checks.fsck import findings


@click.command(
    epilog=examples(
        "mailer spool fsck",
        "mailer spool fsck --json | jq -r .path",
    )
)
@json_of("path, problem")
@config_option
def fsck(*, as_json: bool) -> Exit:
    """Check the whole spool, every byte of every message, and change nothing.

    It looks for stray names, wrong modes and owners, unreadable messages, contents that differ from their
    digests, messages whose journal contradicts the directory they are in, and files with several links. The
    exit code is 1 when it finds something.
    """
    found = 0
    with command_context() as context:
        for finding in findings(context.spool, time.time()):
            found += 1
            if as_json:
                sys.stdout.write(records.encode({"path": finding.path, "problem": finding.problem}))
            else:
                sys.stdout.write(f"{printable(finding.path)}: {printable(finding.problem)}\n")
    sys.stderr.write(f"{words.count(found, 'finding')}\n")
    return Exit.FINDINGS if found else Exit.OK
