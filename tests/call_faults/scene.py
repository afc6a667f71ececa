"""What a command is put to the test with: servers beside it, and a row of the table."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outbound.event_hook import Hook
from outbound.hostile import Server
from outbound.sending import forward_to, queue
from testbed.token_server import TokenServer

from call_faults.world import Mail, World


@dataclass
class Scene:
    """What runs beside a world."""

    hop: Server
    running: ExitStack
    env: dict[str, str] = field(default_factory=dict)
    hook: Hook | None = None
    tokens: TokenServer | None = None


@dataclass(frozen=True)
class Row:
    """One command.

    Attributes:
        settings: the configuration, with what runs beside it.
        act: arranges the spool, and has the program meet the fault.
        check: what else must hold, beside what holds of all mail.
    """

    name: str
    what: str
    act: Callable[[World, Scene], None]
    settings: Callable[[Scene, Path], dict[str, Any]] = lambda scene, _: through(scene)
    check: Callable[[World, Scene], Iterator[str]] = lambda _world, _scene: iter(())


def through(scene: Scene, **more: Any) -> dict[str, Any]:
    common = {"bounce": "sender", "retry": {"schedule": ["5s"], "maxAge": "5d"}, "minFreeSpace": "1MiB"}
    return forward_to(scene.hop, **common, **more)


def queued(world: World, *to: str) -> str:
    world.mails.append(Mail(to, acknowledged=True))
    return queue(world.spool, to)
