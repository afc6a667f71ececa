"""What answers over HTTP mean: plain values, from an answer to what is done about it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mailer.mail.login_causes import cause_of
from mailer.mail.outcome import Outcome, Scope, Status
from mailer.send.http.answer import Answer
from mailer.send.replies.reader import read_line
from mailer.send.routes import breaker
from mailer.send.routes.breaker import Ailment, Kind
from mailer.send.trouble import Action, Hardness, decide, judge_http, too_many
from mailer.spool.state.provider_state import Health, ProviderState, Witness, health

NOW = datetime(2027, 1, 1, tzinfo=UTC)
DATE = "Fri, 01 Jan 2027 00:00:00 GMT"


def answer(status: int, said: Any, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return Answer(status, named, body)


def graph(status: int, code: str, message: str = "words", **headers: str) -> Answer:
    return answer(status, {"error": {"code": code, "message": message}}, **headers)


def gmail(status: int, reason: str, message: str = "words", **headers: str) -> Answer:
    errors = [{"domain": "global", "reason": reason, "message": message}]
    return answer(status, {"error": {"errors": errors, "code": status, "message": message}}, **headers)


def mailgun(status: int, message: str) -> Answer:
    return answer(status, {"message": message})


def ses(status: int, name: str, message: str = "words") -> Answer:
    return answer(status, {"message": message}, x_amzn_ErrorType=f"{name}:http://internal.amazon.com/")


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (answer(202, b""), "HTTP 202 Accepted"),
        (answer(202, b"", request_id="a-1"), "HTTP 202 Accepted id=a-1"),
        (answer(200, {"id": "18c", "threadId": "1"}), "HTTP 200 OK id=18c"),
        (
            graph(403, "ErrorAccessDenied", "Access is denied."),
            "HTTP 403 ErrorAccessDenied: Access is denied.",
        ),
        (gmail(403, "dailyLimitExceeded", "Daily Limit"), "HTTP 403 dailyLimitExceeded: Daily Limit"),
        (gmail(400, "badRequest", "Invalid To header"), "HTTP 400 Invalid To header"),
        (answer(504, b"<html>Gateway</html>", Content_Type="text/html"), "HTTP 504 no reason is given"),
        (answer(502, b"upstream\r\nfailed", Content_Type="text/plain"), "HTTP 502 upstream\\r\\nfailed"),
        (answer(500, b'{"error": [1, {"code"'), "HTTP 500 no reason is given"),
        (answer(400, b'[["x"]]'), "HTTP 400 no reason is given"),
        (answer(400, {"error": "invalid"}), "HTTP 400 no reason is given"),
        (graph(429, "TooMany", Retry_After="30"), "HTTP 429 TooMany: words (Retry-After: 30 s)"),
        (
            graph(429, "TooMany", Retry_After="Fri, 01 Jan 2027 00:02:00 GMT", Date=DATE),
            "HTTP 429 TooMany: words (Retry-After: 120 s)",
        ),
        (
            gmail(429, "x", "User-rate limit.  Retry after 2027-01-01T00:10:00.000Z", Date=DATE),
            "HTTP 429 x: User-rate limit.  Retry after 2027-01-01T00:10:00.000Z (Retry-After: 600 s)",
        ),
        (graph(429, "TooMany", Retry_After="soon"), "HTTP 429 TooMany: words"),
        (graph(429, "TooMany", Retry_After="-5"), "HTTP 429 TooMany: words"),
        (graph(429, "TooMany", Retry_After=f"Fri, 01 Jan {10**19} 00:02:00 GMT"), "HTTP 429 TooMany: words"),
        (gmail(429, "x", "Retry after 2027-13-01T00:10:00Z"), "HTTP 429 x: Retry after 2027-13-01T00:10:00Z"),
    ],
)
def test_an_answer_is_one_line(said: Answer, line: str) -> None:
    assert said.line() == line


def test_a_long_or_hostile_answer_stays_a_short_line() -> None:
    line = graph(400, "x" * 5000, "\x1b[2J" * 5000).line(3)
    assert len(line) < 700
    assert line.isprintable()
    assert line.endswith("(one of 3 recipients)")


MEANINGS = [
    (graph(401, "InvalidAuthenticationToken"), Scope.PROVIDER, Action.RETRY, "apiTokenRefused"),
    (graph(403, "ErrorAccessDenied"), Scope.PROVIDER, Action.RETRY, "apiPermission"),
    (graph(404, "MailboxNotEnabledForRESTAPI"), Scope.PROVIDER, Action.RETRY, "apiMailbox"),
    (graph(404, "ErrorInvalidUser"), Scope.PROVIDER, Action.RETRY, "apiMailbox"),
    (graph(403, "ErrorSendAsDenied"), Scope.MESSAGE, Action.SECOND_OPINION, ""),
    (
        graph(429, "ApplicationThrottled", "over its MailboxConcurrency limit"),
        Scope.PROVIDER,
        Action.RETRY,
        "",
    ),
    (graph(429, "ErrorExceededMessageLimit"), Scope.PROVIDER, Action.RETRY, ""),
    (graph(400, "ErrorInvalidRecipients"), Scope.RECIPIENT, Action.BOUNCE, ""),
    (graph(413, "RequestEntityTooLarge"), Scope.MESSAGE, Action.BOUNCE, ""),
    (graph(400, "ErrorMessageSizeExceeded"), Scope.MESSAGE, Action.BOUNCE, ""),
    (graph(400, "ErrorMimeContentInvalidBase64String"), Scope.MESSAGE, Action.BOUNCE, ""),
    (graph(400, "SomethingNew"), Scope.MESSAGE, Action.SECOND_OPINION, ""),
    (graph(409, "Conflict"), Scope.HOST, Action.RETRY, ""),
    (answer(307, b""), Scope.HOST, Action.RETRY, ""),
    (answer(401, b"Forbidden", Content_Type="text/plain"), Scope.PROVIDER, Action.RETRY, "apiKeyRefused"),
    (mailgun(404, "Domain not found: mg.example.com"), Scope.PROVIDER, Action.RETRY, "apiDomain"),
    (mailgun(403, "Domain mg is not allowed to send: unverified"), Scope.PROVIDER, Action.RETRY, "apiDomain"),
    (mailgun(400, "to parameter is missing"), Scope.MESSAGE, Action.SECOND_OPINION, ""),
    (mailgun(400, "'to' parameter is not a valid address"), Scope.RECIPIENT, Action.BOUNCE, ""),
    (mailgun(420, "recipient limit exceeded, try again later"), Scope.PROVIDER, Action.RETRY, ""),
    (mailgun(413, "Request Entity Too Large"), Scope.MESSAGE, Action.BOUNCE, ""),
    (ses(400, "MessageRejected", "Email address is not verified."), Scope.MESSAGE, Action.SECOND_OPINION, ""),
    (ses(400, "MailFromDomainNotVerifiedException"), Scope.MESSAGE, Action.SECOND_OPINION, ""),
    (ses(400, "BadRequestException", "Missing final '@domain'"), Scope.RECIPIENT, Action.BOUNCE, ""),
    (ses(400, "AccountSuspendedException"), Scope.PROVIDER, Action.RETRY, "sendingPaused"),
    (ses(400, "SendingPausedException"), Scope.PROVIDER, Action.RETRY, "sendingPaused"),
    (ses(400, "LimitExceededException"), Scope.PROVIDER, Action.RETRY, ""),
    (ses(429, "TooManyRequestsException", "sending rate exceeded"), Scope.PROVIDER, Action.RETRY, ""),
    (ses(403, "InvalidSignatureException", "does not match"), Scope.PROVIDER, Action.RETRY, "awsKeyRefused"),
    (
        ses(403, "InvalidSignatureException", "Signature expired: 2"),
        Scope.PROVIDER,
        Action.RETRY,
        "clockSkew",
    ),
    (ses(403, "UnrecognizedClientException"), Scope.PROVIDER, Action.RETRY, "awsKeyRefused"),
    (ses(403, "AccessDeniedException", "not authorized"), Scope.PROVIDER, Action.RETRY, "apiPermission"),
    (gmail(401, "authError", "Invalid Credentials"), Scope.PROVIDER, Action.RETRY, "apiTokenRefused"),
    (gmail(403, "insufficientPermissions"), Scope.PROVIDER, Action.RETRY, "apiPermission"),
    (gmail(403, "dailyLimitExceeded"), Scope.PROVIDER, Action.RETRY, ""),
    (gmail(403, "userRateLimitExceeded"), Scope.PROVIDER, Action.RETRY, ""),
    (
        gmail(400, "failedPrecondition", "Mail service not enabled"),
        Scope.PROVIDER,
        Action.RETRY,
        "apiMailbox",
    ),
    (gmail(400, "invalidArgument", "Invalid To header"), Scope.RECIPIENT, Action.BOUNCE, ""),
    (gmail(400, "invalidArgument", "Recipient address required"), Scope.RECIPIENT, Action.BOUNCE, ""),
    # A mailbox may be called anything.
    (
        mailgun(400, "'to' parameter is not a valid address: daily@x.example"),
        Scope.RECIPIENT,
        Action.BOUNCE,
        "",
    ),
    (
        graph(400, "ErrorInvalidRecipients", "'daily.limit@x.example' and throttle@x.example"),
        Scope.RECIPIENT,
        Action.BOUNCE,
        "",
    ),
    (mailgun(400, 'illegal address "too many requests"@x.example'), Scope.RECIPIENT, Action.BOUNCE, ""),
    (
        ses(400, "MessageRejected", "Email address is not verified: daily-report@x.example, daily@x.example"),
        Scope.MESSAGE,
        Action.SECOND_OPINION,
        "",
    ),
    (ses(400, "X", "Daily message quota exceeded."), Scope.PROVIDER, Action.RETRY, ""),
    (gmail(403, "x", "Daily user sending limit exceeded"), Scope.PROVIDER, Action.RETRY, ""),
]


@pytest.mark.parametrize(("said", "scope", "action", "cause"), MEANINGS, ids=lambda value: str(value)[:60])
def test_what_a_refusal_means(said: Answer, scope: Scope, action: Action, cause: str) -> None:
    line = said.line()
    status, whose = judge_http(line)
    assert whose is scope
    outcome = Outcome("bob@example.net", status, "api.example.com:443", line, whose, phase="dot")
    assert decide(whose, Hardness.of(outcome), hops_left=False) is action
    found = cause_of(line)
    assert (found.name if found else "") == cause
    if scope in {Scope.PROVIDER, Scope.HOST, Scope.MESSAGE}:
        elsewhere = {Action.NEXT_HOP, Action.RETRY}
        assert decide(whose, Hardness.of(outcome), hops_left=True) in elsewhere


@pytest.mark.parametrize("said", [graph(400, "ErrorInvalidRecipients"), graph(400, "SomethingNew")])
def test_a_refusal_of_one_among_several_is_asked_for_apart(said: Answer) -> None:
    line = said.line(3)
    status, scope = judge_http(line)
    assert too_many(Outcome("bob@example.net", status, "api.example.com:443", line, scope))


@pytest.mark.parametrize(
    ("said", "pause"),
    [
        (graph(429, "TooMany", Retry_After="7"), 7),
        (graph(429, "TooMany", Retry_After="7200"), 7200),
        (graph(429, "TooMany", Retry_After="999999"), 86_400),
        (graph(429, "TooMany"), 60),
        (graph(429, "ErrorExceededMessageLimit"), 3600),
    ],
)
def test_a_pause_is_as_long_as_was_asked(said: Answer, pause: float) -> None:
    """A mail has no part in it, so one answer is enough; and asked for again, it is not doubled."""
    ailment = Ailment.of(Scope.PROVIDER, said.line())
    assert ailment.kind is Kind.QUOTA
    state = breaker.failed(ProviderState(), ailment, NOW)
    end = NOW + timedelta(seconds=pause)
    assert state.open_until == end
    assert health(state, end - timedelta(seconds=1)) is Health.OPEN
    assert health(state, end) is Health.HALF_OPEN
    again = breaker.failed(state, ailment, end)
    assert again.open_until == end + timedelta(seconds=pause if ailment.asked else min(2 * pause, 3600))


def test_a_host_is_paused_for_as_long_as_it_asks() -> None:
    """503 with Retry-After is about any mail: one is enough, though it answered a mail's request."""
    mail = Witness("1", "a@x.example", ("y.example",))
    busy = Ailment.of(Scope.HOST, answer(503, b"", Retry_After="1200").line(), mail)
    assert breaker.failed(ProviderState(), busy, NOW).open_until == NOW + timedelta(seconds=1200)
    without = Ailment.of(Scope.HOST, answer(503, b"").line(), mail)
    assert breaker.failed(ProviderState(), without, NOW).open_until is None


def test_words_of_a_server_that_looks_like_one_over_http_stay_smtp() -> None:
    assert read_line("rcpt", "550 5.1.1 HTTP 429 user unknown").about.value == "recipient"
    assert judge_http("HTTP nonsense")[0] is Status.DEFERRED
