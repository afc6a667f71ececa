"""A Ceph in memory, with a mount for each host that can be killed, stopped, cut off and evicted.

The daemons live in a network namespace, and each ceph-fuse in one of its own that is connected to it by a
pair of interfaces: a partition is a link that is down. Needs root, and Debian's ceph-mon, ceph-mgr, ceph-osd,
ceph-mds, ceph-fuse, ceph-common and iproute2. There is no authentication: nothing leaves these namespaces.
"""

import os
import signal
import subprocess
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from shlex import join
from types import TracebackType
from typing import Self

from testbed.process import ServerProcess
from testbed.tools import program
from testbed.waiting import until

_ADDRESS = "10.99.0.{}"
_MONITOR = "[v2:10.99.0.1:3300,v1:10.99.0.1:6789]"
_CONFIGURATION = """\
[global]
fsid = {fsid}
mon_host = {monitor}
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
public_network = 10.99.0.0/24
osd_pool_default_size = 2
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = 0
osd_objectstore = memstore
memstore_device_bytes = 2147483648
osd_memory_target = 939524096
mds_cache_memory_limit = 268435456
mon_data = {base}/mon
mgr_data = {base}/mgr
mds_data = {base}/mds
osd_data = {base}/osd.$id
run_dir = {base}
admin_socket = {base}/$name.$pid.asok
pid_file =
log_file = {base}/$name.log
"""


class Ceph:
    """The cluster: a monitor, a manager, two object stores, and a metadata server."""

    def __init__(self, base: Path, hosts: Sequence[str]) -> None:
        """
        Args:
            base: a directory for its configuration, its logs and the mount points.
            hosts: their names.
        """
        self._base = base
        self._conf = base / "ceph.conf"
        self._net = f"mailer-{os.getpid()}"
        self._hosts = hosts
        self._daemons: list[ServerProcess] = []
        self._mounts: dict[str, ServerProcess] = {}
        self._mounted = 0
        self._undo = ExitStack()

    @property
    def command(self) -> str:
        """How ceph(8) is called."""
        return join([*self._inside(self._net), program("ceph"), "-c", str(self._conf)])

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self._undo = undo
            self._connect()
            self._start()
            for host in self._hosts:
                self.mount(host)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def path(self, host: str) -> Path:
        """The mount point of a host."""
        return self._base / f"mount-{host}"

    def kill(self, host: str) -> None:
        """End a host's ceph-fuse as a power cut would."""
        if mount := self._mounts.pop(host, None):
            mount.signal(signal.SIGCONT)
            mount.kill()
            subprocess.run([program("umount"), "--lazy", str(self.path(host))], check=True)

    def signal(self, host: str, number: signal.Signals) -> None:
        self._mounts[host].signal(number)

    def link(self, host: str, state: str) -> None:
        """Set a host's connection `up` or `down`."""
        self._run("ip", "-n", self._net, "link", "set", f"to-{host}", state)

    def mount(self, host: str) -> None:
        """Mount the filesystem anew at a host."""
        path = self.path(host)
        path.mkdir(exist_ok=True)
        self._mounted += 1
        argv = [
            program("ceph-fuse"),
            "-f",
            "-c",
            str(self._conf),
            "--id",
            f"{host}{self._mounted}",
            str(path),
        ]
        self._mounts[host] = mount = self._daemon(f"fuse-{host}", argv, f"{self._net}-{host}")
        self._undo.callback(self.kill, host)

        def mounted() -> bool:
            assert mount.running, mount.output()
            return os.path.ismount(path)

        until(mounted, f"{path} to be mounted")

    def _connect(self) -> None:
        for name in (self._net, *(f"{self._net}-{host}" for host in self._hosts)):
            self._run("ip", "netns", "add", name)
            self._undo.callback(self._run, "ip", "netns", "delete", name)
            self._run("ip", "-n", name, "link", "set", "lo", "up")
        self._run("ip", "-n", self._net, "link", "add", "bridge", "type", "bridge")
        self._run("ip", "-n", self._net, "address", "add", _ADDRESS.format(1) + "/24", "dev", "bridge")
        self._run("ip", "-n", self._net, "link", "set", "bridge", "up")
        for number, host in enumerate(self._hosts, 2):
            there, here = f"{self._net}-{host}", f"to-{host}"
            peer = ("type", "veth", "peer", "name", "eth0", "netns", there)
            self._run("ip", "-n", self._net, "link", "add", here, *peer)
            self._run("ip", "-n", self._net, "link", "set", here, "master", "bridge", "up")
            self._run("ip", "-n", there, "address", "add", _ADDRESS.format(number) + "/24", "dev", "eth0")
            self._run("ip", "-n", there, "link", "set", "eth0", "up")

    def _start(self) -> None:
        for name in ("mon", "mgr", "mds", "osd.0", "osd.1"):
            (self._base / name).mkdir()
        identity = str(uuid.uuid4())
        self._conf.write_text(_CONFIGURATION.format(fsid=identity, monitor=_MONITOR, base=self._base))
        conf, monitors = ("-c", str(self._conf)), str(self._base / "monmap")
        self._run("monmaptool", "--create", "--fsid", identity, "--addv", "a", _MONITOR, monitors)
        self._here("ceph-mon", *conf, "--mkfs", "-i", "a", "--monmap", monitors)
        self._daemon("mon", [program("ceph-mon"), "-f", *conf, "-i", "a"])
        self._daemon("mgr", [program("ceph-mgr"), "-f", *conf, "-i", "x"])
        for number in "01":
            identity = str(uuid.uuid4())
            self._here("ceph", *conf, "osd", "new", identity, number)
            self._here("ceph-osd", *conf, "-i", number, "--mkfs", "--osd-uuid", identity)
            self._daemon(f"osd.{number}", [program("ceph-osd"), "-f", *conf, "-i", number])
        for pool in ("meta", "data"):
            self._here("ceph", *conf, "osd", "pool", "create", pool, "8")
        self._here("ceph", *conf, "fs", "new", "fs", "meta", "data")
        self._daemon("mds", [program("ceph-mds"), "-f", *conf, "-i", "m"])
        until(lambda: ":active" in self._here("ceph", *conf, "mds", "stat"), "the metadata server")

    def _daemon(self, name: str, argv: list[str], net: str = "") -> ServerProcess:
        started = ServerProcess([*self._inside(net or self._net), *argv], self._base / f"{name}.out")
        if not name.startswith("fuse"):
            self._undo.callback(started.kill)
        return started

    def _here(self, name: str, *arguments: str) -> str:
        return self._run(*self._inside(self._net), program(name), *arguments)

    @staticmethod
    def _inside(net: str) -> list[str]:
        return [program("nsenter"), f"--net=/run/netns/{net}"]

    @staticmethod
    def _run(name: str, *arguments: str) -> str:
        done = subprocess.run(
            [program(name) if "/" not in name else name, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{name} {join(arguments)}: {done.stderr}"
        return done.stdout
