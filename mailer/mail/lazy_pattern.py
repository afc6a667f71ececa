"""Regular expressions that are compiled at their first use.

Compiling one takes 0.1 to 0.7 ms, and a program that cron starts each minute uses few of its patterns.
"""

import re
from typing import Any, AnyStr, Generic, cast

_METHODS = ("match", "fullmatch", "search", "sub", "split", "findall", "finditer", "pattern", "flags")


def compile_late(pattern: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """Return an object with the methods of a compiled pattern; a syntax error is raised at its first use."""
    return cast("re.Pattern[AnyStr]", _Late(pattern, flags))


class _Late(Generic[AnyStr]):
    def __init__(self, pattern: AnyStr, flags: int) -> None:
        self._wanted: tuple[AnyStr, int] = pattern, flags

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a pattern has
        if name not in _METHODS:
            raise AttributeError(name)
        compiled = re.compile(*self._wanted)
        # From here on a call costs as much as one to the compiled pattern.
        for each in _METHODS:
            setattr(self, each, getattr(compiled, each))
        return getattr(compiled, name)
