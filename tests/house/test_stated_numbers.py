"""A limit or time that a guide states in prose is the constant of the program.

Keys and their defaults are in `test_keys.py`; the Chinese guides have the same numbers as the English ones.
"""

import re
from pathlib import Path

import pytest

from mailer.cli import up
from mailer.cli.doctor import network
from mailer.cli.guide import guides
from mailer.config.hops import Api
from mailer.config.model import Config
from mailer.events import backlog, deliverer, receiver
from mailer.mail import header
from mailer.maillog import retention
from mailer.maillog import traces as trace_files
from mailer.monitor import admin, context, health, queue, results
from mailer.oauth import source
from mailer.receive import pickup, refusals, server
from mailer.receive.content import data, idempotency, resent
from mailer.receive.users import failures
from mailer.send import journal_bound, queue_scan, skipped, traces
from mailer.send.dsn import report
from mailer.send.http.apis import LIMITS
from mailer.send.replies import quotas
from mailer.send.routes import alike, breaker, mx
from mailer.send.smtp import places, pool
from mailer.sendmail import drop, main
from mailer.spool import idempotency as once
from mailer.spool.run import claim
from mailer.spool.state import clock_guard, provider_state
from mailer.spool.view import waiting

_KIB, _MIB = 2**10, 2**20
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400

STATED = [
    ("applications", "it waits {} seconds for the receiver", main._RESTART),
    ("applications", "1 to {} printable ASCII characters", idempotency._MAX_KEY),
    ("applications", "Keys are kept for `idempotencyWindow` ({} day)", Config().idempotency_window / _DAY),
    ("applications", "Lines of more than {} octets", data.MAX_LINE),
    ("bounces", "includes the message (up to {} kB", report.LARGEST_COPY / 1000),
    ("budgets", "no connection becomes free for {} minute", places.PATIENCE / _MINUTE),
    ("configuration", "{} of them is reserved for this host", f"1/{server._RESERVED}"),
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
    ("events", "After {} minutes `/health` is degraded", health._EVENTS_LATE / _MINUTE),
    ("events", "An entry ends after {} days (`keepFor`", Config().suppress_unknown.keep_for / _DAY),
    ("microsoft365", "warns during the {} days before", health._SECRET_ENDS_SOON / _DAY),
    ("monitoring", "none has been sent for {} hour", results.NOTHING_SENT / _HOUR),
    ("monitoring", "The same request again, within {} days", once._DROP_KEPT / _DAY),
    ("monitoring", "`retry-failed` once in {} seconds", admin._PAUSE),
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
    ("providers", "gets nothing for {} second", pool.SLOWDOWN_PAUSE),
    ("providers", "half as many sessions for {} minute", pool.SLOWDOWN_PERIOD / _MINUTE),
    ("providers", "Prometheus warn {} days before", health._SECRET_ENDS_SOON / _DAY),
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
    ("routes", "A header of more than {} KiB is not searched", header.MAX_HEADER / _KIB),
    ("security", "is delayed by up to {} second", failures.MAX_DELAY),
    ("security", "fails {} times in ten minutes", failures.MAX_REMOTE_FAILURES),
    ("security", "fails thirty times in {} minutes", failures.WINDOW / _MINUTE),
    ("spool", "is deleted `logRetention` after its end ({} days", Config().log_retention / _DAY),
    ("spool", "days; at least {})", retention._AT_LEAST / _DAY),
    ("spool", "the file in `once/` is gone, {} days after", once._DROP_KEPT / _DAY),
    ("spool", "From {} MiB on all repeated deferrals", journal_bound.SOFT / _MIB),
    ("spool", "From {} MiB on, recipients", journal_bound.HARD / _MIB),
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
    ("spool", "at most {} drops of one user are refused in an hour", refusals._MAX_REFUSALS),
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
]
"""Guide (or `spool`, its README), words, and the number that belongs into them."""

_WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 7: "seven", 10: "ten", 30: "thirty"}
_TEXTS = {guide.topic: guide.text for guide in guides("en")} | {
    "spool": (Path(__file__).parents[2] / "spool" / "README.md").read_text()
}
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
