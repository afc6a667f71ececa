"""`mailer spool why` and `trace`: a message's story, and what was said in sessions that failed."""

import sys
import time
from functools import partial
from typing import Any

import click
import msgspec

from mailer.cli.arguments import MessageId
from mailer.cli.exits import Exit, Failure
from mailer.cli.neighbours import all_spools, first_that_knows
from mailer.cli.options import config_option, examples, json_option
from mailer.cli.outlook import outlook
from mailer.cli.output import json_line
from mailer.cli.program import system_words
from mailer.cli.setup import CommandContext, command_context
from mailer.cli.spool import records
from mailer.cli.spool.selection import ambiguous
from mailer.mail import clock
from mailer.mail.reply import printable
from mailer.maillog import traces
from mailer.maillog.ledger import OpenDirectory
from mailer.maillog.traces import Trace
from mailer.monitor import message_story
from mailer.spool.directory import Spool
from mailer.spool.layout import TRACES
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
    spool: what was said in the sessions that failed, see mailer spool trace]; with several hosts (mailer
    hosts), also host, in whose spool the message is, or was.
    """
    with command_context() as context, all_spools(context) as hosts:
        now = time.time()
        host, told = first_that_knows(
            hosts,
            lambda each: (
                each.host,
                story_of(each.spool, message_id, outlook(context.config, each.spool, now)),
            ),
            lambda answer: answer[1].seen is not None,
        )
    if as_json:
        sys.stdout.write(json_line(record(told) | ({"host": host} if host else {})))
        return
    where = [f"In the spool of host {host}."] if host else []
    sys.stdout.writelines(f"{line}\n" for line in (told.title, *where, *told.verdict))
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


class _IdOrFile(MessageId):
    """A message id, or the name of a trace's file, with or without its directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401 - click's signature
        name = str(value).rpartition("/")[2]
        return name if name.endswith(traces.SUFFIX) else super().convert(value, param, ctx)


@click.command(
    epilog=examples(
        "mailer spool trace",
        "mailer spool trace 01JD0M3Q",
        "mailer spool trace 20261122T214503.023Z-smtp.example.com.txt",
    )
)
@click.argument("what", metavar="[ID|FILE]", required=False, type=_IdOrFile(delivered=True))
@json_option
@config_option
def trace(what: str | None, *, as_json: bool) -> None:
    """Print what was said in sessions with a next hop that failed: a message's, or that of one file.

    Without an argument, list all traces, the newest last. Each is a file in traces/ of the spool: the replies
    of the server and the commands of mailer, with the seconds since the connect. Passwords, tokens and the
    message itself are left out. For ten minutes one trace stands for all failures at the same next hop with
    the same words, so that of a message may be from a session of other mail. The newest 250 are kept, no
    longer than logRetention.

    JSON has path, at, hop, message (null if the session could not be opened), failures [{phase, reply}], and
    text with an argument. A message or a file of another host (mailer hosts) is found, too; the list is of
    this host.
    """
    texts: list[str] = []
    with command_context() as context, all_spools(context) as hosts:
        try:
            if what is None:
                found = traces.traces(partial(context.spool.directory, TRACES))
            else:
                found, texts = first_that_knows(
                    hosts, lambda each: _texts(context, each.spool, what), lambda answer: bool(answer[0])
                )
        except OSError as error:
            raise Failure(Exit.NO_INPUT, system_words(error)) from error
    if as_json:
        for position, one in enumerate(found):
            sys.stdout.write(json_line(_record(one) | ({"text": texts[position]} if what else {})))
    elif what is None:
        sys.stdout.writelines(f"{one.name}  {_reason(one)}\n" for one in found)
    else:
        lines = "\n".join(texts).split("\n")[:-1]
        sys.stdout.writelines(f"{printable(line, 4000)}\n" for line in lines)


def _texts(context: CommandContext, spool: Spool, what: str) -> tuple[list[Trace], list[str]]:
    """Return the traces of a message, or the one of a file; raises Failure if there is none."""
    directory: OpenDirectory = partial(spool.directory, TRACES)
    found = _chosen(context, spool, directory, what)
    return found, [traces.text(directory, one.name) for one in found]


def _chosen(context: CommandContext, spool: Spool, directory: OpenDirectory, what: str) -> list[Trace]:
    if what.endswith(traces.SUFFIX):
        found = [one for one in traces.traces(directory) if one.name == what]
        if not found:
            raise Failure(
                Exit.NO_INPUT, f"{printable(what, 100)}: no such trace; list all: mailer spool trace"
            )
        return found
    story = story_of(spool, what, outlook(context.config, spool, time.time()))
    if not story.traces:
        raise Failure(
            Exit.NO_INPUT,
            f"{story.id}: no trace of a failed session is kept; what happened: mailer spool why {story.id}",
        )
    return list(story.traces)


def _record(one: Trace) -> records.Record:
    return {
        "path": one.path,
        "at": clock.rfc3339(one.at),
        "hop": one.hop,
        "message": one.message or None,
        "failures": [{"phase": phase, "reply": reply} for phase, reply in one.failures],
    }


def _reason(one: Trace) -> str:
    phase, reply = one.failures[0] if one.failures else ("", "")
    return printable(f"{phase}: {reply}", 200)
