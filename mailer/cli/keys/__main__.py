"""Print the configuration guide with its tables up to date: `python -m mailer.cli.keys LANGUAGE <GUIDE`."""

import sys

from mailer.cli.exits import Exit
from mailer.cli.keys.reference import read
from mailer.cli.keys.tables import faults, with_tables
from mailer.cli.options import LANGUAGES
from mailer.config.key_list import keys

if __name__ == "__main__":
    language = sys.argv[1]
    assert language in LANGUAGES
    source = read()
    if found := list(faults(source, keys())):
        sys.stderr.writelines(f"{fault}\n" for fault in found)
        sys.exit(Exit.FINDINGS)
    guide = sys.stdin.buffer.read().decode()
    sys.stdout.buffer.write(with_tables(guide, language, source).encode())
