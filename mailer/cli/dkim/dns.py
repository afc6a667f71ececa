"""`mailer dkim check` and `verify`: check our keys, or a message's signatures, against DNS."""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click
from msgspec.structs import asdict, replace

from mailer.cli.dkim.keys import chosen, domain_option, key_file, selector_option, surroundings
from mailer.cli.exits import Exit, Failure
from mailer.cli.file_access import unreadable
from mailer.cli.name_server import name_servers, resolver_option
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.output import json_line
from mailer.cli.owner import become_owner
from mailer.config.model import Config, DkimKey
from mailer.config.trust import owners_of
from mailer.mail.finding import Finding, Grade
from mailer.mail.reply import printable

if TYPE_CHECKING:
    from mailer.send.resolver import DnsResolver


@click.command(
    epilog=examples("mailer dkim check", "mailer dkim check --domain example.com --resolver 192.0.2.53")
)
@domain_option
@selector_option
@resolver_option
@json_of("about, what, grade (ok warning problem unknown skipped), found, todo")
@config_option
def check(domain: str | None, selector: str | None, resolver: str | None, *, as_json: bool) -> Exit:
    """Compare the published keys with ours, and look at SPF, DMARC and MX.

    The exit code is 0 when receivers can verify our signatures, 1 when they cannot, 75 when DNS did not
    answer.
    """
    base, config = surroundings()
    keys = chosen(base, config, domain, selector)
    # Check as the user of the runner, which signs: root could read any key.
    become_owner(config.spool_dir)
    findings = asyncio.run(_examine(keys, base, config, name_servers(config, resolver)))
    for finding in findings:
        if as_json:
            _print_json(asdict(finding))
        else:
            _print_finding(finding)
    grades = {finding.grade for finding in findings}
    if Grade.PROBLEM in grades:
        return Exit.FINDINGS
    return Exit.TEMPORARY if Grade.UNKNOWN in grades else Exit.OK


@click.command(epilog=examples("mailer dkim verify message.eml", "mailer dkim verify - < message.eml"))
@click.argument("file", type=click.File("rb"))
@resolver_option
@json_of("domain, selector, algorithm, result, reason")
@config_option
def verify(file: BinaryIO, resolver: str | None, *, as_json: bool) -> Exit:
    """Verify the signatures of a message in a file, or on standard input with `-`: ten of them, from the top.

    The exit code is 0 when every signature is valid, 1 when one is not, 65 when there is none, 75 when DNS
    did not answer.
    """
    from mailer.send.dkim import verify as dkim_verify  # noqa: PLC0415 - imports dkimpy, needed only here
    from mailer.send.dkim.opened import MAX_MESSAGE  # noqa: PLC0415 - as above

    _, config = surroundings()
    dns = name_servers(config, resolver)
    verdicts = asyncio.run(dkim_verify.verify(file.read(MAX_MESSAGE + 1), dns))
    for verdict in verdicts:
        if as_json:
            _print_json(verdict._asdict())
        else:
            key = f"{verdict.selector}._domainkey.{verdict.domain}" if verdict.domain else "no key"
            reason = f": {verdict.reason}" if verdict.reason else ""
            sys.stdout.write(f"{verdict.result:<9} {key} {verdict.algorithm}{reason}\n")
    if not verdicts:
        raise Failure(Exit.DATA, "the message has no DKIM signature")
    results = {verdict.result for verdict in verdicts}
    if results == {dkim_verify.Result.PASS}:
        return Exit.OK
    return Exit.TEMPORARY if dkim_verify.Result.TEMPORARY in results else Exit.FINDINGS


async def _examine(keys: Sequence[DkimKey], base: Path, config: Config, dns: "DnsResolver") -> list[Finding]:
    from mailer.send.checks.domain import check_domain, check_key  # noqa: PLC0415 - as in verify
    from mailer.send.dkim.key_files import KeyFile  # noqa: PLC0415 - as in verify
    from mailer.send.dkim.signer import Signer  # noqa: PLC0415 - as in verify

    signer = Signer(config.dkim, time.time)
    findings: list[Finding] = []
    owners = owners_of(config.spool_dir)
    for key in keys:
        path = key_file(key)
        for finding in await check_key(key.domain, key.selector, KeyFile(path, owners), dns):
            closed = unreadable(path, base) if finding.grade is Grade.PROBLEM else ""
            findings.append(replace(finding, todo=closed) if closed else finding)
    if not config.dkim.enabled:
        words = "dkim.enabled is off: no signatures are made, and mail leaves unsigned"
        findings.append(
            Finding(
                "dkim.enabled", "key", Grade.PROBLEM, words, "once the record is published: set it to true"
            )
        )
    for domain in dict.fromkeys(key.domain for key in keys):
        signing = (signer.signing_domains(domain) or (domain,)) if config.dkim.enabled else ()
        findings += await check_domain(domain, signing, dns)
    return findings


def _print_finding(finding: Finding) -> None:
    sys.stdout.write(f"{finding.grade:<8} {finding.what:<5} {printable(finding.about)}: {finding.found}\n")
    if finding.todo:
        sys.stdout.write(f"         to do: {finding.todo}\n")


def _print_json(line: dict[str, object]) -> None:
    sys.stdout.write(json_line(line))
