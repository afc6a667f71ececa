"""The client's state machine, by bytes alone."""

from base64 import b64decode
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from outbound.outgoing import Password

from mailer.mail.reply import Reply
from mailer.send.phase import Phase
from mailer.send.smtp.events import Answered, Broken, GoAhead, Settled, Verdict
from mailer.send.smtp.machine import CALLS, REPLIES, Call, Dialogue, IllegalCall, State
from mailer.send.smtp.sasl import CramMd5, Login, Plain

MAIL = b"MAIL FROM:<a@x>"
RCPTS = (b"RCPT TO:<b@y>", b"RCPT TO:<c@y>", b"RCPT TO:<d@y>")
WHOLE = b"\r\n".join([MAIL, *RCPTS, b"DATA", b""])

SAY = {
    Call.HELLO: lambda d: d.hello("EHLO", "me"),
    Call.STARTTLS: Dialogue.starttls,
    Call.SECURED: Dialogue.secured,
    Call.AUTH: lambda d: d.auth(Plain("u", Password("p"))),
    Call.BEGIN: lambda d: d.begin(MAIL, RCPTS),
    Call.FINISH: Dialogue.finish,
    Call.QUIT: Dialogue.quit,
}


def ready(*, pipelining: bool = True) -> Dialogue:
    dialogue = Dialogue()
    dialogue.receive(b"220 hi\r\n")
    dialogue.hello("EHLO", "me")
    dialogue.outgoing()
    dialogue.receive(b"250 hi\r\n")
    dialogue.pipelining = pipelining
    return dialogue


def begun(*, pipelining: bool = True) -> Dialogue:
    dialogue = ready(pipelining=pipelining)
    dialogue.begin(MAIL, RCPTS)
    return dialogue


def at(state: State) -> Dialogue:
    """A dialogue in this state, by the shortest way."""
    if state is State.WAITING:
        return Dialogue()
    dialogue = ready()
    if state is State.GREETED:
        dialogue = Dialogue()
        dialogue.receive(b"220 hi\r\n")
    elif state is State.HANDSHAKE:
        dialogue.starttls()
        dialogue.outgoing()
        dialogue.receive(b"220 go\r\n")
    elif state in {State.BODY, State.ENDED}:
        dialogue.begin(MAIL, RCPTS)
        dialogue.outgoing()
        dialogue.receive(b"250 ok\r\n" * 4 + b"354 go\r\n")
        if state is State.ENDED:
            dialogue.finish()
    elif state is State.OVER:
        dialogue.receive(b"421 bye\r\n")
    assert dialogue.state is state
    dialogue.outgoing()
    return dialogue


def play(dialogue: Dialogue, *replies: bytes) -> list:
    """Each reply arrives when all that was to be said has been said."""
    events = []
    for reply in replies:
        dialogue.outgoing()
        events += dialogue.receive(reply)
    return events


@pytest.mark.parametrize(("state", "call"), list(product(State, Call)))
def test_a_call_is_legal_where_the_table_says_and_changes_nothing_elsewhere(state, call):
    dialogue = at(state)
    legal, target = CALLS[call]
    if state in legal:
        SAY[call](dialogue)
        assert dialogue.state is target
        assert bool(dialogue.outgoing()) == (call not in {Call.SECURED, Call.FINISH})
    else:
        phase = dialogue.phase
        with pytest.raises(IllegalCall):
            SAY[call](dialogue)
        assert (dialogue.state, dialogue.phase, dialogue.outgoing()) == (state, phase, b"")


def awaiting(phase: Phase) -> Dialogue:
    """A dialogue that waits for the reply to this command alone."""
    if phase is Phase.BANNER:
        return Dialogue()
    if phase is Phase.EHLO:
        dialogue = at(State.GREETED)
        dialogue.hello("EHLO", "me")
    elif phase is Phase.DOT:
        dialogue = at(State.BODY)
        dialogue.finish()
    elif phase in {Phase.STARTTLS, Phase.AUTH, Phase.QUIT}:
        dialogue = ready()
        {Phase.STARTTLS: dialogue.starttls, Phase.QUIT: dialogue.quit}.get(
            phase, lambda: dialogue.auth(Login("u", Password("p")))
        )()
    else:
        dialogue = ready(pipelining=False)
        if phase is Phase.RSET:
            dialogue.begin(MAIL, RCPTS[:1])
            play(dialogue, b"550 no\r\n")
        dialogue.begin(MAIL, RCPTS[:1])
        play(dialogue, *[b"250 ok\r\n"] * {Phase.RCPT: 1, Phase.DATA: 2}.get(phase, 0))
    dialogue.outgoing()
    assert dialogue.phase is phase
    return dialogue


@pytest.mark.parametrize(("phase", "digit"), list(product(REPLIES, range(2, 6))))
def test_a_reply_leads_where_the_table_says_and_any_other_breaks_the_session(phase, digit):
    dialogue = awaiting(phase)
    events = dialogue.receive(b"%d54 \r\n" % digit)
    target = REPLIES[phase].get(digit)
    if target is None:
        assert isinstance(events[-1], Broken)
        assert events[-1].phase is phase
        assert dialogue.state is State.OVER
    elif target is State.WAITING and phase in {Phase.MAIL, Phase.RCPT} and digit != 2:
        assert dialogue.state is State.READY  # the only recipient is refused: nothing is left to say
    else:
        assert dialogue.state is target
        assert not any(isinstance(event, Broken) for event in events)


@pytest.mark.parametrize("phase", [phase for phase in REPLIES if phase not in {Phase.DOT, Phase.QUIT}])
def test_421_ends_the_session_whatever_it_answers(phase):
    (event,) = awaiting(phase).receive(b"421 4.3.2 going down\r\n")
    assert isinstance(event, Broken)
    reply = Reply(421, ("4.3.2 going down",))
    assert (event.text, event.phase, event.reply) == (str(reply), phase, reply)
    # Before a transaction nobody is refused by it.
    assert [verdict and verdict.reply for verdict in event.refused] == (
        [reply] if phase in {Phase.MAIL, Phase.RCPT, Phase.DATA} else []
    )


def test_421_to_the_final_dot_is_a_refusal_and_the_end():
    dialogue = awaiting(Phase.DOT)
    (event,) = dialogue.receive(b"421 4.3.2 going down\r\n")
    assert isinstance(event, Settled)
    assert {verdict.phase for verdict in event.verdicts} == {Phase.DOT}
    assert dialogue.state is State.OVER


def test_a_transaction_leaves_in_one_piece_when_the_server_pipelines():
    assert begun().outgoing() == WHOLE


def test_without_pipelining_each_command_waits_for_its_turn():
    dialogue = begun(pipelining=False)
    said = [dialogue.outgoing()]
    for _ in range(4):
        dialogue.receive(b"250 ok\r\n")
        said.append(dialogue.outgoing())
    assert said == [line + b"\r\n" for line in (MAIL, *RCPTS, b"DATA")]


REFUSED = {b"4": b"450 4.2.1 later\r\n", b"5": b"550 5.1.1 no\r\n", b"2": b"250 2.1.5 ok\r\n"}


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("mix", ["".join(mix) for mix in product("245", repeat=3)])
def test_each_recipient_of_every_mix_gets_its_own_reply(mix, pipelining):
    dialogue = begun(pipelining=pipelining)
    replies = [REFUSED[digit.encode()] for digit in mix]
    events = play(dialogue, b"250 ok\r\n", *replies)
    if "2" in mix:
        (go_ahead,) = events + play(dialogue, b"354 go\r\n")
        assert isinstance(go_ahead, GoAhead)
        assert (
            "".join("2" if verdict is None else str(verdict.reply)[0] for verdict in go_ahead.refused) == mix
        )
        dialogue.finish()
        events = play(dialogue, b"250 2.0.0 queued\r\n")
    elif pipelining:
        events = play(dialogue, b"554 no valid recipients\r\n")
    (settled,) = events
    assert "".join(str(verdict.reply)[0] for verdict in settled.verdicts) == mix
    assert [v.phase for v in settled.verdicts] == [Phase.DOT if digit == "2" else Phase.RCPT for digit in mix]
    assert dialogue.state is State.READY


def test_a_lone_dot_ends_a_transaction_without_recipients():
    dialogue = begun()
    assert play(dialogue, b"250 ok\r\n" + b"550 no\r\n" * 3 + b"354 go\r\n") == []
    assert dialogue.outgoing() == b".\r\n"
    (settled,) = dialogue.receive(b"250 queued, they say\r\n")
    assert settled.verdicts == (Verdict(Phase.RCPT, Reply(550, ("no",))),) * 3


def test_a_refused_sender_is_the_verdict_for_everyone():
    (settled,) = play(begun(), b"550 5.1.8 no\r\n" + b"503 5.5.1 MAIL first\r\n" * 4)
    assert settled.verdicts == (Verdict(Phase.MAIL, Reply(550, ("5.1.8 no",))),) * 3


def test_a_refused_data_is_the_verdict_for_those_who_were_accepted():
    (settled,) = play(begun(), b"250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n451 later\r\n")
    assert [(v.phase, v.reply.code) for v in settled.verdicts] == [
        (Phase.DATA, 451),
        (Phase.RCPT, 550),
        (Phase.DATA, 451),
    ]


@pytest.mark.parametrize("pipelining", [True, False])
def test_what_was_left_unfinished_is_reset_before_the_next_transaction(pipelining):
    dialogue = begun(pipelining=pipelining)
    refusals = [b"250 ok\r\n", *[b"550 no\r\n"] * 3, *[b"554 no\r\n"] * pipelining]
    assert isinstance(play(dialogue, *refusals)[-1], Settled)
    dialogue.begin(MAIL, RCPTS)
    assert dialogue.outgoing() == b"RSET\r\n" + WHOLE * pipelining


@pytest.mark.parametrize(("reply", "before"), [(b"250 ok\r\n", b""), (b"554 no\r\n", b"RSET\r\n")])
def test_nothing_is_reset_after_a_message_that_was_taken(reply, before):
    """After a refusal RSET's 250 shows that no second answer to the dot was under way."""
    dialogue = at(State.BODY)
    dialogue.finish()
    dialogue.receive(reply)
    dialogue.begin(MAIL, RCPTS)
    assert dialogue.outgoing() == before + WHOLE


@pytest.mark.parametrize("reply", [b"552 5.3.4 too big\r\n", b"451 4.7.1 later\r\n"])
def test_a_refusal_before_the_dot_decides_the_transaction_and_ends_the_session(reply):
    dialogue = at(State.BODY)
    (settled,) = dialogue.receive(reply)
    assert isinstance(settled, Settled)
    assert {verdict.phase for verdict in settled.verdicts} == {Phase.DOT}
    assert dialogue.over
    with pytest.raises(IllegalCall):
        dialogue.finish()


@pytest.mark.parametrize("early", [b"250 what?\r\n", b"250-half", b"2", b"garbage\r\n"])
@pytest.mark.parametrize("state", [State.GREETED, State.READY, State.HANDSHAKE, State.BODY])
def test_whatever_the_server_says_out_of_turn_breaks_the_session(state, early):
    dialogue = at(state)
    assert isinstance(dialogue.receive(early)[-1], Broken)
    assert dialogue.state is State.OVER


def test_a_reply_that_comes_before_its_command_is_not_taken_for_its_answer():
    dialogue = begun(pipelining=False)
    dialogue.outgoing()
    (event,) = dialogue.receive(b"250 ok\r\n250 early\r\n")
    assert isinstance(event, Broken)


def test_a_reply_after_the_end_of_a_transaction_does_not_undo_it():
    dialogue = at(State.BODY)
    dialogue.finish()
    settled, broken = dialogue.receive(b"250 queued\r\n250 again\r\n")
    assert isinstance(settled, Settled)
    assert isinstance(broken, Broken)


def test_nothing_is_heard_after_the_end():
    assert at(State.OVER).receive(b"250 ok\r\n") == []


@pytest.mark.parametrize(
    "bad", [b"MAIL FROM:<a\r\n@x>", b"MAIL\nFROM:<a@x>", b"MAIL FROM:<a\0@x>", b"RSET\r"]
)
def test_a_line_end_in_an_address_never_becomes_a_command(bad):
    for mail, rcpts in ((bad, RCPTS), (MAIL, (bad,))):
        dialogue = ready()
        with pytest.raises(IllegalCall):
            dialogue.begin(mail, rcpts)
        assert (dialogue.state, dialogue.outgoing()) == (State.READY, b"")


def test_auth_plain_comes_with_its_initial_response():
    dialogue = ready()
    dialogue.auth(Plain("user", Password("secret")))
    verb, mechanism, initial = dialogue.outgoing().split()
    assert (verb, mechanism, b64decode(initial)) == (b"AUTH", b"PLAIN", b"\0user\0secret")
    assert dialogue.receive(b"235 in\r\n") == [Answered(Phase.AUTH, Reply(235, ("in",)))]


def test_a_long_initial_response_waits_until_it_is_asked_for():
    dialogue = ready()
    dialogue.auth(Plain("user", Password("s" * 500)))
    assert dialogue.outgoing() == b"AUTH PLAIN\r\n"
    dialogue.receive(b"334 \r\n")
    assert b64decode(dialogue.outgoing()) == b"\0user\0" + b"s" * 500


def test_auth_login_answers_in_order_whatever_the_prompts_say():
    dialogue = ready()
    dialogue.auth(Login("user", Password("secret")))
    said = [dialogue.outgoing()]
    for _ in range(2):
        assert dialogue.receive(b"334 \r\n") == []
        said.append(b64decode(dialogue.outgoing()))
    assert said == [b"AUTH LOGIN\r\n", b"user", b"secret"]


def test_auth_cram_md5_answers_as_in_its_rfc():
    dialogue = ready()
    dialogue.auth(CramMd5("tim", Password("tanstaaftanstaaf")))
    dialogue.outgoing()
    dialogue.receive(b"334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+\r\n")
    assert b64decode(dialogue.outgoing()) == b"tim b913a602c7eda7a495b4e6e7334d3890"


@pytest.mark.parametrize("challenges", [b"334 !!\r\n", b"334 \r\n" * 2])
def test_auth_does_not_go_on_for_ever(challenges):
    dialogue = ready()
    dialogue.auth(Login("u", Password("p")))
    dialogue.outgoing()
    assert isinstance(dialogue.receive(challenges)[-1], Broken)
    dialogue = ready()
    dialogue.auth(Login("u", Password("p")))
    events = play(dialogue, *[b"334 \r\n"] * 3)
    assert isinstance(events[-1], Broken)


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(
        st.sampled_from(
            [b"250 ok\r\n", b"250-a\r\n250 b\r\n", b"550 no\r\n", b"354 go\r\n", b"421 x\r\n", b"?\r\n", b"2"]
        ),
        max_size=7,
    ),
    st.data(),
)
def test_however_the_replies_are_cut_the_events_are_the_same(replies, data):
    stream = b"".join(replies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    whole, cut = begun(), begun()
    whole.outgoing(), cut.outgoing()
    expected = whole.receive(stream)
    events = []
    for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        events += cut.receive(stream[a:b])
    assert (wordless(events), cut.state, cut.phase) == (wordless(expected), whole.state, whole.phase)


TAKEN = b"250 2.0.0 queued\r\n"
ACCEPTED = b"250 ok\r\n" * 4 + b"354 go\r\n"


def behind(*, pipelining: bool = True) -> Dialogue:
    """A dialogue that has begun a transaction behind a dot."""
    dialogue = at(State.ENDED)
    dialogue.pipelining = pipelining
    dialogue.begin(MAIL, RCPTS)
    assert dialogue.outgoing() == WHOLE
    return dialogue


def test_a_transaction_behind_the_dot_gets_the_replies_behind_the_dots():
    dialogue = behind()
    settled, go_ahead = dialogue.receive(TAKEN + ACCEPTED)
    assert {verdict.phase for verdict in settled.verdicts} == {Phase.DOT}
    assert go_ahead == GoAhead((None,) * 3)
    assert dialogue.state is State.BODY
    dialogue.finish()
    (settled,) = dialogue.receive(b"550 no\r\n")
    assert [str(verdict.reply) for verdict in settled.verdicts] == ["550 no"] * 3


def test_nothing_is_begun_behind_a_dot_without_pipelining():
    with pytest.raises(IllegalCall):
        behind(pipelining=False)


@pytest.mark.parametrize("reply", [b"451 4.3.0 later\r\n", b"554 5.7.1 no\r\n"])
def test_behind_a_refused_dot_only_acceptance_is_believed(reply):
    """There is no RSET to show that no second reply to the dot is under way, see above."""
    dialogue = behind()
    settled, go_ahead = dialogue.receive(reply + ACCEPTED)
    assert (isinstance(settled, Settled), isinstance(go_ahead, GoAhead)) == (True, True)
    for second in (b"550 5.1.1 no\r\n", b"451 4.7.1 no\r\n", b"421 4.3.2 bye\r\n", b"354 what?\r\n"):
        for before in range(4 if second[:1] == b"3" else 5):
            events = behind().receive(reply + b"250 ok\r\n" * before + second + b"250 ok\r\n" * 5)
            assert isinstance(events[0], Settled)
            assert isinstance(events[1], Broken)
            assert (events[1].phase, events[1].refused) == (Phase.RSET, ())


@pytest.mark.parametrize("again", [b"250 ok\r\n", b"552 5.3.4 too big\r\n", b"451 no\r\n"])
def test_a_dot_that_is_answered_twice_puts_no_recipients_reply_in_anothers_place(again):
    """The second recipient is refused; with one reply too many, that would be the third one's."""
    mix = b"250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n"
    events = behind().receive(b"552 5.3.4 too big\r\n" + again + mix)
    assert [type(event) for event in events] == [Settled, Broken]


def test_421_to_the_dot_ends_what_was_begun_behind_it():
    dialogue = behind()
    (settled,) = dialogue.receive(b"421 4.3.2 bye\r\n" + ACCEPTED)
    assert isinstance(settled, Settled)
    assert dialogue.over


def test_a_refusal_of_all_behind_a_dot_is_theirs_and_the_next_begins_with_rset():
    dialogue = behind()
    refused = b"250 ok\r\n" + b"550 5.1.1 no\r\n" * 3 + b"554 none\r\n"
    first, second = dialogue.receive(TAKEN + refused)
    assert {verdict.phase for verdict in first.verdicts} == {Phase.DOT}
    assert {verdict.phase for verdict in second.verdicts} == {Phase.RCPT}
    dialogue.begin(MAIL, RCPTS)
    assert dialogue.outgoing() == b"RSET\r\n" + WHOLE


@settings(deadline=None)  # the machine may be busy
@given(
    st.sampled_from([TAKEN, b"451 no\r\n", b"550 no\r\n", b"421 x\r\n"]),
    st.lists(st.sampled_from([b"250 ok\r\n", b"550 no\r\n", b"354 go\r\n", b"421 x\r\n"]), max_size=6),
    st.data(),
)
def test_however_the_replies_behind_a_dot_are_cut_the_events_are_the_same(dot, replies, data):
    stream = dot + b"".join(replies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    whole, cut = behind(), behind()
    expected = whole.receive(stream)
    events = []
    for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for event in cut.receive(stream[a:b]):
            # What has come beyond the reply to the dot depends on the cut.
            first = isinstance(event, Settled) and not events and not dot.startswith(b"421")
            events.append(replace(event, beyond=event.beyond + len(stream) - b) if first else event)
    assert wordless(events) == wordless(expected)
    assert (cut.state, cut.phase) == (whole.state, whole.phase)


def wordless(events: list) -> list:
    """A reply that nobody asked for ends the session at its first byte, before its words have come."""
    return [Broken("", event.phase) if isinstance(event, Broken) else event for event in events]
