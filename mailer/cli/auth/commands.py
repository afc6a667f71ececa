"""`mailer auth status`, `login`, `test` and `logout`."""

import asyncio
import shlex
import sys
import time
from dataclasses import replace

import click
import msgspec

from mailer.cli import arguments
from mailer.cli.doctor.report import Report
from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.output import end_with_the_pipe, json_line, tell
from mailer.cli.setup import CommandContext, command_context, configuration
from mailer.config.checks import refuse_to_send
from mailer.config.hops import Provider, by_name, find_providers
from mailer.config.model import Config
from mailer.config.oauth import Grant, OAuth2
from mailer.config.own_name import own_name
from mailer.config.problem import ConfigError
from mailer.mail.clock import rfc3339
from mailer.mail.duration import duration
from mailer.mail.finding import Finding, Grade
from mailer.mail.login_causes import cause_of
from mailer.mail.reply import printable
from mailer.oauth.device import Prompt, begin, wait
from mailer.oauth.source import TokenSource
from mailer.oauth.trouble import TokenTrouble
from mailer.send.checks.provider import check_provider, look_up
from mailer.send.routes.hops import hop_of
from mailer.spool import words
from mailer.spool.state import provider_state
from mailer.spool.state.token_store import Tokens

_provider_argument = click.argument("name", metavar="PROVIDER", shell_complete=arguments.providers)


class Row(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The state of a provider with tokens. Times are written as in the ledger, and empty if unknown."""

    name: str
    username: str
    grant: str
    token_obtained: str
    token_ends: str
    usable: bool
    """Whether the stored access token has not expired."""
    refresh_token: bool
    """Whether a refresh token is stored."""
    refresh_token_used: str
    refresh_token_ends: str
    """As the token server said."""
    secret_ends: str
    """The value of `expires`."""
    certificate_ends: str
    failed_at: str
    failure: str
    """Why the last request got no token; empty if it got one."""
    cause: str
    todo: str


def _source_of(provider: Provider, context: CommandContext) -> tuple[OAuth2, TokenSource]:
    """Return a provider's OAuth settings and its token source."""
    assert provider.oauth is not None
    return provider.oauth, TokenSource(
        provider.oauth, provider.username, provider.account, context.spool, time.time
    )


def _chosen(config: Config, name: str) -> Provider:
    """Return the provider that a command names, with its unambiguous name.

    Raises:
        Failure: no provider has this name, it has no tokens, or several have this address.
    """
    found = find_providers(config.providers, name)
    with_tokens = {each: one for each, one in found.items() if one.oauth}
    if len(with_tokens) == 1:
        [(label, one)] = with_tokens.items()
        return msgspec.structs.replace(one, name=label)
    if with_tokens:
        raise Failure(
            Exit.USAGE, printable(f"{name} is the address of several providers: {', '.join(with_tokens)}")
        )
    if found:
        why = "logs in without tokens: its auth is not of type oauth2"
        raise Failure(Exit.CONFIG, printable(f"{name} {why}"))
    there = ", ".join(each for each, one in by_name(config.providers).items() if one.oauth) or "none"
    raise Failure(Exit.NO_INPUT, printable(f"{name}: no such provider; those with tokens: {there}"))


@click.command(epilog=examples("mailer auth status", "mailer auth status --json"))
@json_of(
    "name, username, grant, tokenObtained, tokenEnds, usable, "
    "refreshToken, refreshTokenUsed, refreshTokenEnds, secretEnds, certificateEnds, "
    "failedAt, failure, cause, todo"
)
@config_option
def status(*, as_json: bool) -> None:
    """Show every provider with tokens: how it logs in, until when, and what was wrong last.

    No token is shown, and no server is contacted.
    """
    end_with_the_pipe()
    with command_context() as context:
        known = by_name(context.config.providers)
        rows = [asyncio.run(_row(name, each, context)) for name, each in known.items() if each.oauth]
    if not rows and not as_json:
        sys.stdout.write("no provider logs in with tokens: none has auth of type oauth2\n")
    sys.stdout.writelines(json_line(row) if as_json else _text(row) for row in rows)


async def _row(name: str, provider: Provider, context: CommandContext) -> Row:
    credentials, source = _source_of(provider, context)
    kept, failure = Tokens(), ""
    try:
        kept = await source.kept()
        failure = kept.failure
    except TokenTrouble as trouble:
        failure = trouble.text
    cause = cause_of(failure)
    return Row(
        name=name,
        username=provider.username,
        grant=credentials.grant.value,
        token_obtained=_written(kept.obtained),
        token_ends=_written(kept.ends),
        usable=bool(kept.access) and time.time() < kept.ends,
        refresh_token=bool(kept.refresh),
        refresh_token_used=_written(kept.refreshed),
        refresh_token_ends=_written(kept.refresh_ends),
        secret_ends=credentials.expires,
        certificate_ends=_written(kept.certificate_ends),
        failed_at=_written(kept.failed),
        failure=failure,
        cause=cause.name if cause else "",
        todo=cause.advice(name) if cause else "",
    )


def _written(moment: float) -> str:
    return rfc3339(moment) if moment else ""


def _text(row: Row) -> str:
    token = f"token until {words.moment_of(row.token_ends)}" if row.usable else "no token"
    lines = [f"{row.name}: {row.username}, {row.grant}, {token}"]
    if row.refresh_token:
        ends = f", ends {words.moment_of(row.refresh_token_ends)}" if row.refresh_token_ends else ""
        last = (
            f"last used {words.moment_of(row.refresh_token_used)}" if row.refresh_token_used else "not used"
        )
        lines.append(f"    refresh token {last}{ends}")
    if row.secret_ends:
        lines.append(f"    secret or certificate ends {row.secret_ends}")
    if row.certificate_ends:
        lines.append(f"    certificate ends {words.moment_of(row.certificate_ends)}")
    if row.failure:
        at = f" {words.moment_of(row.failed_at)}" if row.failed_at else ""
        lines.append(f"    last trouble{at}: {row.failure}")
    if row.todo:
        lines.append(f"    what to do: {row.todo}")
    return "".join(f"{printable(line, 2000)}\n" for line in lines)


@click.command(epilog=examples("mailer auth test cloud", "mailer auth test cloud --json"))
@_provider_argument
@json_of("group, about, what, grade (ok warning problem unknown skipped), found, todo")
@config_option
def test(name: str, *, as_json: bool) -> Exit:
    """Ask for a new token and log in with it, as a run would; no mail is sent.

    The exit code is 0 when the provider accepts the login, 1 when something is wrong.
    """
    loaded = configuration()
    with command_context(loaded) as context:
        provider = _chosen(context.config, name)
        report = Report(as_json=as_json, everything=True)
        report.waiting_for([provider.label])
        report.group(provider.label, asyncio.run(_tried(provider, context)))
        return report.end(strict=False)


async def _tried(provider: Provider, context: CommandContext) -> list[Finding]:
    credentials, source = _source_of(provider, context)
    try:
        made = await source.renew()
    except TokenTrouble as trouble:
        cause = cause_of(trouble.text)
        todo = cause.advice(provider.label) if cause else ""
        return [Finding(credentials.token_url, "token", Grade.PROBLEM, trouble.text, todo)]
    until = words.moment(made.ends)
    hop = replace(hop_of(provider, context.config, own_name(context.config)), tokens=source)
    looked_up, addresses = await look_up(hop)
    found = await check_provider(hop, provider.label, time.time()) if addresses else []
    return [Finding(credentials.token_url, "token", Grade.OK, f"a new one, until {until}"), looked_up, *found]


@click.command(epilog=examples("mailer auth logout cloud"))
@_provider_argument
@json_of("name, forgotten (true if there were any)")
@config_option
def logout(name: str, *, as_json: bool) -> None:
    """Delete the tokens that are stored here.

    With a grant that needs no user, the next mail gets new tokens; with `deviceCode`, mail waits until
    `mailer auth login`. To withdraw the consent of the user or the administrator, go to the provider.
    """
    with command_context() as context:
        provider = _chosen(context.config, name)
        _, source = _source_of(provider, context)
        try:
            there = asyncio.run(source.forget())
        except TokenTrouble as trouble:
            raise Failure(Exit.TEMPORARY, trouble.text) from trouble
    told = "its tokens were deleted" if there else "no tokens were stored"
    row = {"name": provider.label, "forgotten": there}
    tell(sys.stdout, json_line(row) if as_json else printable(f"{provider.label}: {told}") + "\n")


@click.command(epilog=examples("mailer auth login cloud", "mailer auth login cloud --json"))
@_provider_argument
@json_of("event (code done), provider; with the code verificationUri, userCode, expiresIn")
@config_option
def login(name: str, *, as_json: bool) -> None:
    """Log in as a user, for a provider whose grant is `deviceCode`.

    This prints an address and a code. Open the address in any browser, on any device, log in as the
    mailbox's user and enter the code. The command waits for that (Ctrl-C ends it), and stores the tokens in
    the spool. With --json the first line has the code, and the last line reports success.

    The exit code is 0 after a login, 75 when the code was not entered in time or the server does not answer,
    78 when the server refuses the application.
    """
    loaded = configuration()
    if problems := refuse_to_send(loaded):
        raise ConfigError(problems)
    with command_context(loaded) as context:
        provider = _chosen(context.config, name)
        assert provider.oauth is not None
        if provider.oauth.grant is not Grant.DEVICE_CODE:
            why = f"its grant, {provider.oauth.grant}, needs no user; try it with mailer auth test"
            raise Failure(Exit.CONFIG, printable(f"{provider.label}: {why} {shlex.quote(provider.label)}"))
        try:
            asyncio.run(_log_in(provider, context, as_json=as_json))
        except TokenTrouble as trouble:
            cause = cause_of(trouble.text)
            todo = f"\n{cause.advice(provider.label)}" if cause else ""
            code = Exit.TEMPORARY if trouble.temporary else Exit.CONFIG
            raise Failure(code, f"{trouble.text}{todo}") from trouble


async def _log_in(provider: Provider, context: CommandContext, *, as_json: bool) -> None:
    _, source = _source_of(provider, context)
    credentials = await source.credentials()
    source.check_room()  # Before the user logs in, in case the tokens cannot be stored.
    prompt = await begin(credentials, time.time())
    tell(sys.stdout, _shown(provider, prompt, as_json=as_json))
    progress = sys.stderr.isatty()
    async for made in wait(credentials, prompt, time.time, asyncio.sleep):
        if made is None:
            if progress:
                tell(sys.stderr, ".")
            continue
        await source.keep(made)
    if progress:
        tell(sys.stderr, "\n")
    provider_state.forget(context.spool, {provider.account})
    context.log.provider(provider.label, "closed", f"logged in by {context.operator}")
    done = {"event": "done", "provider": provider.label}
    test = f"mailer auth test {shlex.quote(provider.label)}"
    said = f"{provider.label}: logged in; to check that mail can be sent: {test}"
    tell(sys.stdout, json_line(done) if as_json else printable(said) + "\n")


def _shown(provider: Provider, prompt: Prompt, *, as_json: bool) -> str:
    if as_json:
        row = {"verificationUri": prompt.url, "userCode": prompt.code, "expiresIn": prompt.holds}
        return json_line({"event": "code", "provider": provider.label, **row})
    user = printable(provider.username, 320)
    return (
        f"Open {prompt.url} in a browser, log in as {user}, and enter the code\n\n    {prompt.code}\n\n"
        f"It is valid for {duration(prompt.holds)}. Waiting for you (Ctrl-C ends it) ...\n"
    )
