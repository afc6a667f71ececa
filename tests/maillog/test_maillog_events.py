"""Mail events: in the ledger for programs, on standard error for people, one line each whatever they hold."""

import io
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spools.log_directory import opened
from spools.strategies import NOW, envelope

from mailer.mail.outcome import Outcome, Status
from mailer.maillog.events import Delivery, Fields, Level, MailLog, Refused, Times
from mailer.maillog.ledger import Ledger
from mailer.maillog.search import Query, find
from mailer.maillog.stderr import Format, as_json, logfmt, stderr_sink

ID = "01JD0M3Q5V8Z7X2C4B6N8M0K1J"
hostile = st.text(max_size=40) | st.sampled_from(
    [
        "x\n[INFO] from=root",
        "\r\nfoo",
        "\x1b[2Jgone",
        "\u2028line",
        "\x85",
        "a=b c",
        'say "hi"',
        "\\",
        "\0",
        "=",
        " ",
    ]
)


class Heard:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[Level, str]] = []

    def __call__(self, level: Level, text: str, fields: Fields) -> None:
        self.lines.append((level, logfmt(text, fields)))
        decoded = json.loads(as_json(level, text, fields, NOW))
        assert decoded["level"] == level.name.lower()
        self.keys = set(decoded)


def log_with(directory: Path | None = None, now: float = NOW) -> tuple[MailLog, Heard]:
    heard = Heard()
    ledger = (
        Ledger(partial(opened, directory), on_trouble=lambda error: pytest.fail(str(error)))
        if directory
        else None
    )
    return MailLog(lambda: now, heard, ledger), heard


@pytest.mark.security_case(97)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), hostile | st.tuples(hostile, hostile)))
def test_a_logged_value_stays_on_its_line_and_in_its_field(fields: dict[str, object]) -> None:
    """SECURITY 97: nobody writes a line, or a field, of ours by what he puts into a value."""
    text = logfmt("", fields)
    assert text.isprintable()
    assert len(text.splitlines()) <= 1
    shown = {key for key, value in fields.items() if value != ""}
    assert {word.partition("=")[0] for word in _words(text)} == shown


def _words(text: str) -> list[str]:
    """Split logfmt as its readers do: at spaces outside quotes, in which a backslash escapes."""
    words, quoted, escaped, word = [], False, False, ""
    for character in text:
        if character == " " and not quoted:
            words.append(word)
            word = ""
            continue
        word += character
        quoted ^= character == '"' and not escaped
        escaped = quoted and character == "\\" and not escaped
    return [*words, word] if word else words


@given(hostile, hostile, hostile)
def test_every_event_is_one_printable_line_whatever_the_client_calls_itself(
    user: str, address: str, reply: str
) -> None:
    log, heard = log_with()
    refused = Refused(peer="127.0.0.1", user=user, sender=address, to=(address,), subject=reply)
    log.rejected(refused, reply)
    log.login_failed(peer="127.0.0.1", user=user)
    log.accepted(id=ID, envelope=envelope(address, sender=address), size=1, user=user, peer="::1")
    log.message("held", id=ID, reason=reply, by=user)
    log.delivery(
        Delivery(id=ID, sender=address, received=NOW, attempt=1, to=(address,), outcome=_outcome(reply))
    )
    log.warning(reply, user=user)
    log.limited(refused, reply)
    log.attempt(id=ID, to=(address,), relay=address, reply=reply, attempt=1)
    log.provider(user, "open", reply)
    assert len(heard.lines) == 9
    assert all(text.isprintable() for _, text in heard.lines)


def _outcome(reply: str, status: Status = Status.DEFERRED) -> Outcome:
    return Outcome("bob@example.net", status, "mx1.example.net[192.0.2.1]:25", reply, tls="TLSv1.3")


def test_a_delivery_is_logged_in_the_vocabulary_of_postfix(tmp_path: Path) -> None:
    log, heard = log_with(tmp_path, NOW + 12.3456)
    times = Times(received=NOW, queued=NOW + 0.25, begun=NOW + 10, handed_over=NOW + 12)
    to = ("bob@example.net", "eve@example.org")
    reply, following = "451 4.7.1 Try later", "2026-11-22T22:00:00Z"
    log.delivery(
        Delivery(
            id=ID,
            sender="",
            received=NOW,
            attempt=2,
            to=to,
            outcome=_outcome(reply),
            next=following,
            dsn="4.7.1",
            times=times,
        )
    )
    ((level, text),) = heard.lines
    assert level is Level.INFO
    assert text == (
        f"id={ID} event=deferred from=<> to={','.join(to)} relay=mx1.example.net[192.0.2.1]:25 "
        f"delay=12.346 delays=0.25/9.75/2.0/0.346 dsn=4.7.1 status=deferred "
        f'reply="{reply}" next={following} attempt=2 tls=TLSv1.3'
    )
    written = json.loads((tmp_path / "20261122.jsonl").read_text())
    assert (written["id"], written["from"], written["to"]) == (ID, "", ["bob@example.net", "eve@example.org"])
    assert (written["status"], written["attempt"], written["delay"]) == ("deferred", 2, 12.346)
    assert written["delays"] == [0.25, 9.75, 2.0, 0.346]
    assert not {"message", "again", "tls "} & written.keys()


def test_a_clock_that_went_back_makes_no_negative_delay(tmp_path: Path) -> None:
    log, _ = log_with(tmp_path, NOW - 3600)
    times = Times(received=NOW, queued=NOW + 1, begun=NOW - 3600, handed_over=NOW - 3599)
    sent = Delivery(
        id=ID, sender="a@b", received=NOW, attempt=1, to=("c@d",), outcome=_outcome("250 ok"), times=times
    )
    log.delivery(sent)
    ((line, _),) = find(partial(opened, tmp_path), Query())
    assert line.delay == 0.0
    assert line.delays == (1.0, 0.0, 1.0, 0.0)


@pytest.mark.parametrize("status", list(Status))
def test_what_somebody_should_look_at_is_a_warning(status: Status) -> None:
    log, heard = log_with()
    log.delivery(
        Delivery(id=ID, sender="a@b", received=NOW, attempt=1, to=("c@d",), outcome=_outcome("x", status))
    )
    expected = Level.INFO if status in {Status.SENT, Status.DEFERRED} else Level.WARNING
    assert heard.lines[0][0] is expected


def test_the_programs_own_words_are_not_in_the_ledger(tmp_path: Path) -> None:
    log, heard = log_with(tmp_path)
    log.notice("listening", address="127.0.0.1", port=25)
    log.warning("spool is nearly full")
    log.error("cannot go on", reason="disk full")
    assert [text for _, text in heard.lines] == [
        "listening address=127.0.0.1 port=25",
        "spool is nearly full",
        'cannot go on reason="disk full"',
    ]
    assert list(tmp_path.iterdir()) == []


def test_standard_error_gets_what_its_level_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for journald, expected in ((False, "loud\nlouder\n"), (True, "<4>loud\n<3>louder\n")):
        written = io.StringIO()
        monkeypatch.setattr(sys, "stderr", written)
        sink = stderr_sink(Level.WARNING, lambda: NOW, journald=journald)
        sink(Level.INFO, "quiet", {})
        sink(Level.WARNING, "loud", {})
        sink(Level.ERROR, "louder", {})
        assert written.getvalue() == expected


@pytest.mark.fault_row(26)
def test_a_standard_error_that_cannot_be_written_stops_no_mail() -> None:
    """Redirected to a full disk, or to a pipe that nobody reads any more."""
    program = (
        "from mailer.maillog.events import *\n"
        "from mailer.maillog.stderr import stderr_sink\n"
        "log = MailLog(lambda: 0.0, stderr_sink(Level.INFO, lambda: 0.0))\n"
        "log.notice('one'); log.notice('two'); print('mail flows', flush=True)\n"
        "import os; os._exit(0)"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, check=True
        )
    assert done.stdout == b"mail flows\n"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=writer, check=True)
    os.close(writer)
    assert done.stdout == b"mail flows\n"


def test_json_on_standard_error_is_one_object_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    sink = stderr_sink(Level.INFO, lambda: NOW, form=Format.JSON)
    log = MailLog(lambda: NOW, sink)
    log.notice("listening", address="127.0.0.1", port=25)
    log.rejected(Refused(peer="::1", sender="", to=('"\n\udcff"@x',)), "550 5.1.1 no")
    said, event = map(json.loads, written.getvalue().splitlines())
    at = "2026-11-22T21:45:01.250000Z"
    assert said == {"at": at, "level": "notice", "text": "listening", "address": "127.0.0.1", "port": 25}
    assert event == {
        "at": at,
        "level": "notice",
        "event": "rejected",
        "from": "<>",
        "to": ['"\\n\\udcff"@x'],
        "peer": "::1",
        "reply": "550 5.1.1 no",
    }
