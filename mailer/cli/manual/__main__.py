"""Print a manual page, such as `mailer.1`: `python -m mailer.cli.manual PAGE`, as `scripts/install` does."""

import sys

from mailer.cli.exits import Exit
from mailer.cli.manual.pages import pages

if __name__ == "__main__":
    made = pages()
    match sys.argv[1:]:
        case [name] if name in made:
            sys.stdout.buffer.write(made[name].encode())
        case _:
            sys.stderr.write(f"name one of {', '.join(made)}\n")
            sys.exit(Exit.USAGE)
