"""Start and end of every mailer program: set the umask first, and end with one sentence and an exit code."""

import errno
import gc
import os
import sys
from io import TextIOWrapper
from typing import NoReturn

import click

from mailer.cli.exits import Exit, Failure
from mailer.maillog import outlet


def run(command: click.Command, name: str, arguments: list[str] | None = None) -> NoReturn:
    """Run a command as a program and exit.

    Args:
        command: the command to run; its result is the exit code, and None means 0.
        name: the program's name in messages and for shell completion.
        arguments: used instead of those of the command line, unless None.
    """
    # Before any file can be created: the inherited umask may be 000.
    os.umask(0o077)
    _fill_standard_streams()
    if isinstance(sys.stdout, TextIOWrapper):
        # An address in UTF-8 must not end a listing on a Latin-1 terminal.
        sys.stdout.reconfigure(errors="backslashreplace")
    code = _code(command, name, arguments)
    outlet.flush()
    # The system frees the memory anyway; a last search for reference cycles would take 6 ms.
    gc.freeze()
    sys.exit(code)


def _fill_standard_streams() -> None:
    """Open closed standard streams on /dev/null; otherwise the next file opened would receive the output."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != fd:
                os.dup2(nowhere, fd)
                os.close(nowhere)
            setattr(sys, name, open(fd, mode, errors="backslashreplace", closefd=False))  # noqa: SIM115 - stays open


def _code(command: click.Command, name: str, arguments: list[str] | None) -> int:
    try:
        result = command.main(arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except Failure as failure:
        _complain(name, str(failure))
        return failure.code
    except MemoryError:
        _complain(
            name, "it may not use as much memory as it needs: raise `ulimit -v`; no accepted mail is lost"
        )
        return Exit.TEMPORARY
    except Exception as error:  # noqa: BLE001 - the program's outermost boundary: it says what happened and exits
        return _explain(name, error)
    return result if isinstance(result, int) else Exit.OK


def _explain(name: str, error: Exception) -> Exit:
    # Imported here because most runs succeed.
    from mailer.config.problem import ConfigError  # noqa: PLC0415
    from mailer.config.secrets import SecretError  # noqa: PLC0415
    from mailer.spool.preparation import SpoolError  # noqa: PLC0415

    match error:
        case ConfigError():
            if error.found is not None:
                where = f"{error.found} was read, since neither --config nor $MAILER_CONFIG names a file"
                _complain(name, f"{where}; it cannot be used:")
            sys.stderr.writelines(f"{problem}\n" for problem in error.problems)
            return Exit.CONFIG
        case SecretError():
            _complain(name, str(error))
            return Exit.CONFIG
        case SpoolError():
            _complain(name, system_words(error))
            return Exit.UNAVAILABLE
        case PermissionError():
            _complain(name, system_words(error))
            return Exit.NO_PERMISSION
        case OSError():
            _complain(name, system_words(error))
            return Exit.TEMPORARY
    import traceback  # noqa: PLC0415

    _complain(name, f"a defect in mailer, {type(error).__name__}; please report what follows")
    # Print frames and the message, but never local variables: those may hold a password.
    traceback.print_exception(error)
    return Exit.SOFTWARE


def system_words(error: OSError) -> str:
    """Return the system's error text, such as `No space left on device`, with the file that it is about."""
    if not error.strerror:
        return str(error)
    said = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if error.errno != errno.EMFILE:
        return said
    from resource import RLIMIT_NOFILE, getrlimit  # noqa: PLC0415 - as above

    most = getrlimit(RLIMIT_NOFILE)[0]
    return f"{said}; this program may open {most} files: raise `ulimit -n`, or LimitNOFILE= of its unit"


def _complain(name: str, text: str) -> None:
    from mailer.mail.reply import printable  # noqa: PLC0415 - as above

    sys.stderr.write(f"{name}: {printable(text)}\n")
