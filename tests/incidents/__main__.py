"""Run the staged incidents, and print whether their first command tells cause and action."""

import sys
import tempfile
from pathlib import Path

from incidents.staged import ask
from incidents.table import INCIDENTS


def main() -> int:
    """Print the table; return 1 if a command does not tell both."""
    bad = 0
    for incident in INCIDENTS:
        with tempfile.TemporaryDirectory(prefix="mailer-incident-") as directory:
            answer = ask(incident, Path(directory))
        bad += bool(answer.missing)
        command = " ".join(("mailer", *incident.command))
        cause, action = ("yes" if each else "no" for each in (answer.cause_found, answer.action_found))
        sys.stdout.write(f"{incident.name:<44} {command:<34} cause {cause:<4} action {action}\n")
        if answer.missing:
            sys.stdout.write(f"missing: {answer.missing}\n{answer.output}")
        sys.stdout.flush()
    sys.stdout.write(f"{len(INCIDENTS) - bad} of {len(INCIDENTS)} are answered by the first command\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
