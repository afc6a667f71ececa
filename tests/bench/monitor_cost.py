"""Measure what the monitor costs with many messages queued: answers, memory, and processor time while idle.

    scripts/bench_monitor [MESSAGES] [IDLE_SECONDS]

MESSAGES (100,000) are spread over new/ and the minutes of four hours in retry/; a mail comes and goes a
thousand times a second while "under way" is measured. IDLE_SECONDS (30) are spent without a request. The
files are empty: the monitor opens none.
"""

# ruff: noqa: T201 - a command that prints

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mailer.spool.directory import Spool
from mailer.spool.ids import new_id
from mailer.spool.layout import bucket_for

REQUESTS = 50
TEXT = {"Accept": "text/plain"}


def main() -> None:
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    idle = float(sys.argv[2]) if len(sys.argv) > 2 else 30.0
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "config.json"
        port = free_port()
        config.write_text(json.dumps({"healthCheckPort": port, "defaultUsername": "app"}))
        spool = Spool.open(Path(directory) / "spool", create=True)
        fill(spool, messages)
        argv = [sys.executable, "-m", "mailer", "monitor", "--config", str(config)]
        monitor = subprocess.Popen(argv)
        try:
            measure(port, monitor.pid, spool, idle)
        finally:
            monitor.terminate()
            monitor.wait()


def measure(port: int, pid: int, spool: Spool, idle: float) -> None:
    began = time.perf_counter()
    first = timed(lambda: ask(port, "/metrics", TEXT), patience=30)
    print(
        f"{'start and first scrape':<34} {1000 * (time.perf_counter() - began):8.1f} ms "
        f"({first:.1f} the scrape)"
    )
    report("scrape, at rest", [timed(lambda: ask(port, "/metrics", TEXT)) for _ in range(REQUESTS)])
    with under_way(spool):
        report(
            "scrape, mail under way", [timed(lambda: ask(port, "/metrics", TEXT)) for _ in range(REQUESTS)]
        )
        report("/health, mail under way", [timed(lambda: ask(port, "/health", {})) for _ in range(REQUESTS)])
    before = processor_seconds(pid)
    time.sleep(idle)
    used = processor_seconds(pid) - before
    print(f"{'idle':<34} {100 * used / idle:8.2f} % of a core")
    print(f"{'resident memory':<34} {resident(pid) / 1024:8.1f} MB")


def fill(spool: Spool, messages: int) -> None:
    now = time.time()
    buckets = [f"retry/{bucket_for(now + 3600 + 60 * minute)}" for minute in range(240)]
    for bucket in buckets:
        spool.make_directory(bucket)
    for number in range(messages):
        directory = "new" if number % 2 else buckets[number // 2 % len(buckets)]
        put(spool, directory, now - 86_400 * number / messages)


def put(spool: Spool, directory: str, received: float) -> str:
    path = f"{directory}/{new_id(received)}"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=spool.root))
    return path


@contextmanager
def under_way(spool: Spool) -> Iterator[None]:
    """A message comes and is sent, a thousand times a second."""
    over = threading.Event()

    def flow() -> None:
        while not over.wait(0.001):
            os.unlink(put(spool, "new", time.time()), dir_fd=spool.root)

    thread = threading.Thread(target=flow)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def ask(port: int, path: str, headers: dict[str, str]) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers=headers)
    body = connection.getresponse().read()
    connection.close()
    return body


def timed(work: Callable[[], object], patience: float = 0.0) -> float:
    """Return how long it took, in milliseconds; a refused connection is tried again for `patience` s."""
    deadline = time.monotonic() + patience
    while True:
        began = time.perf_counter()
        try:
            work()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return 1000 * (time.perf_counter() - began)


def report(name: str, times: list[float]) -> None:
    ordered = sorted(times)
    print(f"{name:<34} {ordered[len(ordered) // 2]:8.1f} ms median {ordered[-1]:8.1f} ms at most")


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
