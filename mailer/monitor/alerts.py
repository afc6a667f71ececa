"""Alerts: notify the operator once when a condition begins, and again when it ends.

An alert fires when its value passes the threshold, and ends when the value has come back by a fifth, so that
a value that oscillates around the threshold raises one alert. `secretEndsWithin` has one alert for each
secret that ends. Delivered alerts are recorded in the spool, so that a restart does not repeat them. An alert
that could not be delivered is tried again until it is delivered or is over.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic

import msgspec

from mailer.calls import command
from mailer.calls.post import JSON, post
from mailer.config.calls import Alerts
from mailer.config.model import Config
from mailer.mail import clock
from mailer.mail.duration import duration
from mailer.maillog.events import MailLog
from mailer.monitor.providers import providers
from mailer.monitor.reading import Reading, lag
from mailer.spool.directory import Spool
from mailer.spool.layout import Place
from mailer.spool.state import small_files

NAMES = ("queueOlderThan", "failedMoreThan", "noRunFor", "eventsOlderThan", "secretEndsWithin")
"""The names of alerts, which are their configuration keys."""
_QUEUE, _FAILED, _NO_RUN, _EVENTS, _SECRET = NAMES
_SAVED = "alerts.json"
_END_AT = 0.8
"""Share of the threshold at which an alert ends. For alerts on low values, share of the value instead."""
_TIMEOUT = 30.0
"""Seconds for the command or the webhook."""
_RETRY_AFTER = 60.0
"""Seconds until delivery of an alert is tried again."""


class Alert(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The JSON object that the command and the webhook get."""

    alert: str
    """One of `NAMES`."""
    about: str = ""
    """Distinguishes alerts of the same name; empty: there is only one."""
    status: str
    """`firing` or `resolved`."""
    value: float
    threshold: float
    since: str
    """When the alert began to fire."""
    at: str
    host: str
    message: str


class _Known(msgspec.Struct, frozen=True):
    """The state of an alert that fires, or that has ended and whose end has not been delivered yet."""

    since: str
    told: bool = False
    """Whether it was delivered that the alert fires."""
    over: bool = False
    end: float = 0.0
    """`_Value.end` when the alert was raised."""


class _Value(msgspec.Struct, frozen=True):
    """The current value of one watched quantity."""

    value: float
    threshold: float
    text: str
    low: bool = False
    """Fire below the threshold instead of above it."""
    about: str = ""
    """See `Alert.about`."""
    end: float = 0.0
    """The expiry time that the value counts down to, in seconds since the epoch; 0: none."""

    def fires(self, *, again: bool) -> bool:
        """Return whether the alert fires; args: again: it fired at the last reading (hysteresis)."""
        share = _END_AT if again else 1.0
        return self.value * share < self.threshold if self.low else self.value > self.threshold * share


def values(alerts: Alerts, reading: Reading, began: float, config: Config) -> dict[str, _Value]:
    """Return the current values of all configured alerts.

    Args:
        alerts: the alerts' configuration.
        reading: the current reading.
        began: when this monitor began to watch, so that a host that was off for a night does not count that
            time as time without a run.
        config: the configuration, with the providers.
    """
    found: dict[str, _Value] = {}
    if alerts.queue_older_than:
        age = reading.queue.waiting_age(reading.at)
        text = f"the oldest message has waited {duration(age)}"
        found[_QUEUE] = _Value(age, alerts.queue_older_than, text)
    if alerts.failed_more_than is not None:
        count = reading.queue[Place.FAILED].count
        text = f"{count} messages have failed and wait for a decision"
        found[_FAILED] = _Value(count, alerts.failed_more_than, text)
    if alerts.no_run_for:
        ago = max(0.0, reading.at - max(reading.last_run or 0.0, began))
        text = f"no run of mailer-send has succeeded for {duration(ago)}"
        found[_NO_RUN] = _Value(ago, alerts.no_run_for, text)
    if alerts.events_older_than:
        waited = lag(reading)
        text = f"the oldest event has waited {duration(waited)} for onEvent's receiver"
        found[_EVENTS] = _Value(waited, alerts.events_older_than, text)
    if alerts.secret_ends_within:
        for each in providers(reading, config):
            for end in each.ends:
                left = end.at - reading.at
                about = f"{each.name}: {end.what}"
                text = f"{about} ends {clock.rfc3339(end.at)}: {end.todo}"
                found[f"{_SECRET} {end.what} of {each.login}"] = _Value(
                    left, alerts.secret_ends_within, text, low=True, about=about, end=end.at
                )
    return found


def _kind(name: str) -> str:
    """Return which of `NAMES` a key of `values` belongs to; a suffix distinguishes several of one name."""
    return name.partition(" ")[0]


def judge(known: Mapping[str, _Known], now: str, found: Mapping[str, _Value]) -> dict[str, _Known]:
    """Return the new state of all alerts, given the old state and the current values."""
    judged = {}
    for name, each in found.items():
        before = known.get(name)
        if each.fires(again=before is not None and not before.over):
            if before is None or _is_later(each, before):
                judged[name] = _Known(now, end=each.end)
            else:
                judged[name] = msgspec.structs.replace(before, over=False)
        elif before and before.told:
            judged[name] = msgspec.structs.replace(before, over=True)
    return judged


def _is_later(value: _Value, before: _Known) -> bool:
    """Return whether the reported expiry has passed and there is a new one that was not reported.

    The secret was then renewed for so short a time that the alert never ended.
    """
    now = value.end - value.value
    return 0.0 < before.end < min(value.end, now)


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """The configuration of how alerts are sent, and this host's name in them."""

    config: Config
    host: str

    @property
    def alerts(self) -> Alerts:
        return self.config.alerts


class Alerting:
    """Evaluates readings and sends alerts; its saved state is loaded at the start."""

    def __init__(self, spool: Spool, log: MailLog, settings: AlertSettings) -> None:
        self._spool = spool
        self._log = log
        self._settings = settings
        self._known = _load(spool)
        self._began: float | None = None
        self._next_try: dict[str, float] = {}

    @property
    def firing(self) -> frozenset[str]:
        return frozenset(_kind(name) for name, known in self._known.items() if not known.over)

    async def consider(self, reading: Reading) -> None:
        """Evaluate one reading, and send what is new."""
        self._began = reading.at if self._began is None else min(self._began, reading.at)
        found = values(self._settings.alerts, reading, self._began, self._settings.config)
        self._keep(judge(self._known, clock.rfc3339(reading.at), found))
        for name, known in list(self._known.items()):
            if (known.over or not known.told) and monotonic() >= self._next_try.get(name, 0.0):
                alert = self._alert(name, known, found[name], reading.at)
                if await self._tell(alert):
                    self._mark_told(name, known)
                else:
                    self._next_try[name] = monotonic() + _RETRY_AFTER

    def _alert(self, name: str, known: _Known, found: _Value, now: float) -> Alert:
        return Alert(
            alert=_kind(name),
            about=found.about,
            status="resolved" if known.over else "firing",
            value=round(found.value, 3),
            threshold=found.threshold,
            since=known.since,
            at=clock.rfc3339(now),
            host=self._settings.host,
            message=found.text,
        )

    async def _tell(self, alert: Alert) -> bool:
        """Send an alert by all configured means; return False if one of them failed."""
        say = self._log.notice if alert.status == "resolved" else self._log.error
        say("alert", name=alert.alert, status=alert.status, message=alert.message)
        body, settings = msgspec.json.encode(alert), self._settings
        try:
            if settings.alerts.command:
                environment = {"MAILER_ALERT": alert.alert, "MAILER_ALERT_STATUS": alert.status}
                await command.run(settings.alerts.command, body, timeout=_TIMEOUT, environment=environment)
            if not settings.alerts.webhook.empty:
                # In a thread, because a secret may come from a slow command.
                url = await asyncio.to_thread(settings.alerts.webhook.reveal)
                await _post(url, body)
        except (OSError, LookupError) as error:  # SecretError is a LookupError.
            self._log.warning("the alert could not be sent", name=alert.alert, error=str(error))
            return False
        return True

    def _mark_told(self, name: str, known: _Known) -> None:
        self._next_try.pop(name, None)
        rest = {other: each for other, each in self._known.items() if other != name}
        self._keep(rest if known.over else rest | {name: msgspec.structs.replace(known, told=True)})

    def _keep(self, known: dict[str, _Known]) -> None:
        if known == self._known:
            return
        self._known = known
        try:
            small_files.replace(self._spool, _SAVED, msgspec.json.encode(known) + b"\n")
        except OSError as error:
            self._log.warning(
                "alerts.json cannot be written; a restart may repeat alerts", error=error.strerror
            )


def _load(spool: Spool) -> dict[str, _Known]:
    try:
        return msgspec.json.decode(small_files.read(spool, _SAVED) or b"{}", type=dict[str, _Known])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}


async def _post(url: str, body: bytes) -> None:
    """Post an alert; raises OSError if it was not accepted."""
    response = await post(url, body, timeout=_TIMEOUT, headers={"Content-Type": JSON})
    if not response.taken:
        raise OSError(f"it answered {response.status}")
