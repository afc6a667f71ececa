"""Where the foreign programs are: on PATH, or unpacked into `.testbed/` by `scripts/test`."""

import os
import shutil
from pathlib import Path

TESTBED = Path(__file__).resolve().parents[2] / ".testbed"
UNPACKED_POSTFIX = TESTBED / "postfix"
UNPACKED_EXIM = TESTBED / "exim" / "usr" / "sbin" / "exim4"
UNPACKED_NSD = TESTBED / "nsd" / "usr" / "sbin" / "nsd"
UNPACKED_PROMETHEUS = TESTBED / "prometheus" / "usr" / "bin"
MOTO = TESTBED / "moto" / "bin" / "moto_server"
NODE_MODULES = TESTBED / "node" / "node_modules"


class MissingToolError(LookupError):
    """A program that the tests need is not on this machine; the message says what installs it."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the tests need {name}, which is not installed here: run scripts/test, which installs it"
        )
        self.name = name


def program(name: str) -> str:
    """The path of an installed program.

    Raises:
        MissingToolError: it is neither on PATH, nor in the system's sbin directories, nor unpacked.
    """
    # A user's PATH often lacks the sbin directories, where Debian keeps mail servers.
    places = [os.environ.get("PATH", ""), "/usr/sbin", "/sbin", str(UNPACKED_POSTFIX / "usr" / "sbin")]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise MissingToolError(name)
    return found


def postfix_root() -> Path:
    """The directory under which Postfix's files lie as its Debian package has them below `/`.

    Always the unpacked one: installing Postfix would remove an Exim, because Debian's mail servers exclude
    one another.

    Raises:
        MissingToolError: it is not there.
    """
    if not (UNPACKED_POSTFIX / "usr" / "lib" / "postfix" / "sbin" / "master").exists():
        raise MissingToolError("postfix")
    return UNPACKED_POSTFIX


def postfix_environment() -> dict[str, str]:
    """The environment in which Postfix's programs find their libraries, although they are only unpacked."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C",
        "LD_LIBRARY_PATH": str(postfix_root() / "usr" / "lib" / "postfix"),
    }


def exim_program() -> Path:
    """Exim's program, unpacked or installed.

    Raises:
        MissingToolError: neither is there.
    """
    return UNPACKED_EXIM if UNPACKED_EXIM.exists() else Path(program("exim4"))


def prometheus_program(name: str) -> str:
    """`prometheus` or `promtool`, unpacked or installed.

    Raises:
        MissingToolError: neither is there.
    """
    unpacked = UNPACKED_PROMETHEUS / name
    return str(unpacked) if unpacked.exists() else program(name)


def node_modules(*packages: str) -> Path:
    """The directory that holds npm packages.

    Raises:
        MissingToolError: `npm install` has not put one of these there.
    """
    for package in packages:
        if not (NODE_MODULES / package).is_dir():
            raise MissingToolError(package)
    return NODE_MODULES
