"""What runs keep for those after them: tokens, allowances, how far events were told."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from outbound.event_hook import hook
from testbed.ports import LOOPBACK
from testbed.token_server import TokenServer

from call_faults.scene import Scene, queued, through
from call_faults.world import World

ALLOWED = 3
SECRET = "s3cret"


def by_token(scene: Scene, directory: Path) -> dict[str, Any]:
    scene.tokens = scene.running.enter_context(TokenServer(client_secret=SECRET, lasts=3600))
    scene.env |= scene.tokens.trust(directory)
    tokens = scene.tokens
    scene.hop.auth, scene.hop.bearers = "XOAUTH2", lambda shown: shown in tokens.access
    auth = {
        "type": "oauth2", "grant": "refreshToken", "tokenUrl": tokens.url, "clientId": "app", "scope": "mail",
        "clientSecret": SECRET, "refreshToken": tokens.new_refresh_token(), "username": "relay@example.com",
    }  # fmt: skip
    return through(scene, forwardProviders=[{"host": LOOPBACK, "port": scene.hop.port, "auth": auth}])


def _time_passes(world: World, tokens: TokenServer) -> None:
    """The access token ends; what it was asked with was replaced."""
    tokens.revoke()
    for kept in (world.spool / "state").glob("token-*.json"):
        older = json.loads(kept.read_text())
        older["obtained"] -= 7200
        kept.write_text(json.dumps(older))


def token(world: World, scene: Scene) -> None:
    assert scene.tokens
    queued(world, "ann@example.net")
    world.run("mailer-send", "--once")
    _time_passes(world, scene.tokens)
    queued(world, "bob@example.net")
    world.faulted("mailer-send", "--once")


def renewed(world: World, scene: Scene) -> Iterator[str]:
    """The newest refresh token is kept: with it the next access token comes, too."""
    assert scene.tokens
    _time_passes(world, scene.tokens)
    queued(world, "cat@example.net")
    world.recover()
    yield from world.judge()


def in_budget(scene: Scene, _directory: Path) -> dict[str, Any]:
    provider = {"host": LOOPBACK, "port": scene.hop.port, "maxPerDay": ALLOWED, "maxSessions": 1}
    return through(scene, forwardProviders=[provider])


def budget(world: World, scene: Scene) -> None:
    for number in range(2 * ALLOWED):
        queued(world, f"ann{number}@example.net")
    world.faulted("mailer-send", "--once")
    world.look_for_doubts()
    for _ in range(2):
        world.run("mailer", "spool", "retry", "--state", "retry")
        world.run("mailer-send", "--once")
    left = sum(world.copies().values())
    if left > ALLOWED:
        world.wrong.append(f"{left} messages left under an allowance of {ALLOWED}")
    # The rest is free to go.
    world.relay.configure({"forwardProviders": [{"host": LOOPBACK, "port": scene.hop.port}]})


def telling(scene: Scene, _directory: Path) -> dict[str, Any]:
    scene.hook = scene.running.enter_context(hook())
    return through(scene, **scene.hook.settings())


def events(world: World, _scene: Scene) -> None:
    world.run("mailer-send", "--once")
    queued(world, "ann@example.net", "never.bob@example.net")
    queued(world, "later.cat@example.net")
    world.faulted("mailer-send", "--once")


def heard(world: World, scene: Scene) -> Iterator[str]:
    """At least once each; the ledger's line itself needs no sync, but a process that dies loses none."""
    assert scene.hook
    # What is being told again waits some seconds.
    for _ in range(60):
        heard = {(event["event"], event.get("to")) for event in scene.hook.taken}
        wanted = {
            ("sent", "ann@example.net"),
            ("bounced", "never.bob@example.net"),
            ("sent", "later.cat@example.net"),
        }
        if wanted <= heard:
            return
        time.sleep(0.2)
        world.run("mailer-send", "--once")
    yield f"not told: {wanted - heard}"
