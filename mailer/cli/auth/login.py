"""`mailer auth login`: log in with the device flow, while a user enters a code in any browser."""

import asyncio
import shlex
import sys
import time

import click

from mailer.cli.auth.accounts import chosen, provider_argument, source_of
from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.output import json_line
from mailer.cli.reader import tell
from mailer.cli.setup import CommandContext, command_context, configuration
from mailer.config.checks import refuse_to_send
from mailer.config.hops import Provider
from mailer.config.oauth import Grant
from mailer.config.problem import ConfigError
from mailer.mail.login_causes import cause_of
from mailer.mail.reply import printable
from mailer.oauth.device import Prompt, begin, wait
from mailer.oauth.trouble import TokenTrouble
from mailer.spool import words
from mailer.spool.state import provider_state


@click.command(epilog=examples("mailer auth login cloud", "mailer auth login cloud --json"))
@provider_argument
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
    with command_context(loaded, http=True) as context:
        provider = chosen(context.config, name)
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
    _, source = source_of(provider, context)
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
        f"It is valid for {words.duration(prompt.holds)}. Waiting for you (Ctrl-C ends it) ...\n"
    )
