"""Fuzzes one target with atheris: `python tests/fuzz/run.py TARGET CORPUS [LIBFUZZER OPTION...]`."""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mailer"]):
    import peers
    import targets

SEEDS, TARGETS = targets.SEEDS | peers.SEEDS, targets.TARGETS | peers.TARGETS
name, corpus = sys.argv[1], Path(sys.argv[2])
corpus.mkdir(parents=True, exist_ok=True)
for number, seed in enumerate(SEEDS[name]):
    (corpus / f"seed-{number}").write_bytes(seed)
atheris.Setup([sys.argv[0], str(corpus), *sys.argv[3:]], TARGETS[name])
atheris.Fuzz()
