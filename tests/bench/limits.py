"""What this machine can do without a relay: the disk alone, and the two programs that make the load."""

import os
import subprocess
import threading
import time
from pathlib import Path

from bench.load import Load, Sink
from bench.works import directory_in

THREADS = 16


def durable_files(parent: Path, files: int, size: int = 2048) -> float:
    """Files per second, each written, fsynced and renamed, and the directory fsynced, by 16 threads."""
    with directory_in(parent) as directory:
        for name in ("tmp", "new"):
            (directory / name).mkdir()
        new = os.open(directory / "new", os.O_RDONLY)
        data = b"X" * size

        def work(first: int) -> None:
            for number in range(first, files, THREADS):
                name = str(number)
                fd = os.open(directory / "tmp" / name, os.O_WRONLY | os.O_CREAT, 0o600)
                os.write(fd, data)
                os.fsync(fd)
                os.close(fd)
                (directory / "tmp" / name).rename(directory / "new" / name)
                os.fsync(new)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - began
        os.close(new)
    return files / took


def bare_sink(parent: Path, load: Load) -> float:
    """Messages per second from smtp-source straight to smtp-sink."""
    with directory_in(parent) as directory, Sink(directory) as sink:
        return load.messages / load.submit(sink.port)


def rsa_signatures() -> float:
    """RSA-2048 signatures per second by OpenSSL on one core."""
    argv = ["openssl", "speed", "-seconds", "1", "-mr", "rsa2048"]
    printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    fields = next(line for line in printed.splitlines() if line.startswith("+F2:")).split(":")
    return float(fields[3])
