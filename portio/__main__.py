"""``python -m portio``: the command line."""

import sys

from portio.cli import main

if __name__ == "__main__":
    sys.exit(main())
