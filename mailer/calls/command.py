"""A program that the operator names: run without a shell, data on standard input, bounded in time."""

import asyncio
import os
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping

from mailer.calls.post import CallTrouble

# What a program needs to run and to find its own files; other variables may be secrets of ours.
_ENVIRONMENT = ("HOME", "LANG", "LOGNAME", "PATH", "USER", "XDG_RUNTIME_DIR")


async def run(
    argv: tuple[str, ...],
    given: bytes,
    *,
    timeout: float,  # noqa: ASYNC109 - the caller's word for it is seconds, and the process is killed then
    environment: Mapping[str, str],
) -> None:
    """Run a program to its end, as the user that we are.

    Args:
        argv: its name, looked up in PATH unless it has a slash, and its arguments.
        given: its standard input; one that does not read it all may end well all the same.
        timeout: seconds; then it is killed.
        environment: variables in addition to those by which it finds its own files.

    Raises:
        CallTrouble: it cannot be started, ends with another code than 0, or takes too long.
    """
    variables = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | dict(environment)
    try:
        process = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=DEVNULL, env=variables)
    except OSError as error:
        raise CallTrouble(f"{argv[0]} cannot be started: {error.strerror}") from error
    try:
        async with asyncio.timeout(timeout):
            await process.communicate(given)
    except TimeoutError:
        raise CallTrouble(f"{argv[0]} took longer than {timeout:g} seconds") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise CallTrouble(f"{argv[0]} ended with {process.returncode}")
