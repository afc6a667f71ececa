"""`mailer monitor`: the status page, health, metrics and the admin requests over HTTP."""

import os
import sys

import click

from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_option, examples, log_format_option, parent_option
from mailer.cli.owner import acting_as_owner, become_owner
from mailer.cli.program import system_words
from mailer.cli.service.children import end_with
from mailer.cli.service.hangup import postpone
from mailer.cli.service.manager import ServiceManager
from mailer.cli.setup import command_context, configuration, program_spool
from mailer.config import checks
from mailer.config.load import Loaded
from mailer.config.problem import ConfigError
from mailer.maillog import outlet
from mailer.spool.directory import Spool
from mailer.spool.preparation import NotMade


@click.command(
    epilog=examples(
        "mailer monitor --config /etc/mailer/config.json",
        "xdg-open $(mailer monitor --link)                              # the status page",
        "curl http://localhost:8025/health",
        "curl http://localhost:8025/metrics                             # the Go relay's JSON",
        "curl -H 'Accept: text/plain' http://localhost:8025/metrics     # what Prometheus gets",
        "curl -X POST http://localhost:8025/admin/retry-failed",
        "curl -X POST -H 'Authorization: Bearer TOKEN' http://localhost:8025/admin/pause",
    )
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Listen on this port instead of healthCheckPort; 0 lets the system choose, and the log names it.",
)
@click.option(
    "--link", "only_link", is_flag=True, help="Print the URL that opens the page and logs in, and exit."
)
@log_format_option
@config_option
@parent_option
def monitor(port: int | None, parent: int | None, *, only_link: bool) -> Exit:
    """Serve the status page, health, metrics and the admin requests on loopback, until SIGTERM or Ctrl-C.

    The page is at /, for a browser on this host; from elsewhere, `ssh -L 8025:localhost:8025 HOST` first.

    GET /health, /livez, /readyz, /metrics, /admin/config; POST /admin/retry-failed, /admin/pause,
    /admin/resume, /admin/clean-old-emails, /admin/replay. Every user of this host may use health, metrics and
    retry-failed.
    The page and the rest need `adminToken` or, without that key, the token that the first start makes:
    `mailer monitor --link` prints the page's address with it. The monitor also checks what `alerts` names.

    The exit code is 69 when the port is in use, 75 while there is no spool, which `mailer serve` makes; the
    command ends immediately with 0 when `enableHealthCheck` is false.
    """
    outlet.install()
    postpone()
    manager = ServiceManager.of(os.environ)
    loaded = configuration()
    config = loaded.config
    if not config.enable_health_check:
        sys.stderr.write("mailer monitor: enableHealthCheck is false, so there is nothing to serve\n")
        # A service manager that waits for READY=1 takes an exit without it for a failure.
        manager.ready("enableHealthCheck is false")
        return Exit.OK
    if problems := checks.refuse_to_monitor(loaded):
        raise ConfigError(problems)
    if not config.admin_token.empty:
        config.admin_token.reveal()  # Fail now, while the operator is watching, not at the first request.
    if only_link:
        return _print_link(loaded, config.health_check_port if port is None else port)
    # Imported here because shell completion needs none of it. *It takes 0.2 s of the start's 0.3 s.*
    from mailer.cli import monitoring  # noqa: PLC0415

    with acting_as_owner(config.spool_dir):
        try:
            spool = program_spool(config, Spool.open)
        except NotMade as error:
            # 75 makes a service manager start the monitor again: the receiver may be making the spool now.
            raise Failure(Exit.TEMPORARY, system_words(error)) from error
    with spool:
        site = monitoring.bound(config.health_check_port if port is None else port)
        become_owner(config.spool_dir)
        end_with(parent)
        monitoring.run(loaded, spool, site, manager)
    return Exit.OK


def _print_link(loaded: Loaded, port: int) -> Exit:
    from mailer.cli.monitoring import link  # noqa: PLC0415 - as above
    from mailer.config.secrets import Secret  # noqa: PLC0415 - as above
    from mailer.monitor.token import known  # noqa: PLC0415 - as above

    token = loaded.config.admin_token
    if token.empty:
        with command_context(loaded) as context:
            token = Secret(known(context.spool))
    if token.empty:
        raise Failure(Exit.UNAVAILABLE, "there is no token yet: start mailer monitor, or mailer up")
    sys.stdout.write(f"{link(port, token)}\n")
    return Exit.OK
