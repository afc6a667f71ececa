"""A limit or time that a guide, a README or `--help` states in prose is the constant of the program.

Keys and their defaults are in `test_keys.py`; the Chinese guides have the same numbers as the English ones.
Each number of a help text is in the list below, or of a kind that is listed, too.
"""

import dataclasses
import os
import re
import tomllib
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import click
import pytest

from mailer.cli import log, top, trial, up
from mailer.cli.doctor import network
from mailer.cli.exits import Exit
from mailer.cli.guide import guides
from mailer.cli.init import answers, writing
from mailer.cli.main import cli
from mailer.cli.receiving import shared_rates
from mailer.cli.send import send
from mailer.cli.sending import event_delivery
from mailer.cli.spool import ls
from mailer.config.hops import Api
from mailer.config.model import Config
from mailer.events import backlog, deliverer, receiver
from mailer.mail import header
from mailer.maillog import retention
from mailer.maillog import traces as trace_files
from mailer.monitor import admin, checks, context, hosts, queue, results
from mailer.oauth import source
from mailer.receive import admission, drop_limits, pickup, replies
from mailer.receive.content import data, idempotency, resent
from mailer.receive.users import failures, user_list
from mailer.send import outcome_lines, queue_scan, runner, skipped, traces
from mailer.send.dkim import verify
from mailer.send.dsn import report
from mailer.send.http.apis import LIMITS
from mailer.send.replies import quotas
from mailer.send.routes import alike, breaker, mx
from mailer.send.smtp import hop_sessions, places
from mailer.sendmail import drop, main, usage
from mailer.spool import key_retention
from mailer.spool.hosts import lease
from mailer.spool.layout import full_minute
from mailer.spool.run import claim
from mailer.spool.state import clock_guard, provider_state
from mailer.spool.view import waiting

_KIB, _MIB = 2**10, 2**20
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400

_ROOT = Path(__file__).parents[2]
_PYTHONS = [
    kind.rpartition(" ")[2]
    for kind in tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    if re.search(r"Python :: 3\.\d", kind)
]
_QUESTIONS = len(dataclasses.fields(answers.Answers))
_WAIT = next(str(option.default) for option in trial.test.params if option.name == "wait")

STATED = [
    ("applications", "it waits {} seconds for the receiver", main._RESTART),
    ("applications", "1 to {} printable ASCII characters", idempotency._MAX_KEY),
    ("applications", "Keys are kept for `idempotencyWindow` ({} day)", Config().idempotency_window / _DAY),
    ("applications", "Lines of more than {} octets", data.MAX_LINE),
    ("bounces", "includes the message (up to {} kB", report.LARGEST_COPY / 1000),
    ("budgets", "no connection becomes free for {} minute", places.PATIENCE / _MINUTE),
    ("configuration", "{} of them is reserved for this host", f"1/{admission._RESERVED}"),
    ("deployment", "within `sending.shutdownGrace` plus {} seconds", up._KILL_MARGIN),
    ("direct-delivery", "tries up to {} exchangers", mx.MAX_HOSTS),
    ("direct-delivery", "at {} addresses each", mx.MAX_ADDRESSES),
    ("direct-delivery", "for {} minutes at most", mx.PATIENCE / _MINUTE),
    ("dkim", "`dkim.signatureExpiry` {} days", Config().dkim.signature_expiry / _DAY),
    ("events", "a JSON array of at most {} events", backlog.BATCH),
    ("events", "answer 2xx, within {} seconds", receiver.WEBHOOK_TIMEOUT),
    ("events", "must exit with 0 within {} seconds", receiver.COMMAND_TIMEOUT),
    ("events", "and so on up to {} minutes", deliverer._MAX_PAUSE_LATER / _MINUTE),
    ("events", "a minute, and so on up to {} hour", deliverer.LONGEST / _HOUR),
    ("events", "After {} minutes `/health` is degraded", checks._EVENTS_LATE / _MINUTE),
    ("events", "An entry ends after {} days (`keepFor`", Config().suppress_unknown.keep_for / _DAY),
    ("microsoft365", "warns during the {} days before", checks._SECRET_ENDS_SOON / _DAY),
    ("monitoring", "none has been sent for {} hour", results.NOTHING_SENT / _HOUR),
    ("monitoring", "The same request again, within {} days", key_retention._DROP_KEPT / _DAY),
    ("monitoring", "`retry-failed` once in {} minutes", admin._PAUSE / _MINUTE),
    ("monitoring", "checks every {} seconds", context._EVERY),
    ("operating", "`Resent-To` (up to {} addresses)", resent._MAX_LISTED),
    ("operating", "A header of nearly {} KiB", header.MAX_HEADER / _KIB),
    ("operating", "counts them among {} messages each", waiting._FIRST),
    ("operating", "among the oldest {} of each", queue.SAMPLE),
    ("providers", "after {} failed connections", breaker.THRESHOLD),
    ("providers", "{} mails that have neither sender nor recipient domain in common", alike.UNCLEAR),
    ("providers", "{} such mails are needed", alike.CLEAR),
    ("providers", "When {} mails of one sender to different domains", alike.OF_ONE_SENDER),
    ("providers", "The pause is {} minute", breaker.PAUSE / _MINUTE),
    ("providers", "{} minutes or an hour", quotas.PAUSE / _MINUTE),
    ("providers", "doubles up to {} hour", provider_state.LONGEST / _HOUR),
    ("providers", "gets nothing for {} second", hop_sessions.SLOWDOWN_PAUSE),
    ("providers", "half as many sessions for {} minute", hop_sessions.SLOWDOWN_PERIOD / _MINUTE),
    ("providers", "Prometheus warn {} days before", checks._SECRET_ENDS_SOON / _DAY),
    ("providers", "renewed {} minutes before it expires", source.MARGIN / _MINUTE),
    ("providers", "(Microsoft: {} days without use)", source._UNUSED_LIFETIME / _DAY),
    ("providers", "{} MiB a message, 500 recipients", LIMITS[Api.GRAPH].largest / _MIB),
    ("providers", "500 recipients, {} requests at once", LIMITS[Api.GRAPH].sessions),
    ("providers", "{} MiB, 500 recipients", LIMITS[Api.GMAIL].largest / _MIB),
    ("providers", "{} MiB, 50 recipients", LIMITS[Api.SES].largest / _MIB),
    ("providers", "{} MiB, 1,000 recipients", LIMITS[Api.MAILGUN].largest / _MIB),
    ("providers", "3 MiB a message, {} recipients", LIMITS[Api.GRAPH].recipients),
    ("providers", "35 MiB, {} recipients", LIMITS[Api.GMAIL].recipients),
    ("providers", "40 MiB, {} recipients", LIMITS[Api.SES].recipients),
    ("providers", "25 MiB, {} recipients", LIMITS[Api.MAILGUN].recipients),
    ("providers", "to the second, for {} day at most", provider_state.LONGEST_ASKED / _DAY),
    ("README", "Applications submit to {}, port", str(Config().bind_address)),
    ("README", "127.0.0.1, port {}", Config().smtp_port),
    ("README", "Python {} or newer", _PYTHONS[0]),
    ("README", "newer (tested: {})", f"{_PYTHONS[0]} to {_PYTHONS[-1]}"),
    ("README", "asks {} questions", _QUESTIONS),
    ("routes", "A header of more than {} KiB is not searched", header.MAX_HEADER / _KIB),
    ("security", "is delayed by up to {} second", failures.MAX_DELAY),
    ("security", "fails {} times in ten minutes", failures.MAX_REMOTE_FAILURES),
    ("security", "fails thirty times in {} minutes", failures.WINDOW / _MINUTE),
    ("spool", "is deleted `logRetention` after its end ({} days", Config().log_retention / _DAY),
    ("spool", "days; at least {})", retention._AT_LEAST / _DAY),
    ("spool", "the file in `once/` is gone, {} days after", key_retention._DROP_KEPT / _DAY),
    ("spool", "From {} MiB on all repeated deferrals", outcome_lines.SOFT / _MIB),
    ("spool", "From {} MiB on, recipients", outcome_lines.HARD / _MIB),
    ("spool", "after {} from one address in a minute", failures._MAX_LINES),
    ("spool", "within {} minutes in all", clock_guard._EVEN / _MINUTE),
    ("spool", "is up to {} days later than the last reading", clock_guard._GAP / _DAY),
    ("spool", "with no gap of {} days", clock_guard._GAP / _DAY),
    ("spool", "(more than {} days: a week)", clock_guard._ABSENCE / _DAY),
    ("spool", "or after {} week", clock_guard._SET / (7 * _DAY)),
    ("spool", "The receiver looks every {} seconds", pickup._SCAN_INTERVAL),
    ("spool", "after {} drops of one user in a row", pickup._MAX_WAITS),
    ("spool", "leaves {} MiB and 1,000 inodes free", drop._MIN_FREE / _MIB),
    ("spool", "16 MiB and {} inodes free", drop._MIN_INODES),
    ("spool", "At most {} files of one user are looked at", pickup._MAX_BATCH),
    ("spool", "at most {} drops of one user are refused in an hour", drop_limits._MAX_REFUSALS),
    ("spool", "in `new/` first (for {} s at most)", queue_scan._SUSPECTS_AFTER),
    ("spool", "{} runners died while they had it claimed", claim.SUSPECT_AFTER),
    ("spool", "{} runners died while it was their only message", claim.POISON_AFTER),
    ("spool", "`--watch` after {} minute, later", skipped._FIRST_PAUSE / _MINUTE),
    ("spool", "a minute, later after {} hour", skipped._MAX_PAUSE / _HOUR),
    ("spool", "reply as the journal has it, at most {}.", trace_files.MOST_FAILURES),
    ("spool", "(without ids and addresses) for {} minutes", traces.INTERVAL / _MINUTE),
    ("spool", "There are at most {} of one next hop", traces.PER_HOP),
    ("spool", "a run writes at most {} in a minute", traces.PER_MINUTE),
    ("spool", "The newest {} are kept", trace_files.MOST),
    ("spool", "each of at most {} KiB", trace_files.LARGEST / _KIB),
    ("spool", "so all take at most {} MiB", -(-trace_files.MOST * trace_files.LARGEST // _MIB)),
    ("spool", "None is written while less than {} MiB", traces.FREE / _MIB),
    ("troubleshooting", "with the same words within {} minutes", traces.INTERVAL / _MINUTE),
    ("troubleshooting", "takes {} minute at most", network.LONGEST / _MINUTE),
    ("mailer", "asks {} questions", _QUESTIONS),
    ("mailer dkim verify", "{} of them, from the top", verify.MAX_SIGNATURES),
    ("mailer events", "with --watch, within {} second or two", event_delivery._POLL_INTERVAL),
    ("mailer init", "{} as root", answers._ROOTS_PORT),
    ("mailer init", "else {}.", str(answers._USERS_PORT)),
    ("mailer init", "asks {} questions", _QUESTIONS),
    ("mailer init", "{} (STARTTLS, the default)", answers._SUBMISSION),
    ("mailer init", "or {} (TLS from the first byte)", writing._IMPLICIT_TLS),
    ("mailer log", "begins with the last {} lines", log._FOLLOWED_LINES),
    ("mailer monitor", "`ssh -L {} HOST`", "{0}:localhost:{0}".format(Config().health_check_port)),
    ("mailer resume", "`mailer-send --watch` continues within {} second", runner.PAUSE_POLL),
    ("mailer hosts", "every {} seconds", lease.RENEW_EVERY),
    ("mailer hosts adopt", "by themselves within {} seconds", lease.LEASE + lease.MARGIN),
    ("mailer hosts drain", "within {} seconds", lease.RENEW_EVERY),
    ("mailer hosts drain", "on this host, with {}", replies.DRAINING.code),
    ("mailer hosts drain", "is {}.", HTTPStatus.SERVICE_UNAVAILABLE.value),
    ("several-hosts", "waits for {} seconds", lease.LEASE + lease.MARGIN),
    ("several-hosts", "every five seconds, and each look is good for {}", lease.LEASE),
    ("several-hosts", "the others accept in {} seconds", shared_rates.LOOK_EVERY),
    ("several-hosts", "silent for {} minutes", hosts.SILENT / _MINUTE),
    ("spool", "good for {} seconds from the beginning", lease.LEASE),
    ("spool", "then waits {} seconds", lease.LEASE + lease.MARGIN),
    ("mailer spool ls", "in a list of more than {} the rest", ls._MAX_SORTED),
    ("mailer spool replay", "Resent-To (up to {} addresses)", resent._MAX_LISTED),
    ("mailer spool replay", "as long as is accepted, {} KiB", header.MAX_HEADER / _KIB),
    ("mailer spool trace", "For {} minutes one trace", traces.INTERVAL / _MINUTE),
    ("mailer spool trace", "The newest {} are kept", trace_files.MOST),
    ("mailer spool trust-clock", "notices this command within {} minute", full_minute(1.0) / _MINUTE),
    ("mailer test", "How long to wait for a runner; {}.", _WAIT),
    ("mailer top", "at least {}s.", str(top._MIN_INTERVAL)),
    ("mailer user", "applies a change within {} second", user_list._CHECK_EVERY),
    ("mailer user allow", "applies the change within {} second", user_list._CHECK_EVERY),
]
"""Where it stands, the words, and the number that belongs into them.

A guide's topic, `spool` (its README), `README`, or a command, whose `--help` it is.
"""

_WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 10: "ten", 30: "thirty"}


def _commands(command: click.Command, above: click.Context | None, name: str) -> Iterator[click.Context]:
    """Yield a command and all its subcommands."""
    context = click.Context(command, info_name=name, parent=above)
    yield context
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            subcommand = command.get_command(context, each)
            assert subcommand
            yield from _commands(subcommand, context, each)


_COMMANDS = {
    each.command_path: each.command
    for each in (*_commands(cli, None, "mailer"), *_commands(send, None, "mailer-send"))
}
_HELPS = {
    name: " ".join([command.help or "", *(getattr(option, "help", "") or "" for option in command.params)])
    for name, command in _COMMANDS.items()
}
"""Without the examples, which are in the epilogs."""
_TEXTS = (
    {guide.topic: guide.text for guide in guides("en")}
    | {name: f"{text} {_COMMANDS[name].epilog}" for name, text in _HELPS.items()}
    | {"spool": (_ROOT / "spool" / "README.md").read_text(), "README": (_ROOT / "README.md").read_text()}
)
_FLAT = {topic: " ".join(text.split()) for topic, text in _TEXTS.items()}


def ways_to_write(number: float | str) -> set[str]:
    if isinstance(number, str):
        return {number}
    assert number == int(number)
    words = {"a", "an", "one"} if number == 1 else {_WORDS.get(int(number), "")} - {""}
    return words | {f"{int(number):,}"}


@pytest.mark.parametrize(("topic", "words", "number"), STATED)
def test_a_number_in_a_guide_is_that_of_the_program(topic: str, words: str, number: float | str) -> None:
    right = {words.format(each) for each in ways_to_write(number)}
    assert any(each in _FLAT[topic] for each in right), right


_STATES = re.compile(
    r"(?<![\w.`-])\d[\d,.]*\w*"
    r"|\b(?:two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty) (?:of them|questions"
    r"|seconds|minutes|hours|days|weeks|months|times|lines|mails|messages|addresses|recipients)\b"
    # Not "a second mount".
    r"|\b(?:an?|one|half an?) (?:second(?! (?!or )\w)|minute|hour|day|week|month)\b"
)
_NO_LIMITS = re.compile(
    r"RFC \d+(?: [\d.]+\d)?|\(mode 0600\)|550 5\.7\.1|nohup\(1\)|ceph\(8\)"
    r"|\b0(?=:? (?:means )?no limit)|\b0(?= lets the system choose)|(?<=null or )0\b"
    # How times are written, and of which kind they are.
    r"|(?<=: )5m, 1h30m, 2d, 1w|(?<=End after )90d, 12h, 1w|\(90, 5m\)|(?<=Time between two looks: )2s, 1m"
    r"|\"30m\", \"12h\", \"1w\" ago|\"2026-11-22(?: 21:45)?\""
)
"""Numbers in a help text that are no limits, times or defaults of the program."""
_EXIT = re.compile(
    r"[^.;]*\b(?:[Ee]xit code|[Ee]xits? with|ends immediately with)\b[^.]*|; 78 when|\bsysexits\.h: [^.]*"
)


def _untied(name: str) -> list[str]:
    """Return the numbers in a help text that nothing holds against the program."""
    text = " ".join(_HELPS[name].split())
    for sentence in _EXIT.findall(text):
        assert {int(code) for code in re.findall(r"\b\d+\b", sentence)} <= set(Exit), sentence
    text = _NO_LIMITS.sub("", _EXIT.sub("", text))
    for topic, words, number in STATED:
        if topic == name:
            for each in ways_to_write(number):
                text = text.replace(words.format(each), "")
    return _STATES.findall(text)


def test_every_number_in_a_help_text_is_held_against_the_program() -> None:
    assert {name: untied for name in _HELPS if (untied := _untied(name))} == {}


def test_the_exit_codes_that_help_lists_are_those_of_the_programs() -> None:
    listed = re.search(r"sysexits\.h: ([^.]*)\.", " ".join(_HELPS["mailer"].split()))
    assert listed
    assert {int(code) for code in re.findall(r"\d+", listed[1])} == set(Exit) - {Exit.INTERRUPTED}
    sources = "".join(path.read_text() for path in Path(main.__file__).parent.glob("*.py"))
    returned = {getattr(os, name) for name in re.findall(r"\bos\.(EX_\w+)", sources)}
    codes = usage.HELP.partition("Exit codes:")[2].partition("Examples:")[0]
    assert {int(code) for code in re.findall(r"  (\d+)  ", codes)} == returned


def test_the_places_that_the_help_of_sendmail_names_are_those_where_it_looks() -> None:
    named = re.findall(r"/(?:run|var)/[\w/.-]*\w", usage.HELP)
    assert named == [main.SOCKET, *drop.PLACES]


_NUMBER = re.compile(r"\d[\d,.]*\d|\d")
_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_ONLY = {("microsoft365", "12"), ("performance", "100,000")}
"""December, and a number that Chinese has a word for."""


def test_the_chinese_guides_have_the_numbers_of_the_english_ones() -> None:
    def numbers(language: str) -> set[tuple[str, str]]:
        return {
            (guide.topic, number)
            for guide in guides(language)
            for number in _NUMBER.findall(_BLOCK.sub("", guide.text))
        }

    assert numbers("en") ^ numbers("zh-CN") == _ONLY
