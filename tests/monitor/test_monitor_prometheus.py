"""A real Prometheus scrapes the monitor by our example; rules and dashboard name only what there is."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from outbound.hostile import Server, per_address
from outbound.sending import forward_to, queue
from testbed.http_client import PROMETHEUS, ask
from testbed.prometheus import Prometheus
from testbed.relay import Relay
from testbed.tools import prometheus_program
from testbed.waiting import until

EXAMPLES = Path(__file__).resolve().parents[2] / "scripts" / "monitoring"
_NAME = re.compile(r"\bmailer_[a-z_]+")


def names_in(text: str) -> set[str]:
    return set(_NAME.findall(text))


def expressions(dashboard: dict) -> list[str]:
    """Every PromQL expression of a dashboard, Grafana's variables replaced as Grafana would."""
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [each.replace("$__rate_interval", "1m").replace("$instance", ".*") for each in found]


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [prometheus_program("promtool"), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_promtool_accepts_the_examples() -> None:
    assert promtool("check", "rules", str(EXAMPLES / "mailer-rules.yml")).returncode == 0
    assert promtool("check", "config", str(EXAMPLES / "prometheus.yml")).returncode == 0


def test_promtool_does_see_a_wrong_rule(tmp_path: Path) -> None:
    text = (EXAMPLES / "mailer-rules.yml").read_text()
    (tmp_path / "wrong.yml").write_text(text.replace("== 0\n", "=== 0\n", 1))
    assert promtool("check", "rules", str(tmp_path / "wrong.yml")).returncode != 0


@pytest.fixture
def busy(relay: Relay) -> Relay:
    """Mail that was sent, deferred and refused; and a provider whose secret ends some day."""
    replies = per_address({"later@example.net": "450 4.2.2 full", "never@example.net": "550 5.1.1 unknown"})
    with Server({"rcpt": replies}) as server:
        relay.configure(forward_to(server))
        for name in ("a", "later", "never"):
            queue(relay.spool, [f"{name}@example.net"])
        assert relay.mailer_send().returncode == 0
    secret = {"type": "oauth2", "preset": "microsoft365", "tenant": "example.com", "clientId": "app"}
    secret |= {"grant": "clientCredentials", "clientSecret": "not asked for", "expires": "2099-12-31"}
    cloud = {"name": "cloud", "username": "me@example.com", "priority": 9, "auth": secret}
    providers = json.loads(relay.config.read_text())["forwardProviders"]
    relay.configure({"forwardProviders": [*providers, cloud]})
    return relay


@pytest.mark.parametrize("accept", PROMETHEUS)
def test_every_metric_of_the_rules_and_the_dashboard_is_in_an_exposition(busy: Relay, accept: str) -> None:
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    used = names_in("\n".join(expressions(dashboard)) + (EXAMPLES / "mailer-rules.yml").read_text())
    used |= names_in(json.dumps(dashboard["templating"]))
    with busy.monitor():
        text = ask(busy.http_port, "/metrics", headers={"Accept": accept}).body.decode()
    exposed = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines() if line[:1] != "#"}
    assert used
    assert used <= exposed


def test_prometheus_scrapes_the_monitor_and_answers_every_question_of_the_dashboard(
    busy: Relay, tmp_path: Path
) -> None:
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    with busy.monitor(), Prometheus(tmp_path / "prometheus", EXAMPLES, busy.http_port) as prometheus:
        until(lambda: prometheus.values('up{job="mailer"}') == [1], "the first scrape")
        [target] = prometheus.targets()
        assert (target["health"], target["lastError"]) == ("up", "")
        outcomes = {
            result["metric"]["outcome"]: float(result["value"][1])
            for result in prometheus.query("mailer_recipients_total")
        }
        assert outcomes == {"sent": 1, "deferred": 1, "bounced": 1, "expired": 0, "uncertain": 0}
        assert prometheus.values('mailer_queue_messages{state="failed"}') == [1]
        assert prometheus.values("mailer_provider_secret_end_timestamp_seconds") == [4102358400]
        until(lambda: prometheus.values("rate(mailer_messages_accepted_total[1m])"), "a second scrape")
        for expression in expressions(dashboard):
            assert prometheus.values(expression), expression
        rules = prometheus.rules()
        assert len(rules) == 10
        until(lambda: all(rule["health"] == "ok" for rule in prometheus.rules()), "the rules to be evaluated")
        assert {rule["name"]: rule["state"] for rule in rules}.keys() >= {"MailerDoesNotSend"}
