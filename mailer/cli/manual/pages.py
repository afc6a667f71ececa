"""Generate the four manual pages: mailer(1), mailer-send(1), mailer-sendmail(8) and mailer.config(5)."""

import inspect
import re
from collections.abc import Iterator
from textwrap import dedent

import click

from mailer import __version__
from mailer.cli.guide import guides
from mailer.cli.main import cli
from mailer.cli.manual import roff
from mailer.cli.send import send
from mailer.sendmail.usage import HELP

_ENDS = {
    "0": "all is well",
    "1": "something was found that should be looked at",
    "2": "wrong usage",
    "65": "the state of the message does not allow it",
    "66": "no such message",
    "69": "a server that is needed does not answer",
    "70": "a defect in mailer",
    "73": "a file cannot be created",
    "75": "not now: try again later",
    "77": "not permitted",
    "78": "the configuration cannot be used",
}
_SEE_ALSO = ("mailer(1)", "mailer-send(1)", "mailer.config(5)", "mailer-sendmail(8)")


def pages() -> dict[str, str]:
    """Return each page's text by its file name, such as `mailer.1`."""
    return {
        "mailer.1": _mailer(),
        "mailer-send.1": _send(),
        "mailer-sendmail.8": _sendmail(),
        "mailer.config.5": _config(),
    }


def _mailer() -> str:
    context = click.Context(cli, info_name="mailer", **cli.context_settings)
    commands = "".join(
        _described(command, inner) for command, inner in _visible(context) if command is not cli
    )
    return "".join(
        (
            roff.heading("mailer", 1, "durable SMTP submission relay for one host", __version__),
            roff.chapter("Synopsis"),
            roff.paragraph("mailer COMMAND [OPTION]... [ARGUMENT]..."),
            roff.chapter("Description"),
            _help(cli),
            _examples(cli),
            roff.chapter("Commands"),
            commands,
            _exit_status(),
            _files(),
            _see_also("mailer(1)"),
        )
    )


def _send() -> str:
    context = click.Context(send, info_name="mailer-send")
    return "".join(
        (
            roff.heading("mailer-send", 1, "deliver what is in the spool of mailer", __version__),
            roff.chapter("Synopsis"),
            roff.paragraph("mailer-send [OPTION]..."),
            roff.chapter("Description"),
            _help(send),
            roff.chapter("Options"),
            _options(send, context),
            _examples(send),
            _exit_status(),
            _files(),
            _see_also("mailer-send(1)"),
        )
    )


def _sendmail() -> str:
    usage, *paragraphs = HELP.strip("\n").split("\n\n")
    body = []
    for each in paragraphs:
        lines = each.split("\n")
        options = [re.match(r"  (-\S.*?|\S+, \S+) {2,}(\S.*)", line) for line in lines]
        if all(options):
            body += [roff.chapter("Options"), *(roff.item(m[1], roff.escape(m[2])) for m in options if m)]
        elif lines[0].endswith(":"):
            body += [
                roff.chapter(lines[0].removesuffix(":")),
                roff.literal(dedent("\n".join(lines[1:])).split("\n")),
            ]
        else:
            body.append(roff.paragraph("\n".join(lines)))
    return "".join(
        (
            roff.heading("mailer-sendmail", 8, "hand a message to mailer as sendmail does", __version__),
            roff.chapter("Synopsis"),
            roff.literal(line.removeprefix("Usage: ").strip() for line in usage.split("\n")),
            roff.chapter("Description"),
            *body,
            _see_also("mailer-sendmail(8)"),
        )
    )


def _config() -> str:
    [guide] = [each for each in guides("en") if each.topic == "configuration"]
    _, _, body = guide.text.partition("\n\n")
    return "".join(
        (
            roff.heading("mailer.config", 5, "configuration of mailer", __version__),
            roff.chapter("Description"),
            roff.of_markdown(body),
            _files(),
            _see_also("mailer.config(5)"),
        )
    )


def _visible(context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield a command and all its subcommands that help lists, with their contexts, in the order of help."""
    command = context.command
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _visible(click.Context(inner, info_name=name, parent=context))


def _described(command: click.Command, context: click.Context) -> str:
    title = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    return roff.part(title) + _help(command) + _options(command, context) + _examples(command)


def _help(command: click.Command) -> str:
    text = inspect.cleandoc(command.help or "")
    return "".join(roff.paragraph(each) for each in text.split("\n\n") if each)


def _options(command: click.Command, context: click.Context) -> str:
    records = (option.get_help_record(context) for option in command.get_params(context))
    return "".join(roff.item(term, roff.escape(said)) for term, said in filter(None, records))


def _examples(command: click.Command) -> str:
    lines = (command.epilog or "").removeprefix("\b\n").split("\n")
    if lines[0] != "Examples:":
        return ""
    return roff.paragraph("Examples:") + roff.literal(line.strip() for line in lines[1:])


def _exit_status() -> str:
    rows = (roff.item(code, roff.escape(meaning)) for code, meaning in _ENDS.items())
    return roff.chapter("Exit status") + roff.paragraph("As in sysexits.h:") + "".join(rows)


def _files() -> str:
    places = {
        "/etc/mailer/config.json": "the configuration, where --config and $MAILER_CONFIG name no other",
        "/var/spool/mailer": "the spool, where spoolDir names no other; its README.md explains every file",
    }
    return roff.chapter("Files") + "".join(
        roff.item(path, roff.escape(said)) for path, said in places.items()
    )


def _see_also(own: str) -> str:
    others = ", ".join(page for page in _SEE_ALSO if page != own)
    return roff.chapter("See also") + roff.paragraph(f"{others}, and the guides of `mailer guide`.")
