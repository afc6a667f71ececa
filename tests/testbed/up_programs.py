"""The programs that `mailer up` runs."""

from pathlib import Path

from testbed.proc import children


def programs_of(pid: int) -> dict[str, int]:
    """The process ids of `mailer up`'s programs, by what they run."""
    of = {Path(f"/proc/{child}/cmdline").read_bytes(): child for child in children(pid)}
    return {"serve" if b"\0serve\0" in argv else "send": child for argv, child in of.items()}
