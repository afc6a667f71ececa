"""What the tests' ports promise: no two test processes are ever given the same one."""

import subprocess
import sys

_DRAWS = 200
_DRAW = f"from testbed.ports import free_port; print(*(free_port() for _ in range({_DRAWS}))); input()"


def test_processes_that_run_at_the_same_time_draw_different_ports() -> None:
    argv = [sys.executable, "-c", _DRAW]
    drawing = [
        subprocess.Popen(
            argv,
            env={"PYTHONPATH": ":".join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    lines = [process.stdout.readline() for process in drawing if process.stdout]
    for process in drawing:
        process.communicate("\n")
    ports = [int(port) for line in lines for port in line.split()]
    assert len(set(ports)) == len(ports) == _DRAWS * len(drawing)
