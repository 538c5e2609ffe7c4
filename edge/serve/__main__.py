"""`python -m edge.serve BUNDLE`: as `edge serve`, for devices that have no other verb."""

from __future__ import annotations

import argparse
import sys

from edge.errors import EdgeError
from edge.serve import start


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m edge.serve", description=__doc__)
    start.add_arguments(parser)
    try:
        return start.run(parser.parse_args())
    except EdgeError as err:
        sys.stderr.write(f"edge: {err}\n")
        return err.exit_code


if __name__ == "__main__":
    sys.exit(main())
