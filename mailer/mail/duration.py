"""Write a duration for people, the same one in every message, listing and document of ours."""

from functools import lru_cache

UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def duration(seconds: float) -> str:
    """Format a duration in its two largest units: `45s`, `3m20s`, `2d4h`."""
    return _duration(max(0, round(seconds)))


# Cached because the messages of one bucket are due within the same minute.
@lru_cache(maxsize=256)
def _duration(left: int) -> str:
    parts: list[str] = []
    for size, unit in UNITS:
        count, left = divmod(left, size)
        if count or parts or size == 1:
            parts.append(f"{count}{unit}")
        if len(parts) == 2:
            break
    return "".join(part for part in parts if not part.startswith("0") or len(parts) == 1)
