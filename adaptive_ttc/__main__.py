"""The command ``python -m adaptive_ttc``."""

import sys

if __name__ == "__main__":
    try:
        from adaptive_ttc.cli import main

        sys.exit(main())
    except KeyboardInterrupt:  # while the libraries are imported; later the command says what is kept
        print("interrupted", file=sys.stderr)
        sys.exit(130)
