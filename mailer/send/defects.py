"""A defect of ours, described without the data that it may have handled."""

from mailer.maillog.events import MailLog


def tell(log: MailLog, id: str, error: Exception) -> str:
    """Tell the log of an exception that nobody expected, and return it as a reason for the journal.

    Its type and place only: its words may hold a secret.
    """
    kind = type(error).__name__
    log.error("defect", id=id, error=kind, at=_place(error))
    return f"internal error: {kind}"


def _place(error: BaseException) -> str:
    """Name the file and line where an exception was raised; not its frames, whose values may be secret."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
