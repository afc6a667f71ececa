"""Report an unexpected exception, without the data that the code was handling."""

from mailer.maillog.events import MailLog


def report(log: MailLog, id: str, error: Exception) -> str:
    """Log an unexpected exception, and return it as a reason for the journal.

    Only its type and place are written, because its message may contain a secret.
    """
    kind = type(error).__name__
    log.error("defect", id=id, error=kind, at=_place(error))
    return f"internal error: {kind}"


def _place(error: BaseException) -> str:
    """Return the file and line where an exception was raised, without frames, whose values may be secret."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
