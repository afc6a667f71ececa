"""The rows of `mailer providers`: each provider's configuration, and its state as recorded by runners."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial

import msgspec
from msgspec.structs import replace

from mailer.cli.clocks import clocks
from mailer.cli.output import json_line
from mailer.config.hops import Provider
from mailer.config.model import Config
from mailer.mail.budget import in_words
from mailer.mail.clock import rfc3339
from mailer.mail.reply import printable
from mailer.maillog import traces
from mailer.maillog.traces import Trace
from mailer.monitor.budgets import Budget, budgets
from mailer.send.hop_names import provider_at
from mailer.spool import words
from mailer.spool.directory import Spool
from mailer.spool.layout import TRACES
from mailer.spool.state import provider_state
from mailer.spool.state.provider_state import Health, ProviderState, health


class Use(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The use of one limit of a budget."""

    per: str
    """`minute`, `hour` or `day`."""
    allowed: int
    used: int
    free_at: str
    """When the next one may be sent; empty if now."""


class Row(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A provider and its state. Times are written as in the ledger, and empty if unknown."""

    name: str
    host: str
    port: int
    api: str
    """The HTTP interface that mail is posted to; empty for SMTP."""
    username: str
    priority: int
    weight: int
    """Share of the mail among providers of the same priority; 0 for all if they are tried in order."""
    health: str
    open_since: str
    open_until: str
    reason: str
    """The kind of the last trouble, in words."""
    trouble: str
    """The last trouble, in the words of the provider or the system."""
    trouble_at: str
    trace: str
    """The file in the spool with what was said in a session that met this trouble; empty if none is kept."""
    failures: int
    cause: str
    """Why the login fails, in one word; empty if it works, or the cause is unknown."""
    todo: str
    """What to do about the cause."""
    counts: str
    """What the budget counts; empty if there is none."""
    budget: tuple[Use, ...]


class Domains(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The budget of some recipient domains."""

    domains: str
    counts: str
    budget: tuple[Use, ...]


def listing(config: Config, spool: Spool, now: datetime) -> list[Row]:
    """Return the providers in the order in which they are tried."""
    states = provider_state.read(spool)
    spent = {each.account: each for each in budgets(config, spool, clocks().read)}
    kept: list[Trace] = []
    if any(state.trouble for state in states.values()):
        with suppress(OSError):
            kept = traces.traces(partial(spool.directory, TRACES))
    rows = []
    for priority, equals in config.providers_by_priority.items():
        shared = any(provider.weight is not None for provider in equals)
        for provider in equals:
            weight = (1 if provider.weight is None else provider.weight) if shared else 0
            state = states.get(provider.account, ProviderState())
            name = config.name_of(provider)
            row = _row(name, provider, state, now, priority=priority, weight=weight)
            own = [trace for trace in kept if provider_at(config, trace.hop) is provider]
            rows.append(_with_budget(_with_trace(row, own), spent.get(provider.account)))
    return rows


def domains(config: Config, spool: Spool) -> list[Domains]:
    """Return the budgets of recipient domains, in the order of the configuration."""
    found = [each for each in budgets(config, spool, clocks().read) if not each.account]
    return [Domains(domains=each.name, counts=each.counted, budget=_uses(each)) for each in found]


def _with_trace(row: Row, kept: Sequence[Trace]) -> Row:
    """Add the newest of a provider's traces that is about its last trouble."""
    trouble = traces.likeness("", row.trouble)
    about = [
        trace for trace in kept if any(traces.likeness("", text) == trouble for _, text in trace.failures)
    ]
    return replace(row, trace=about[-1].path) if row.trouble and about else row


def _with_budget(row: Row, budget: Budget | None) -> Row:
    return replace(row, counts=budget.counted, budget=_uses(budget)) if budget else row


def _uses(budget: Budget) -> tuple[Use, ...]:
    return tuple(
        Use(
            per=each.limit.per,
            allowed=each.limit.most,
            used=each.used,
            free_at="" if each.free_at is None else rfc3339(each.free_at),
        )
        for each in budget.spent
    )


def _row(
    name: str, provider: Provider, state: ProviderState, now: datetime, *, priority: int, weight: int
) -> Row:
    return Row(
        name=name,
        host=provider.host,
        port=provider.port,
        api=provider.api.value if provider.api else "",
        username=provider.username,
        priority=priority,
        weight=weight,
        health=health(state, now).value,
        open_since=_written(state.opened),
        open_until=_written(state.open_until),
        reason=state.words if state.trouble else "",
        trouble=state.trouble,
        trouble_at=_written(state.at),
        trace="",
        failures=state.failures,
        cause=state.cause.name if state.cause else "",
        todo=state.cause.advice(name) if state.cause else "",
        counts="",
        budget=(),
    )


def _written(moment: datetime | None) -> str:
    return rfc3339(moment.timestamp()) if moment else ""


def as_line(row: Row | Domains) -> str:
    return json_line(row)


def as_text(row: Row) -> str:
    """Return one line for a provider, and further lines for trouble and budgets."""
    login = f" as {row.username}" if row.username else ""
    share = f", weight {row.weight}" if row.weight else ""
    by = f" ({row.api})" if row.api else ""
    said = (
        f"{row.name}: {row.host}:{row.port}{by}{login}, priority {row.priority}{share}: {health_words(row)}"
    )
    if row.trouble:
        said += f"\n    last trouble {words.moment_of(row.trouble_at)}: {row.trouble}"
    if row.trace:
        said += f"\n    what was said: mailer spool trace {row.trace.rpartition('/')[2]}"
    if row.todo:
        said += f"\n    what to do: {row.todo}"
    if row.budget:
        said += f"\n    used: {used_words(row)}"
    return "\n".join(printable(line, 2000) for line in said.splitlines()) + "\n"


def domains_text(row: Domains) -> str:
    return printable(f"mail for {row.domains}: {used_words(row)}", 2000) + "\n"


_EACH = {"minute": "a minute", "hour": "an hour", "day": "a day"}


def used_words(row: Row | Domains) -> str:
    """Describe how much of a budget is used, and when some is free again."""
    used = ", ".join(f"{in_words(each.used)} of {each.allowed:,} {_EACH[each.per]}" for each in row.budget)
    again = max((each.free_at for each in row.budget), default="")
    return f"{used} ({row.counts})" + (f"; free again at {words.moment_of(again)}" if again else "")


def health_words(row: Row) -> str:
    """Describe the state of a provider's circuit breaker in a few words."""
    match row.health:
        case Health.OPEN:
            return f"paused until {words.moment_of(row.open_until)}: {row.reason}"
        case Health.HALF_OPEN:
            return f"on trial with the next message: {row.reason}, as far as is known"
    return "in use"
