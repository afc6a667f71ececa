"""What the tests need of the kernel rather than of a package: each is tried by doing it, once a process.

Containers forbid these in many ways, so neither an installed program nor being root says anything. What is
forbidden fails the test in CI, where a skip would go unread, and skips it elsewhere.
"""

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

from testbed.tools import program

_CLONE_NEWNET = 0x40000000
_NETWORK = Path("/proc/thread-self/ns/net")
_ELSEWHERE = "192.0.2.1"
"""For documentation only (RFC 5737): nobody has it."""

_libc = ctypes.CDLL(None, use_errno=True)


def tracer() -> str:
    """Strace, which here may run a program and tamper with its system calls.

    Raises:
        MissingToolError: it is not installed.
        pytest.fail.Exception, pytest.skip.Exception: it may not; see `forbidden`.
    """
    if trouble := _trouble_tracing():
        forbidden("run programs under strace (ptrace)", trouble)
    return program("strace")


def attacher() -> str:
    """Strace, which here may attach to a program that runs already; raises as `tracer`."""
    if trouble := _trouble_attaching():
        forbidden("attach strace to a running program (CAP_SYS_PTRACE)", trouble)
    return program("strace")


def with_own_mounts() -> tuple[str, ...]:
    """The command under which another may mount what nobody else sees; raises as `tracer`."""
    if trouble := _trouble_mounting():
        forbidden("mount in a namespace of its own (CAP_SYS_ADMIN)", trouble)
    return _own_mounts()


@contextmanager
def address_elsewhere() -> Iterator[str]:
    """An address of this machine that is not loopback, as a server on another machine has.

    Where there is none, the thread and all that it starts in the block live in a network namespace that has
    one. Either way no packet leaves the machine: the kernel delivers to its own addresses by itself.

    Raises:
        MissingToolError: ip is needed and not installed.
        pytest.fail.Exception, pytest.skip.Exception: there is none, nor may we have one; see `forbidden`.
    """
    listed = subprocess.run([program("hostname"), "-I"], capture_output=True, text=True, check=False)
    own = [address for address in listed.stdout.split() if ":" not in address]
    if own:
        yield own[0]
        return
    with network_of_its_own() as made:
        yield made


@contextmanager
def network_of_its_own() -> Iterator[str]:
    """Keep this thread, and what it starts in the block, in a network of loopback and one more address.

    Nothing there reaches another machine. Gives the address; raises as `address_elsewhere`.
    """
    before = os.open(_NETWORK, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(_CLONE_NEWNET) != 0:
            forbidden("make a network namespace (CAP_SYS_ADMIN)", os.strerror(ctypes.get_errno()))
        try:
            address = ["address", "add", f"{_ELSEWHERE}/32", "dev", "lo"]
            for arguments in (["link", "set", "lo", "up"], address):
                if trouble := _trouble([program("ip"), *arguments]):
                    forbidden("configure a network namespace (CAP_NET_ADMIN)", trouble)
            yield _ELSEWHERE
        finally:
            assert _libc.setns(before, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(before)


@contextmanager
def ipv6_loopback() -> Iterator[str]:
    """The address ::1; where IPv6 is switched off, as in many containers, in a network that has it.

    Raises:
        pytest.fail.Exception, pytest.skip.Exception: there is none, nor may we have one; see `forbidden`.
    """
    if not _trouble_with_six():
        yield "::1"
        return
    with network_of_its_own():
        on = "for i in all lo; do echo 0 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done"
        if trouble := _trouble(["sh", "-c", on]) or _trouble_with_six():
            forbidden("switch IPv6 on in a network namespace", trouble)
        yield "::1"


def _trouble_with_six() -> str:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        return str(error)
    return ""


def forbidden(what: str, trouble: str) -> NoReturn:
    """End the test: a failure in CI (`CI=true`), a skip elsewhere.

    Args:
        what: completes the sentence "this machine does not let the tests ...".
        trouble: how the attempt failed.
    """
    sentence = f"this machine does not let the tests {what}: {trouble}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{sentence}. CI must allow it: nothing is skipped there", pytrace=False)
    pytest.skip(sentence)


@cache
def _trouble_tracing() -> str:
    inject = "inject=getppid:retval=1"
    return _trouble([program("strace"), "-o", os.devnull, "-e", "trace=getppid", "-e", inject, "true"])


@cache
def _trouble_attaching() -> str:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        argv = [program("strace"), "-o", os.devnull, "-p", str(sleeper.pid)]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as attached:
            assert attached.stderr
            said = attached.stderr.readline()
            sleeper.kill()
    return "" if "attached" in said else said.strip() or "strace said nothing"


@cache
def _trouble_mounting() -> str:
    return _trouble([*_own_mounts(), "mount", "-t", "tmpfs", "none", "/mnt"])


def _own_mounts() -> tuple[str, ...]:
    # A user namespace is what everybody else needs; root does not, and some containers forbid just that.
    become_root = () if os.geteuid() == 0 else ("--map-root-user",)
    return (program("unshare"), "--mount", *become_root)


def _trouble(argv: Sequence[str]) -> str:
    """Run a command; return what it said if it failed, and nothing if it did not."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"
