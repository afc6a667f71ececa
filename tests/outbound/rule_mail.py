"""Recipients and providers for tests of `routes`."""

from typing import Any

from testbed.ports import LOOPBACK

from outbound.hostile import Server

ANN, BOB, CID, DAN = "ann@a.example", "bob@b.example", "cid@c.example", "dan@x.d.example"


def provider(name: str, server: Server | int, **more: Any) -> dict[str, Any]:
    port = server if isinstance(server, int) else server.port
    return {"name": name, "host": LOOPBACK, "port": port, **more}
