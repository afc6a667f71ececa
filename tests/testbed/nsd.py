"""NSD, an authoritative name server, on a port of its own, for the zones that it is given and no others."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.ports import LOOPBACK, free_port
from testbed.process import ServerProcess
from testbed.tools import UNPACKED_NSD, MissingToolError

_SERVER = """\
server:
    ip-address: {host}@{port}
    server-count: 1
    username: ""
    chroot: ""
    database: ""
    zonesdir: "{base}"
    pidfile: "{base}/pid"
    xfrdfile: "{base}/xfrd"
    xfrdir: "{base}"
    zonelistfile: "{base}/zones"
remote-control:
    control-enable: no
"""
_ZONE = """\
zone:
    name: "{name}"
    zonefile: "{name}.zone"
"""
_TOP = """\
$ORIGIN {name}.
$TTL 60
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 127.0.0.1
"""


class Nsd:
    """A running NSD; `str()` of it is its address as `dns.nameservers` wants it."""

    def __init__(self, zones: Mapping[str, str | None]) -> None:
        """
        Args:
            zones: each name's records, below its SOA and NS; None: the zone's file is missing, so that it
                answers SERVFAIL.

        Raises:
            MissingToolError: it is not unpacked.
        """
        if not UNPACKED_NSD.exists():
            raise MissingToolError("nsd")
        self.zones = zones
        self.port = free_port()
        self._base: Path | None = None
        self._process: ServerProcess | None = None

    def __str__(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def __enter__(self) -> Self:
        self._base = base = Path(tempfile.mkdtemp(prefix="mailer-nsd-"))
        configuration = _SERVER.format(host=LOOPBACK, port=self.port, base=base)
        for name, records in self.zones.items():
            configuration += _ZONE.format(name=name)
            if records is not None:
                (base / f"{name}.zone").write_text(_TOP.format(name=name) + records)
        (base / "nsd.conf").write_text(configuration)
        argv = [str(UNPACKED_NSD), "-d", "-c", str(base / "nsd.conf")]
        self._process = process = ServerProcess(argv, base / "output")
        try:
            process.await_port(self.port)
        except BaseException:
            shutil.rmtree(base)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._base is not None
        try:
            self._process.__exit__(kind, error, trace)
        finally:
            shutil.rmtree(self._base)
