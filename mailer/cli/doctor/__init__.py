"""`mailer doctor`: check this host, the network and DNS for everything that mail needs."""

import ipaddress
from pathlib import Path

import click

from mailer.cli.exits import Exit
from mailer.cli.name_server import resolver_option
from mailer.cli.options import config_option, examples, json_of


def _domains(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    from mailer.send.dkim.author import ascii_domain  # noqa: PLC0415 - needed only when --domain is given

    try:
        return tuple(ascii_domain(text) for text in value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _addresses(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
    try:
        return tuple(ipaddress.ip_address(text) for text in value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


@click.command(
    epilog=examples(
        "mailer doctor                                   everything",
        "mailer doctor --offline                         this host alone, in a second",
        "mailer doctor --domain example.com --egress 192.0.2.25 --resolver 192.0.2.53",
        "mailer doctor --json | jq -r 'select(.grade == \"problem\") | .todo'",
        "mailer doctor --offline --all --second-mount /mnt/other/spool",
        "mailer doctor --strict >/dev/null || echo look",
    )
)
@click.option(
    "--domain", "domains", metavar="D", multiple=True, callback=_domains,
    help="Check this domain instead of the known sender domains; may be repeated.",
)  # fmt: skip
@click.option(
    "--egress", metavar="IP", multiple=True, callback=_addresses,
    help="The address that others see our mail come from, if this host cannot know (NAT); may be repeated.",
)  # fmt: skip
@resolver_option
@click.option("--offline", is_flag=True, help="Contact no other host.")
@click.option(
    "--second-mount", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
    help="The spool's directory in a second mount of its filesystem, to test what two hosts see.",
)  # fmt: skip
@click.option(
    "--all", "everything", is_flag=True, help="Also print what is ok, and each result as it is found."
)
@click.option("--strict", is_flag=True, help="Also exit with 1 for warnings.")
@json_of("group, about, what, grade (ok warning problem unknown skipped), found, todo")
@config_option
def doctor(
    *,
    offline: bool,
    second_mount: Path | None,
    everything: bool,
    strict: bool,
    as_json: bool,
    **asked: object,
) -> Exit:
    """Check the set-up: this host, the providers, and what DNS says of the domains that send.

    This checks the configuration, the files and their modes, the abilities of the spool's filesystem, the
    clock, the disk, the ports, the queue, each provider (up to the login; no mail is sent), the prerequisites
    of direct delivery, and SPF, DKIM, DMARC and MX of each sender domain. It changes nothing, and works
    before the first start and while everything runs. Each line is ok, warning, problem, unknown (it could not
    be checked) or skipped, and says what to do. Problems come first, and all that is ok is one line, unless
    --all is given.

    The exit code is 0 without problems, 1 with problems, 75 when something could not be checked, 78 when the
    configuration cannot be used.
    """
    # Imported here because --help does not need it, and before root becomes the spool's owner, who may be
    # unable to read root's Python.
    import asyncio  # noqa: PLC0415

    from mailer.cli.doctor.examination import examine, examine_without_configuration  # noqa: PLC0415
    from mailer.cli.doctor.network import Asked  # noqa: PLC0415
    from mailer.cli.doctor.report import Report  # noqa: PLC0415
    from mailer.cli.owner import become_owner  # noqa: PLC0415
    from mailer.cli.receiving.start import obstacles  # noqa: PLC0415
    from mailer.cli.setup import configuration  # noqa: PLC0415
    from mailer.config.problem import ConfigError  # noqa: PLC0415

    report = Report(as_json=as_json, everything=everything)
    try:
        loaded = configuration()
    except ConfigError as error:
        examine_without_configuration(error, report)
        report.end(strict=strict)
        return Exit.CONFIG
    become_owner(loaded.config.spool_dir)
    network = None if offline else Asked(**asked)  # type: ignore[arg-type]  # click has converted them
    asyncio.run(examine(loaded, report, network, second_mount))
    code = report.end(strict=strict)
    return Exit.CONFIG if obstacles(loaded) else code
