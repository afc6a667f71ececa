"""Calls of the C library that `os` lacks. ctypes takes 2 ms to load, which most commands need not pay."""

from typing import Any

_ARGUMENTS = {
    "fallocate": ("c_int", "c_int", "c_int64", "c_int64"),
    "sync_file_range": ("c_int", "c_int64", "c_int64", "c_uint"),
}
"""Types of arguments that are wider than the int that ctypes would pass."""


class _Libc:
    """The functions of the C library as attributes, each looked up at its first use."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever function it is
        import ctypes  # noqa: PLC0415 - see above

        function = getattr(ctypes.CDLL(None, use_errno=True), name)
        function.argtypes = (
            [getattr(ctypes, each) for each in _ARGUMENTS[name]] if name in _ARGUMENTS else None
        )
        # From here on a call costs as much as one through ctypes itself.
        setattr(self, name, function)
        return function


libc = _Libc()


def load(*names: str) -> None:
    """Look functions up now, for a program that may have no descriptors left for it later."""
    for name in names:
        getattr(libc, name)


def last_error() -> int:
    """Return errno as the last call of this thread left it."""
    import ctypes  # noqa: PLC0415 - loaded by that call

    return ctypes.get_errno()
