"""Files that the configuration names, in the hands of other users; see `checks`, which asks."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mailer.config.model import Config
from mailer.config.problem import Problem
from mailer.config.trust import Untrusted, open_trusted, owners_of


def tls_files(config: Config) -> Iterator[Problem]:
    """Name a certificate or key that others could change, and a key that they could read."""
    tls = config.tls
    if tls.certificate_path:
        yield from _distrusted("$.tls.certificatePath", tls.certificate_path, config, "is not used")
    if tls.private_key_path:
        yield from _distrusted(
            "$.tls.privateKeyPath", tls.private_key_path, config, "is not used", secret=True
        )


def program(key: str, command: Sequence[str], config: Config) -> Iterator[Problem]:
    """Name a program that others could change; one without a slash is looked for in PATH.

    Args:
        key: of the configuration, whose value the command is.
        command: the program, and its arguments; empty: there is none.
        config: whose it is.
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
        return  # the program that reads it says what is wrong with it
