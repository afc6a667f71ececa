"""A message that ends every runner that tries it: beside it, new mail is not held up."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from outbound.hostile import Server
from outbound.sending import forward_to, queue
from spools.poison import LIVES, POISON, Killer
from spools.walk import walk
from testbed.process import ServerProcess
from testbed.relay import Relay, mailer_send_command
from testbed.waiting import until


@contextmanager
def started(relay: Relay, program: str) -> Iterator[ServerProcess]:
    if program == "up":
        with relay.starting("up") as process:
            yield process
    else:
        with relay._start([*mailer_send_command(), program], "runner") as process:
            yield process


@pytest.mark.parametrize("program", ["--once", "--watch", "up"])
def test_new_mail_is_sent_before_what_ended_the_runners_before_this_one(program: str, relay: Relay) -> None:
    """As cron, systemd or a container starts it anew after each death."""
    killer = Killer()
    with Server({"mail": killer}) as server:
        relay.configure(forward_to(server, enableHealthCheck=False))
        bad = queue(relay.spool, sender=POISON)
        for life in range(1, LIVES if program == "--once" else 4):
            new = {f"new{life}.{number}@example.net" for number in range(3)}
            for to in new:
                queue(relay.spool, [to])
            with started(relay, program if life > 2 else "--once") as runner:
                killer.program = runner.pid
                until(lambda seen=life: killer.deaths == seen, "its death")
                runner.wait()
            if life > 2:
                sent = {to for to, _ in server.delivered()}
                assert new <= sent, life
        if program != "--once":
            return
        queue(relay.spool)
        assert relay.mailer_send().returncode == 0
        assert len(server.delivered()) == 3 * (LIVES - 1) + 1
    left = walk(relay.spool)
    assert left.keys() == {bad}
    assert left[bad].place == "hold"
