"""What the kernel tells of a running process, under `/proc`."""

from pathlib import Path


def children(pid: int) -> list[int]:
    """The processes that its first thread started and has not reaped."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid: int) -> bool:
    """Whether it has ended; one whose parent does not reap it has ended all the same."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def opened(pid: int) -> list[str]:
    """The path or the socket behind each of its descriptors; without those closed while we look."""
    found: list[str] = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return found


def peak_megabytes(pid: int) -> float:
    """The most memory that it has had resident."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
