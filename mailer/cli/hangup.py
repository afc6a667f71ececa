"""SIGHUP: read the configuration again, unless it says that our terminal has gone."""

import os


class Terminal:
    """The terminal that controls us, if there is one."""

    def __init__(self) -> None:
        self._had_one = _is_there()

    @property
    def gone(self) -> bool:
        """Tell whether it was closed: then SIGHUP ends a program in the foreground, as everybody expects."""
        return self._had_one and not _is_there()


def _is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
