"""The `mailer` command: its subcommands, and the command line of the Go relay that it replaces."""

import click

from mailer import __version__
from mailer.cli.lazy import LazyGroup
from mailer.cli.options import config_option, examples


@click.group(
    epilog=examples(
        "mailer init                      asks six questions and writes a configuration",
        "mailer up                        receive and send, in the foreground",
        "mailer test --to you@example.net one real mail, followed to the remote server's reply",
        "mailer spool ls                  what is in the queue",
        "mailer spool why 01JD0M3Q        what happened to a message, and what will",
        "mailer log --to bob@ --since 2d  what happened to mail, delivered or not",
        "mailer config check              check the configuration",
        "mailer guide microsoft365        from nothing to mail through a provider, step by step",
        "mailer doctor                    check all that mail needs: disk, providers, DNS",
    ),
    cls=LazyGroup,
    commands_in={
        "init": "mailer.cli.init:init",
        "up": "mailer.cli.up:up",
        "test": "mailer.cli.trial:test",
        "serve": "mailer.cli.serve:serve",
        "session": "mailer.cli.serve:session",
        "send": "mailer.cli.send:send",
        "monitor": "mailer.cli.monitor:monitor",
        "pause": "mailer.cli.pause:pause",
        "resume": "mailer.cli.pause:resume",
        "reload": "mailer.cli.reload:reload",
        "spool": "mailer.cli.spool:spool",
        "hosts": "mailer.cli.hosts:hosts",
        "providers": "mailer.cli.providers:providers",
        "auth": "mailer.cli.auth:auth",
        "route": "mailer.cli.route:route",
        "explain-trouble": "mailer.cli.explain_trouble:explain_trouble",
        "import": "mailer.cli.imports:import_queue",
        "user": "mailer.cli.user:user",
        "events": "mailer.cli.events:events",
        "suppress": "mailer.cli.suppress:suppress",
        "log": "mailer.cli.log:log",
        "limits": "mailer.cli.limits:limits",
        "top": "mailer.cli.top:top",
        "config": "mailer.cli.config:config",
        "dkim": "mailer.cli.dkim:dkim",
        "doctor": "mailer.cli.doctor:doctor",
        "guide": "mailer.cli.guide:guide",
        "completion": "mailer.cli.completion:completion",
    },
    summaries={
        "init": "Write a minimal configuration with a generated password, and print the...",
        "up": "Receive and send in the foreground, until Ctrl-C.",
        "test": "Send one real mail, follow it to the remote server's reply, and explain the...",
        "serve": "Receive mail into the spool until SIGTERM or Ctrl-C, which let messages...",
        "session": "",
        "send": "Deliver what is in the spool.",
        "monitor": "Serve the status page, health, metrics and the admin requests on loopback,...",
        "pause": "Send nothing until `mailer resume`: runners claim no message; deliveries...",
        "resume": "End a pause: `mailer-send --watch` continues within a second, other runners...",
        "reload": "Have `serve`, `mailer-send --watch`, `monitor` and `up` read their...",
        "spool": "Look into the queue, and act on it.",
        "hosts": "Show the hosts that share `spoolDir`: which host uses the spool of each, and...",
        "providers": "Show the providers in the order in which they are tried, and the state of each.",
        "auth": "Log in to providers whose `auth` is of type oauth2, and show the state of...",
        "route": "Explain where a mail would go: the rule, the hops in order, and the terms of...",
        "explain-trouble": "Print what is done about each kind of trouble, why, and which RFC says so.",
        "import": "Take over the mail that another relay has accepted and not delivered; stop...",
        "user": "Manage the users file: more logins, each with its own rights.",
        "events": "Manage events, which tell `onEvent` of mail that was sent, given up or delayed.",
        "suppress": "Manage the suppression list: addresses and domains that get no mail from any...",
        "log": "Print what happened to mail, from the ledger; the earliest first, times in UTC.",
        "limits": "Show for each sender and user with a limit what they sent in the last hour...",
        "top": "Show queue, throughput, providers and rate limits, and keep them up to date;...",
        "config": "Check, show and explain the configuration.",
        "dkim": "Sign mail so that receivers can tell it is yours (RFC 6376).",
        "doctor": "Check the set-up: this host, the providers, and what DNS says of the domains...",
        "guide": "Read a guide: how to set something up, step by step; without TOPIC list them.",
        "completion": "Print the shell's completion script for mailer and mailer-send.",
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="mailer")
@config_option
def cli() -> None:
    """A localhost SMTP submission relay: a durable spool, and an independent runner.

    Exit codes follow sysexits.h: 0 success, 1 problems were found, 2 usage, 65 the message's state does
    not allow it, 66 no such message, 69 not available, 70 a defect in mailer, 73 cannot create, 75 temporary
    failure, try again, 77 not permitted, 78 configuration.
    """


def arguments_of_today(arguments: list[str]) -> list[str]:
    """Translate the Go relay's command line, `mailer -config FILE`, into `mailer up --config FILE`."""
    match arguments:
        case ["-config", *rest]:
            return ["up", "--config", *rest]
        case [first, *rest] if first.startswith("-config="):
            return ["up", f"-{first}", *rest]
    return arguments
