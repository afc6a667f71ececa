"""The first command that an operator types tells the cause and the right action; see `incidents.table`."""

from pathlib import Path

import pytest
from incidents.staged import Incident, ask
from incidents.table import INCIDENTS

STAGED = [incident for incident in INCIDENTS if not incident.by_hand]


@pytest.mark.parametrize("incident", STAGED, ids=lambda incident: incident.name)
def test_the_first_command_names_the_cause_and_what_to_do(incident: Incident, tmp_path: Path) -> None:
    answer = ask(incident, tmp_path)
    assert answer.missing == [], answer.output
