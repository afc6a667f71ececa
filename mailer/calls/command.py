"""Runs a program that the operator names: without a shell, with data on standard input and a time limit."""

import asyncio
import os
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping

from mailer.calls.post import CallError

# Variables that a program needs to run and to find its own files; others may hold secrets and are not passed.
_ENVIRONMENT = ("HOME", "LANG", "LOGNAME", "PATH", "USER", "XDG_RUNTIME_DIR")


async def run(
    argv: tuple[str, ...],
    given: bytes,
    *,
    timeout: float,  # noqa: ASYNC109 - a parameter, because the process must be killed at the time-out
    environment: Mapping[str, str],
) -> None:
    """Run a program to its end, as the user of this process.

    Args:
        argv: its name, looked up in PATH unless it has a slash, and its arguments.
        given: its standard input; a program may succeed without reading all of it.
        timeout: seconds after which it is killed.
        environment: additional environment variables.

    Raises:
        CallError: the program cannot be started, ends with an exit code other than 0, or takes too long.
    """
    variables = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | dict(environment)
    try:
        process = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=DEVNULL, env=variables)
    except OSError as error:
        raise CallError(f"{argv[0]} cannot be started: {error.strerror}") from error
    try:
        async with asyncio.timeout(timeout):
            await process.communicate(given)
    except TimeoutError:
        raise CallError(f"{argv[0]} took longer than {timeout:g} seconds") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise CallError(f"{argv[0]} ended with {process.returncode}")
