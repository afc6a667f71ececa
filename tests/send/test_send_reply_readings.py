"""What replies are about, shown on a corpus of real ones.

`data/replies.jsonl` holds replies as servers sent them: `text` (several lines with their codes), the `phase`
they answered, what they are `about` in a human's judgement of the words, `also` where another judgement is as
good, whose words they are (`says`) and where they were seen (`seen_in`). The table was written from one half;
of the other, marked `held_out`, only the kinds of mistakes were looked at. Those marked `first_sight` were
gathered in rounds and judged before the table was tried on them, and their kinds were added afterwards. While
it had phrases alone it read 81 % of the first 90 rightly, 80 % of the next 70, 56 % of the next 57 (terse,
37 of two Chinese hosts) and 77 % of the next 278, of other servers and forums. The grammar was written from
120 of these, and read 89 % of the other 158 at first sight; then 75 % of 130 more, mostly terse words of
administrators' own rules, and 80 % of 50 that others' lists of patterns give. By phrases alone it would have
been 82 %, 64 % and 70 %. Of a round of 58, from reports of applications and clients, it read 91 %. Of 277
more, from the help of providers and the patterns of others, it read 75 %; and when words and phrases had been
added for 217 of these, 80 % of the other 60 (before: 77 %). Then it read 81 % of 70 more.
"""

import re
from collections import Counter
from itertools import chain, product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outbound.reply_corpus import BOUNCES, CORPUS, NEVER_THE_MAILS, phase_of, reading_of, reply_of

from mailer.mail.outcome import Outcome, Status
from mailer.mail.reply import Reply
from mailer.send.phase import Phase
from mailer.send.replies.encoding import decode
from mailer.send.replies.enhanced import enhanced_of
from mailer.send.replies.lexicon import STATES, THINGS
from mailer.send.replies.plain_words import LIMIT, plain
from mailer.send.replies.reader import read, read_line
from mailer.send.replies.reading import About
from mailer.send.replies.sentence import Sentence
from mailer.send.replies.table import TABLE
from mailer.send.trouble import Hardness, judge

pytestmark = pytest.mark.exhaustive

SEEN = [entry for entry in CORPUS if not entry["held_out"]]
HELD_OUT = [entry for entry in CORPUS if entry["held_out"]]


def is_right(entry) -> bool:
    return reading_of(entry).about in {entry["about"], *entry.get("also", ())}


def rate(entries) -> float:
    return sum(map(is_right, entries)) / len(entries)


def test_the_corpus_is_large_wide_and_halved():
    assert len(CORPUS) >= 800
    assert len({entry["text"] for entry in CORPUS}) == len(CORPUS)
    assert len({entry["says"] for entry in CORPUS}) >= 90
    assert 0.45 < len(HELD_OUT) / len(CORPUS) < 0.65
    assert {entry["about"] for entry in CORPUS} == set(About)
    assert all(re.match(r"[45]\d\d[ -]", entry["text"]) and entry["seen_in"] for entry in CORPUS)


def test_the_replies_that_were_looked_at_are_read_right():
    assert rate(SEEN) >= 0.97, Counter(
        (e["about"], reading_of(e).about.value) for e in SEEN if not is_right(e)
    )


def test_the_replies_that_were_held_out_are_read_right():
    # By kind only, so that nobody tunes the table to single replies of this half.
    mistakes = Counter((e["about"], reading_of(e).about.value) for e in HELD_OUT if not is_right(e))
    assert rate(HELD_OUT) >= 0.92, mistakes


@pytest.mark.parametrize("entries", [SEEN, HELD_OUT], ids=["seen", "held out"])
def test_nothing_that_is_ours_or_the_hosts_is_read_as_a_refusal_of_the_mail(entries):
    wrong = [
        (entry["text"], reading_of(entry))
        for entry in entries
        if entry["about"] in NEVER_THE_MAILS and not is_right(entry) and reading_of(entry).about in BOUNCES
    ]
    assert wrong == []


@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT])
def test_whatever_command_it_answers_what_is_ours_is_no_refusal_of_the_mail(phase):
    wrong = [
        entry["text"]
        for entry in CORPUS
        if entry["about"] in NEVER_THE_MAILS and "also" not in entry
        if read(phase, reply_of(entry["text"])).about in BOUNCES
    ]
    assert wrong == []


@pytest.mark.parametrize("phase", [Phase.BANNER, Phase.EHLO, Phase.STARTTLS, Phase.AUTH])
def test_before_a_mail_was_mentioned_no_reply_is_about_one(phase):
    ours = NEVER_THE_MAILS | {About.UNKNOWN}
    assert {read(phase, reply_of(entry["text"])).about for entry in CORPUS} <= ours


# Made up: our own trouble in the vocabulary of refused recipients and mails.
LOOK_ALIKES = [
    "550 Mailbox me@ours.example is suspended from sending",
    "552 5.2.2 Your mailbox is full, sending is not possible",
    "552 Your mailbox has exceeded its storage limit; delete mail before you send",
    "550 Sender mailbox is over quota",
    "550 User unknown in our authentication database",
    "554 5.7.0 Message rejected. Account on hold",
    "554 5.7.1 Too much spam from your account",
    "550 outgoing spam detected, account locked",
    "550 5.7.1 Account disabled for abuse",
    "550 SMTP access is disabled for your mailbox",
    "550 Maximum number of recipients per day exceeded",
    "552 4.2.1 Number of messages exceeds the limit of 100 per hour",
    "550 Message limit reached for today",
    "550 Message rejected: your address 192.0.2.1 is on a blocklist",
    "554 5.7.1 Message rejected: spam from your network",
    "550 5.1.2 <vm>: Helo command rejected: Domain not found",
    "550 5.1.1 Invalid domain name in EHLO",
    "451 4.7.1 Spamassassin unavailable, try later",
    "451 could not scan message for viruses, try again later",
    "451 4.6.0 Virus scanner failure",
    "552 5.2.2 sender's monthly quota exceeded",
    "550 Account quota exceeded",
    "550 You are not a registered user of this server",
    "550 Invalid account",
    "550 Customer not found",
    "554 5.7.1 <bob@example.net>: Recipient address rejected: Throttling quota exceeded",
    "550 Your remotehost looks suspiciously like spammer",
    "550 Message blocked for policy reasons: Your mail system is forging its hostname",
    "550 Bad user/pass",
    "550 Email blocked by cbl.abuseat.org",
    "550 Address blocked",
    "550 user blacklisted",
    "550 user denied",
    "550 rejected, see the link in this reply",
    "554 cannot open file",
    "550 this mail is subject to restrictions",
    "451 4.3.0 Failed to queue message: too many messages in queue",
    "550 DOMAIN_SUSPENDED",
    "554 Address blacklisted: 192.0.2.1",
]


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_words_of_recipients_and_mails_do_not_make_our_trouble_theirs(text):
    assert read(Phase.RCPT, reply_of(text)).about not in BOUNCES
    assert read(Phase.DOT, reply_of(text)).about not in BOUNCES


SUBJECTS = (
    "Your account",
    "The sending account",
    "Outgoing mail for example.com",
    "Your plan",
    "SMTP access",
    "The sender's account",
    "Your IP address 192.0.2.1",
    "The client host",
    "Your daily quota",
    "The hourly limit",
    "The API key",
    "Sending for this domain",
    "Your mailbox",
    "Your login",
    "Relaying from your host",
    "Your EHLO name",
    "Your server",
)
PREDICATES = (
    "has been suspended",
    "is disabled",
    "is blocked for spam",
    "was rejected",
    "exceeded the limit",
    "is not allowed to send messages",
    "is not activated",
    "requires payment",
    "is invalid",
    "is over quota",
    "is unknown",
    "does not exist",
    "sends too much spam",
    "was not found",
    "has been used up",
)
PREFACES = (
    "",
    "Message rejected: ",
    "Mail refused. ",
    "Recipient address rejected: ",
    "Spam detected. ",
    "Mailbox unavailable. ",
    "5.1.1 ",
    "<bob@example.net>: ",
    "User a@example.com: ",
    "Content rejected: ",
)


@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DOT])
def test_no_sentence_about_us_is_a_refusal_of_the_mail(phase):
    sentences = map("".join, product(PREFACES, (f"{s} {p}" for s, p in product(SUBJECTS, PREDICATES))))
    assert [text for text in sentences if read(phase, Reply(550, (text,))).about in BOUNCES] == []


OURS = (
    *("server", "login", "relay", "hello", "our host", "ill fame", "encryption", "connection", "allowance"),
    "trade",
)
"""An account may be the recipient's as well."""


def entries(text: str) -> list[str]:
    """The lexicon's entries that count without a negation, as words."""
    denied = {place + 1 for place, word in enumerate(text.split()) if word == "not"}
    words = [word for place, word in enumerate(text.split()) if word != "not" and place not in denied]
    return [
        word.replace("?", " ").rstrip("*").replace("#", "24").replace("<list>", "zen.spamhaus.org")
        for word in words
    ]


@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DOT])
def test_no_word_for_what_is_ours_makes_a_refusal_of_the_mail(phase):
    complaints = [entries(text)[0] for text in STATES.values()]
    things = chain.from_iterable(entries(THINGS[thing]) for thing in OURS)
    sentences = [
        f"{preface}The {thing} is {complaint}"
        for preface, thing, complaint in product(("", "Message rejected: "), things, complaints)
    ]
    assert [text for text in sentences if read(phase, Reply(550, (text,))).about in BOUNCES] == []


@pytest.mark.parametrize(
    ("phase", "text", "about"),
    [
        (Phase.RCPT, "550 The letter-box of that person does not seem to exist", About.RECIPIENT),
        (Phase.RCPT, "550 employee has departed", About.RECIPIENT),
        (Phase.DOT, "554 we quarantined this letter", About.MESSAGE),
        (Phase.DOT, "550 Executables inside archives are forbidden", About.MESSAGE),
        (Phase.MAIL, "550 nonexistent originator", About.MESSAGE),
        (Phase.MAIL, "550 that originator is not welcome", About.SENDER),
        (Phase.RCPT, "450 the scanner crashed", About.HOST),
        (Phase.RCPT, "550 sign in, or go away: anonymous clients are not welcome", About.ACCOUNT),
        (Phase.RCPT, "451 burst limit hit, balance exhausted", About.QUOTA),
        (Phase.RCPT, "554 your subnet is unwelcome", About.SESSION),
    ],
)
def test_what_nobody_has_said_yet_is_read_by_its_thing_and_its_state(phase, text, about):
    reading = read(phase, reply_of(text))
    assert (reading.about, reading.evidence != "") == (about, True)


def test_a_thing_and_its_state_are_found_in_either_order_near_each_other():
    assert (
        Sentence(" the mailbox of bob is closed ").said("mailbox", "disabled") == "mailbox of bob is closed"
    )
    assert Sentence(" closed is the mailbox ").said("mailbox", "disabled") == "closed is the mailbox"
    assert Sentence(f" mailbox {'x ' * 8}closed ").said("mailbox", "disabled") == ""
    assert Sentence(" it does not seem to exist as a user ").said("user", "unknown") == "exist as a user"
    assert Sentence(" there exists a user ").said("user", "unknown") == ""
    assert Sentence(" mailbox ").said("mailbox") == "mailbox"
    assert Sentence(" ").said("mailbox") == ""


def test_a_suppressed_recipient_bounces_only_when_no_other_provider_is_left():
    reading = read(Phase.DOT, reply_of("554 Message rejected: Address blacklisted."))
    assert (reading.about, reading.here) == (About.RECIPIENT, True)


VARIANTS = {
    "upper case": str.upper,
    "lower case": str.lower,
    "other dashes": lambda text: text.replace("-", "\u2013"),
    "other spacing": lambda text: text.replace(" ", "   ").replace(": ", ":"),
    "a page": lambda text: f"{text} See https://help.example.com/a/b?code=421&x=quota for details.",
    "an id": lambda text: f"{text} [x12Ab34cd56.789 - 0f3a]",
    "other addresses": lambda text: re.sub(
        r"[\w.*#+-]+@(?:(?!\.\.)[\w.*-])+", "carol.o'hara+x@mail.example.co.uk", text
    ),
    "other hosts' addresses": lambda text: re.sub(
        r"(?<![\d.])\d+\.\d+\.\d+\.\d+(?![\d.])", "203.0.113.77", text
    ),
    "other quotes": lambda text: text.replace("'", "\u2019"),
    "quoted": lambda text: f'"{text}"',
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_does_not_change_the_meaning_does_not_change_the_reading(variant):
    changed = []
    for entry in CORPUS:
        reply = reply_of(entry["text"])
        last = len(reply.lines) - 1
        lines = tuple(
            VARIANTS[variant](line) if variant not in {"a page", "an id"} or number == last else line
            for number, line in enumerate(reply.lines)
        )
        other = read(phase_of(entry), Reply(reply.code, lines))
        if other.about is not reading_of(entry).about:
            changed.append((lines, reading_of(entry), other))
    assert changed == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("5.7.1 no", "5.7.1"),
        ("no (#5.3.4)", "5.3.4"),
        ("#5.1.0 Address rejected", "5.1.0"),
        ("5.7.1: no", "5.7.1"),
        ("no (#5.1.1 - chkusr)", "5.1.1"),
        ("[5.7.606] no", "5.7.606"),
        ("4.4.7 expired", "4.4.7"),
        ("smtp;550-5.1.1 no", "5.1.1"),
        ("mail from 192.5.1.1 refused", ""),
        ("version 5.1.1.2", ""),
        ("2.1.5 fine", ""),
        ("5.10000.1", ""),
        ("", ""),
    ],
)
def test_an_enhanced_code_is_found_in_any_spelling_and_only_there(text, code):
    assert enhanced_of(text) == code


def test_the_codes_class_and_the_enhanced_codes_may_differ():
    full = read(Phase.RCPT, Reply(452, ("5.2.2 over quota",)))
    assert (full.about, full.permanent, full.enhanced) == (About.RECIPIENT, False, "5.2.2")


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"no such user", "no such user"),
        ("Boîte du destinataire pleine".encode(), "Boîte du destinataire pleine"),
        ("用户不存在。请检查".encode("gb18030"), "用户不存在。请检查"),
        (
            "请使用授权码登录。详情请看: http://x.example".encode("gb18030"),
            "请使用授权码登录。详情请看: http://x.example",
        ),
        (b"\xff\xfe", "\\xff\\xfe"),
    ],
)
def test_a_reply_is_readable_in_utf_8_and_gb18030(octets, text):
    assert decode(octets) == text


@pytest.mark.parametrize(
    ("phase", "text", "about"),
    [
        (Phase.RCPT, "该用户不存在", About.RECIPIENT),
        (Phase.MAIL, "请使用授权码登录。详情请看", About.ACCOUNT),
        (Phase.MAIL, "发送频率过高", About.QUOTA),
        (Phase.MAIL, "发件人与登录用户不一致", About.SENDER),
        (Phase.RCPT, "Empfänger unbekannt", About.RECIPIENT),
        (Phase.RCPT, "Tageslimit überschritten", About.QUOTA),
        (Phase.MAIL, "Votre compte est suspendu", About.ACCOUNT),
        (Phase.MAIL, "Expéditeur non autorisé", About.SENDER),
    ],
)
def test_words_of_other_languages_are_read(phase, text, about):
    assert read(phase, Reply(550, (decode(text.encode()),))).about is about


@given(st.binary(max_size=600), st.sampled_from([*Phase, ""]), st.integers(400, 599))
def test_any_octets_are_read(octets, phase, code):
    reading = read(phase, Reply(code, (decode(octets),)))
    assert reading.permanent == (code >= 500)
    assert bool(reading.evidence) == (reading.about is not About.UNKNOWN)


@given(
    st.lists(st.sampled_from([*chain.from_iterable(plain(e["text"]).split() for e in CORPUS)]), max_size=80)
)
def test_any_of_the_fields_words_in_any_order_are_read(words):
    reading = read(Phase.DOT, Reply(550, (" ".join(words),)))
    assert reading == read(Phase.DOT, Reply(550, ("  ".join(words).upper(),)))


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "@ ",
        "user ",
        "mail from ",
        "1.1.",
        "http://",
        "<",
        "quota ",
        "not ",
        "sender domain ",
        "(((",
        "5.7.1 ",
    ],
)
def test_a_reply_of_a_megabyte_is_read_by_its_beginning(unit):
    text = unit * (1_000_000 // len(unit))
    assert read(Phase.DOT, Reply(554, (text,))) == read(Phase.DOT, Reply(554, (text[:LIMIT],)))


def test_a_reply_is_read_in_the_journals_form_as_well():
    entry = next(entry for entry in CORPUS if entry["text"].startswith("552 5.2.2"))
    line = str(reply_of(entry["text"]))
    assert read_line(Phase.RCPT, line).about is About.RECIPIENT
    assert read_line("", "connection closed by the server").about is About.UNKNOWN
    assert read_line("", "").about is About.UNKNOWN


def test_a_reply_means_the_same_before_and_after_it_was_written_to_the_journal():
    for entry in CORPUS:
        phase, reply = phase_of(entry), reply_of(entry["text"])
        reading = read(phase, reply)
        again = read_line(phase, str(reply))
        assert (again.about, again.enhanced) == (reading.about, reading.enhanced), entry["text"]
        if phase not in {Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT}:
            continue
        status, scope = judge(phase, reply)
        if status is Status.BOUNCED:
            outcome = Outcome("bob@example.net", status, "hop:25", str(reply), scope)
            final = Hardness.of(outcome) is Hardness.PERMANENT
            assert not final or reading.about in BOUNCES | {About.DESTINATION}, entry["text"]


def test_every_row_says_why_and_where_it_was_seen():
    assert all(row.reason and row.source for row in TABLE)
    assert all(row.words or row.thing or row.codes or row.enhanced for row in TABLE)
    assert all((row.about is About.QUOTA) == (row.pause > 0) for row in TABLE)
