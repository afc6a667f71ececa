"""Check that other users cannot change or read files that the configuration names; called by `checks`."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mailer.config.model import Config
from mailer.config.problem import Problem
from mailer.config.trust import Untrusted, open_trusted, owners_of


def tls_files(config: Config) -> Iterator[Problem]:
    """Yield a certificate or key that other users could change, and a key that they could read."""
    tls = config.tls
    if tls.certificate_path:
        yield from _distrusted("$.tls.certificatePath", tls.certificate_path, config, "is not used")
    if tls.private_key_path:
        yield from _distrusted(
            "$.tls.privateKeyPath", tls.private_key_path, config, "is not used", secret=True
        )


def program(key: str, command: Sequence[str], config: Config) -> Iterator[Problem]:
    """Yield a program that other users could change; a name without a slash, found in PATH, is not checked.

    Args:
        key: the configuration key of the command.
        command: the program and its arguments; empty: none.
        config: the configuration.
    """
    if command and "/" in command[0]:
        yield from _distrusted(f"{key}[0]", Path(command[0]), config, "is not run", os.O_PATH)


def _distrusted(
    key: str, path: Path, config: Config, so: str, flags: int = os.O_RDONLY, *, secret: bool = False
) -> Iterator[Problem]:
    try:
        os.close(open_trusted(path, flags, owners=owners_of(config.spool_dir), secret=secret))
    except Untrusted as error:
        yield Problem(key, f"{so}: {error.strerror}")
    except OSError:
        return  # the program that opens it reports what is wrong with it
