"""A command imports what it needs, and little else: its start is most of what it costs.

The numbers are guards, 12 above what Python 3.11 and click 8.5 need; a module takes 0.2 to 0.3 ms to import.
"""

import subprocess
import sys

import pytest
from spools.states import Queue
from testbed.relay import Relay

RUN = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
from mailer.cli import main
main()
"""
HEAVY = {"asyncio", "ssl", "dns", "dkim", "cryptography", "aiohttp", "aiosmtpd", "email", "mailer.send.run"}
MODULES = {
    "--help": 134,
    "guide": 135,
    "test --help": 210,
    "pause": 202,
    "providers": 229,
    "log": 213,
    "spool ls": 238,
    "spool stats": 229,
    "spool why ID": 262,
    "route --from a@example.com --to bob@example.net": 255,
    "limits": 221,
    "config check": 222,
}


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("command", MODULES)
def test_a_command_imports_little_more_than_it_needs(command: str, relay: Relay) -> None:
    provider = {"host": "192.0.2.1", "username": "u", "password": "open sesame"}
    relay.configure({"forwardSMTP": True, "forwardProviders": [provider], "rateLimits": {"enabled": True}})
    message = Queue(relay.spool).new()
    argv = command.replace("ID", message).split()
    known = {"MAILER_CONFIG": str(relay.config)}
    ran = [sys.executable, "-c", RUN, *argv]
    done = subprocess.run(ran, capture_output=True, text=True, check=True, env=known)
    loaded = set(done.stderr.splitlines()[-1].split())
    assert not HEAVY & loaded
    assert len(loaded) <= MODULES[command], sorted(loaded)
