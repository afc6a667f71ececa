"""A real Prometheus that scrapes one monitor, and answers questions about it."""

import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Self

from testbed.ports import LOOPBACK, free_port
from testbed.process import ServerProcess
from testbed.tools import prometheus_program
from testbed.waiting import until


class Prometheus:
    """Prometheus with our example's configuration, at another target and with short intervals."""

    def __init__(self, directory: Path, example: Path, target: int) -> None:
        """Start it at once.

        Args:
            directory: for its configuration and its data.
            example: the directory of our examples.
            target: the monitor's port.
        """
        text = (example / "prometheus.yml").read_text()
        assert "localhost:8025" in text
        assert "scrape_interval: 30s" in text
        directory.mkdir()
        for ours, here in (
            ("localhost:8025", f"localhost:{target}"),
            ("scrape_interval: 30s", "scrape_interval: 200ms"),
            ("mailer-rules.yml", str(example / "mailer-rules.yml")),
        ):
            text = text.replace(ours, here)
        text += "\nglobal: {scrape_timeout: 200ms, evaluation_interval: 200ms}\n"
        (directory / "prometheus.yml").write_text(text)
        self.port = free_port()
        self._process = ServerProcess(
            [
                prometheus_program("prometheus"),
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={LOOPBACK}:{self.port}",
            ],
            directory / "prometheus.log",
        )

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Evaluate PromQL now; each result has `metric` (labels) and `value` (time and text)."""
        encoded = urllib.parse.urlencode({"query": expression})
        return self._get(f"/api/v1/query?{encoded}")["result"]  # type: ignore[no-any-return]

    def values(self, expression: str) -> list[float]:
        return [float(result["value"][1]) for result in self.query(expression)]

    def targets(self) -> list[dict[str, Any]]:
        return self._get("/api/v1/targets")["activeTargets"]  # type: ignore[no-any-return]

    def rules(self) -> list[dict[str, Any]]:
        groups = self._get("/api/v1/rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def _is_ready(self) -> bool:
        try:
            urllib.request.urlopen(f"http://{LOOPBACK}:{self.port}/-/ready", timeout=30).close()
        except urllib.error.HTTPError:
            return False
        return True

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self.port}{path}", timeout=30) as answer:
            return json.load(answer)["data"]

    def __enter__(self) -> Self:
        self._process.__enter__()
        self._process.await_port(self.port)
        until(self._is_ready, "Prometheus to be ready")
        return self

    def __exit__(self, *how: object) -> None:
        self._process.__exit__(*how)
