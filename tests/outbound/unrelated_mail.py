"""Mails that share neither sender nor recipient nor domain, and which of them bounced."""

from outbound.runs import HOUR, Cron

MAILS = 4


PAUSE = 5 * HOUR
"""The longest that mail waits when a provider says yes again: its pause, and the last of `retry.schedule`."""


def strangers(cron: Cron, count: int = MAILS, start: int = 0) -> list[str]:
    """Queue mails no two of which share anything."""
    return [
        cron.queue(f"app@{number}.example", [f"bob@{number}.example.net"])
        for number in range(start, start + count)
    ]


def bounced(cron: Cron) -> list[str]:
    return [name for name, stands in cron.statuses().items() if stands & {"bounced", "expired"}]
