"""Answer `GET /metrics`: the Go relay's JSON, or Prometheus text for clients that ask for it.

No label value comes from a client or a remote server, so the number of series is bounded by the states,
outcomes, alerts, configured providers and budgets.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mailer import __version__
from mailer.maillog.totals import Totals
from mailer.monitor.alerts import NAMES
from mailer.monitor.budgets import Budget
from mailer.monitor.context import MonitorContext
from mailer.monitor.exchange import Answer, Asked, Route, accepted, json
from mailer.monitor.providers import Provider, providers
from mailer.monitor.reading import Reading, lag

_TEXT = ("text/plain", "application/openmetrics-text")
_JSON = ("application/json", "application/*")

_COUNTERS = (
    ("mailer_messages_accepted", "Messages accepted with 250, and our own notifications.", "accepted"),
    ("mailer_notifications", "Our own notifications, which are also counted as accepted.", "notifications"),
    ("mailer_messages_delivered", "Messages delivered to all recipients.", "delivered"),
    ("mailer_messages_failed", "Messages given up with a recipient refused or expired.", "failed"),
    ("mailer_recipients_accepted", "Recipients of accepted messages.", "recipients"),
    ("mailer_accepted_bytes", "Octets of accepted messages.", "bytes"),
    ("mailer_rejected", "Transactions and recipients refused, rate limits excepted.", "rejected"),
    ("mailer_limited", "Messages refused because of a rate limit.", "limited"),
    ("mailer_logins_failed", "Logins refused.", "logins_failed"),
    ("mailer_hop_troubles", "Attempts at a next hop after which another one was tried.", "hop_troubles"),
)
"""Counters without labels: name, help text, and attribute of `Totals`."""

_OUTCOMES = ("sent", "deferred", "bounced", "expired", "uncertain")
_ACTIONS = ("held", "released", "requeued", "recovered", "quarantined", "removed")


def routes(context: MonitorContext) -> tuple[Route, ...]:
    async def metrics(asked: Asked) -> Answer:
        reading = await context.reading()
        if not wants_text(asked):
            return json(as_json(reading.totals))
        spent = await asyncio.to_thread(context.budgets)
        shown = Shown(reading, context.alerting.firing, providers(reading, context.config), spent)
        return exposition(shown, asked.header("accept"))

    return (Route("GET", "/metrics", metrics),)


def wants_text(asked: Asked) -> bool:
    """Return whether a client prefers Prometheus text to JSON; one that accepts anything does not."""
    ranges = accepted(asked)
    text = max(ranges.get(kind, 0.0) for kind in _TEXT)
    return text > max(ranges.get(kind, 0.0) for kind in _JSON)


def as_json(totals: Totals) -> dict[str, float]:
    """Return the counters under the names of the Go relay."""
    return {
        "total_emails": totals.accepted,
        "successful_emails": totals.delivered,
        "failed_emails": totals.failed,
        "total_recipients": totals.recipients,
        "avg_processing_time_ms": round(totals.mean_attempt_ms or 1000 * totals.delay.mean, 3),
    }


@dataclass(frozen=True, slots=True)
class Shown:
    """The data of an exposition."""

    reading: Reading
    firing: frozenset[str]
    """The names of firing alerts."""
    providers: tuple[Provider, ...]
    """The configured providers; no other name becomes a label."""
    budgets: tuple[Budget, ...] = ()


def exposition(shown: Shown, accept: str) -> Answer:
    """Return all metrics in the format that the Accept field asks for, Prometheus text or OpenMetrics."""
    registry = CollectorRegistry()
    registry.register(_Collector(shown))
    ProcessCollector(registry=registry)
    generate, kind = choose_encoder(accept)
    return Answer(generate(registry), kind)


class _Collector(Collector):
    """Converts a reading to metric families."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown

    def collect(self) -> Iterable[Metric]:
        reading = self._shown.reading
        yield from _counters(reading.totals)
        yield _delays(reading.totals)
        yield from _queue(reading)
        yield from self._gauges()

    def _gauges(self) -> Iterator[Metric]:
        reading = self._shown.reading
        yield _gauge("mailer_build_info", "The version that runs.", {__version__: 1}, "version")
        if reading.free is not None:
            yield _gauge("mailer_spool_free_bytes", "Room on the spool's filesystem.", {"": reading.free})
        yield _gauge("mailer_paused", "1 while sending is paused.", {"": reading.pause is not None})
        if reading.receivers is not None:
            text = "1 while mailer serve runs, which accepts mail."
            yield _gauge("mailer_receiver_up", text, {"": reading.receivers > 0})
        text = "Time of the last successful run of mailer-send; 0: none."
        yield _gauge("mailer_last_run_timestamp_seconds", text, {"": reading.last_run or 0})
        text = "How long the oldest event that onEvent's receiver refused has waited; 0: none."
        yield _gauge("mailer_events_lag_seconds", text, {"": lag(reading)})
        text = "Consecutive failures to deliver events to onEvent's receiver."
        failures = reading.events.failures if reading.events else 0
        yield _gauge("mailer_events_failures", text, {"": failures})
        firing = {name: name in self._shown.firing for name in NAMES}
        up = {provider.name: provider.up for provider in self._shown.providers}
        text = "0 while a provider's circuit breaker is open or half-open."
        yield _gauge("mailer_provider_up", text, up, "provider")
        yield _ends(self._shown.providers)
        yield from _budgets(self._shown.budgets)
        yield _gauge("mailer_alert_firing", "1 while an alert is firing.", firing, "alert")


def _ends(providers: Sequence[Provider]) -> Metric:
    text = "When a provider's secret, certificate or refresh token expires, if that is known."
    name = "mailer_provider_secret_end_timestamp_seconds"
    family = GaugeMetricFamily(name, text, labels=["provider", "what"])
    for provider in providers:
        for end in provider.ends:
            family.add_metric([provider.name, end.what], end.at)
    return family


def _budgets(budgets: Sequence[Budget]) -> Iterator[Metric]:
    labels = ["budget", "per"]
    used = GaugeMetricFamily("mailer_budget_used", "Current usage of a budget.", labels=labels)
    allowed = GaugeMetricFamily("mailer_budget_allowed", "Limit of a budget.", labels=labels)
    for budget in budgets:
        for each in budget.spent:
            used.add_metric([budget.name, each.limit.per], each.used)
            allowed.add_metric([budget.name, each.limit.per], each.limit.most)
    yield from (used, allowed)


def _counters(totals: Totals) -> Iterator[Metric]:
    for name, text, total in _COUNTERS:
        yield CounterMetricFamily(name, text, value=getattr(totals, total))
    for name, text, label, values in (
        ("mailer_recipients", "Recipients by outcome of attempts.", "outcome", _OUTCOMES),
        ("mailer_actions", "Messages by other events.", "action", _ACTIONS),
    ):
        family = CounterMetricFamily(name, text, labels=[label])
        for value in values:
            family.add_metric([value], getattr(totals, value))
        yield family


def _delays(totals: Totals) -> Metric:
    buckets = [
        ("+Inf" if bound == float("inf") else str(bound), float(count))
        for bound, count in totals.delay.cumulative()
    ]
    return HistogramMetricFamily(
        "mailer_delivery_delay_seconds",
        "Time from acceptance to delivery of each recipient.",
        buckets=buckets,
        sum_value=totals.delay.total,
    )


def _queue(reading: Reading) -> Iterator[Metric]:
    states = reading.queue.states
    yield _gauge(
        "mailer_queue_messages",
        "Messages in the spool.",
        {place.value: state.count for place, state in states.items()},
        "state",
    )
    yield _gauge(
        "mailer_queue_oldest_age_seconds",
        "Age of the oldest message of a state; 0: there is none.",
        {place.value: state.age(reading.at) or 0.0 for place, state in states.items()},
        "state",
    )


def _gauge(name: str, text: str, values: Mapping[str, float], label: str = "") -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label] if label else [])
    for value, number in values.items():
        family.add_metric([value] if label else [], number)
    return family
