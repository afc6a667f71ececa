"""`mailer spool why`: explain what happened to a message, and what will happen."""

import sys
import time

import click
import msgspec

from mailer.cli.arguments import MessageId
from mailer.cli.exits import Exit, Failure
from mailer.cli.obstacles import outlook
from mailer.cli.options import config_option, examples, json_option
from mailer.cli.output import json_line
from mailer.cli.setup import command_context
from mailer.cli.spool import records
from mailer.cli.spool.selection import ambiguous
from mailer.monitor import message_story
from mailer.spool.layout import Spool
from mailer.spool.view import story
from mailer.spool.view.verdict import Outlook


@click.command(
    epilog=examples(
        "mailer spool why 01JD0M3Q",
        "mailer spool why 01JD0M3Q --json | jq -r .verdict[]",
    )
)
@click.argument("message_id", metavar="ID", type=MessageId(delivered=True))
@json_option
@config_option
def why(message_id: str, *, as_json: bool) -> None:
    """Tell a message's story: the verdict first, then everything that happened, in order.

    A recipient's status is pending: not tried yet; sent: the next hop took responsibility; deferred: will be
    tried again; bounced: refused permanently; expired: too old; or uncertain: the last reply was lost. If the
    message's file is gone, the story is taken from the ledger.

    JSON is one object: id, state (as in `ls`; null once the file is gone), verdict [sentences], events [{at,
    event, and if known to, hop, reply, attempt, next, tls, reason, by, notice, about}], traces [files in the
    spool: what was said in the sessions that failed, see mailer spool trace].
    """
    with command_context() as context:
        told = story_of(context.spool, message_id, outlook(context.config, context.spool, time.time()))
    if as_json:
        sys.stdout.write(json_line(record(told)))
        return
    sys.stdout.writelines(f"{line}\n" for line in (told.title, *told.verdict))
    sys.stdout.write("\n")
    sys.stdout.writelines(f"{story.tell(step)}\n" for step in story.chronicle(told.steps))


def story_of(spool: Spool, prefix: str, how: Outlook) -> message_story.Story:
    """Return the story of the one message whose id begins with a prefix; raises Failure if there is none."""
    try:
        return message_story.tell(spool, prefix, how)
    except message_story.Ambiguous as found:
        raise ambiguous(prefix, found.ids) from found
    except message_story.Unknown as unknown:
        raise Failure(Exit.NO_INPUT, str(unknown)) from unknown
    except message_story.Moving as moving:
        raise Failure(Exit.TEMPORARY, str(moving)) from moving


def record(told: message_story.Story) -> records.Record:
    """Describe a story with all known details."""
    return {
        "id": told.id,
        "state": told.seen.spot.place.value if told.seen else None,
        "verdict": told.verdict,
        "events": msgspec.to_builtins(told.steps),
        "traces": [trace.path for trace in told.traces],
    }
