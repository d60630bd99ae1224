"""``python -m portio``: the command line."""

import sys

if __name__ == "__main__":
    try:
        from portio.cli import main

        sys.exit(main())
    except KeyboardInterrupt:  # so early that no command has begun
        sys.exit(130)
